// RMSNorm and activation quantization of whole rows, gated units, and the residual stream: a block of threads per row, or, where no value depends
// on the whole row, several.
#include "arith/glu.h"
#include "kernels/launch.h"
#include "kernels/pdl.h"
#include "kernels/store_row.cuh"
#include "kernels/warp.cuh"

namespace orcd::kernels {
namespace {

constexpr uint32_t kThreads = 256;

// Of this kernel's thread blocks, those that share a row.
__device__ __forceinline__ Sharers sharers() {
  return {(blockIdx.y * kThreads + threadIdx.x) / 32, gridDim.y * kThreads / 32};
}

__global__ void rmsnorm_rows(const float* x, const uint32_t* gather, const float* weight, float eps, Activations out) {
  const uint32_t row = blockIdx.x;
  pdl_launch_dependents();
  pdl_wait();
  const float* from = x + uint64_t(gather ? gather[row] : row) * out.cols;
  // By every warp: no exchange needed.
  const float inverse = out.cols % 4 ? inverse_rms(from, out.cols, eps) : inverse_rms4(from, out.cols, eps);
  store_row(
      out, gridDim.x, row, sharers(), [&](uint32_t k) { return (from[k] * inverse) * weight[k]; },
      [&](uint32_t k) { return normed4(load4(from + k), inverse, load4(weight + k)); });
}

__global__ void quantize_rows(Activations a) {
  const float* from = a.x + uint64_t(blockIdx.x) * a.cols;
  a.x = nullptr;  // nothing to store there
  pdl_launch_dependents();
  pdl_wait();
  store_row(
      a, gridDim.x, blockIdx.x, sharers(), [&](uint32_t k) { return from[k]; },
      [&](uint32_t k) { return load4(from + k); });
}

template <Activation A>
__global__ void glu_rows(const float* gate, const float* up, Activations out) {
  const float* g = gate + uint64_t(blockIdx.x) * out.cols;
  const float* u = up + uint64_t(blockIdx.x) * out.cols;
  pdl_launch_dependents();
  pdl_wait();
  store_row(
      out, gridDim.x, blockIdx.x, sharers(), [&](uint32_t k) { return arith::gated(A, g[k], u[k]); },
      [&](uint32_t k) {
        const float4 a = load4(g + k), b = load4(u + k);
        return float4{arith::gated(A, a.x, b.x), arith::gated(A, a.y, b.y), arith::gated(A, a.z, b.z),
                      arith::gated(A, a.w, b.w)};
      });
}

__global__ void add_rows(const float* y, BranchEnd end, uint32_t cols, float* x) {
  const float* from = y + uint64_t(blockIdx.x) * cols;
  float* to = x + uint64_t(blockIdx.x) * cols;
  const uint32_t first = blockIdx.y * kThreads + threadIdx.x, step = gridDim.y * kThreads;
  pdl_launch_dependents();
  pdl_wait();
  // By every warp: no exchange needed.
  const float inverse = !end.norm  ? 1.0f
                        : cols % 4 ? inverse_rms(from, cols, end.eps)
                                   : inverse_rms4(from, cols, end.eps);
  if (cols % 4) {
    for (uint32_t k = first; k < cols; k += step) {
      const float value = end.norm ? (from[k] * inverse) * end.norm[k] : from[k];
      to[k] = to[k] + value * end.scale;
    }
    return;
  }
  for (uint32_t k = 4 * first; k < cols; k += 4 * step) {
    const float4 old = load4(to + k), given = load4(from + k);
    const float4 v = end.norm ? normed4(given, inverse, load4(end.norm + k)) : given;
    *reinterpret_cast<float4*>(to + k) = {old.x + v.x * end.scale, old.y + v.y * end.scale, old.z + v.z * end.scale,
                                          old.w + v.w * end.scale};
  }
}

// So many blocks of threads share a row that a warp has one super-block, or a few blocks; of few rows one block.
dim3 spread(uint32_t rows, const Activations& out) {
  constexpr uint32_t kWarps = kThreads / 32, kFew = 8;
  const uint32_t each = kWarps * (out.supers.q || rows > kFew ? kSuperBlock : kQuantBlock);
  return dim3(rows, (out.cols + each - 1) / each);
}

}  // namespace

void rmsnorm(const float* x, const uint32_t* gather, uint32_t rows, const float* weight, float eps,
             const Activations& out, cudaStream_t stream) {
  launch_kernel(rmsnorm_rows, {rows, kThreads}, true, stream, x, gather, weight, eps, tiled(out, rows));
}

void quantize(const Activations& a, uint32_t rows, cudaStream_t stream) {
  if (!a.blocks.q && !a.supers.q) return;  // only float weights read it
  launch_kernel(quantize_rows, {spread(rows, a), kThreads}, true, stream, tiled(a, rows));
}

void glu(Activation activation, const float* gate, const float* up, uint32_t rows, const Activations& out,
         cudaStream_t stream) {
  const auto kernel = activation == Activation::kGeGlu           ? glu_rows<Activation::kGeGlu>
                      : activation == Activation::kClampedSwiGlu ? glu_rows<Activation::kClampedSwiGlu>
                                                                 : glu_rows<Activation::kSwiGlu>;
  launch_kernel(kernel, {spread(rows, out), kThreads}, true, stream, gate, up, tiled(out, rows));
}

void add(const float* y, const BranchEnd& end, uint32_t rows, uint32_t cols, float* x, cudaStream_t stream) {
  constexpr uint32_t kFew = 8, kEach = 4 * kThreads;
  const dim3 blocks(rows, rows > kFew ? 1 : (cols + kEach - 1) / kEach);
  launch_kernel(add_rows, {blocks, kThreads}, true, stream, y, end, cols, x);
}

}  // namespace orcd::kernels
