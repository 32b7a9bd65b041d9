// RMSNorm and activation quantization of whole rows, and SwiGLU: a block of threads per row.
#include "device/check.h"
#include "kernels/launch.h"
#include "kernels/pdl.h"
#include "kernels/prologue.cuh"
#include "kernels/warp.cuh"

namespace orcd::kernels {
namespace {

constexpr uint32_t kThreads = 256;
constexpr uint32_t kTiledWarps = 8;

__global__ void rmsnorm_rows(const float* x, const uint32_t* gather, const float* weight, float eps, Activations out) {
  const uint32_t row = blockIdx.x, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const float* from = x + uint64_t(gather ? gather[row] : row) * out.cols;
  const float inverse = inverse_rms(from, out.cols, eps);  // by every warp: no exchange needed
  for (uint32_t base = warp * 32; base < out.cols; base += kThreads) {
    const uint32_t k = base + lane;
    const bool inside = k < out.cols;
    const float y = inside ? (from[k] * inverse) * weight[k] : 0.0f;
    if (out.x && inside) out.x[uint64_t(row) * out.cols + k] = y;
    if (out.q) store_block(out, row, base / 32, quantize_block(y));
  }
}

// For rows of a multiple of 32 values: a warp per 128 of them.
__global__ void __launch_bounds__(kTiledWarps * 32)
    rmsnorm_tiled_rows(const float* x, const uint32_t* gather, const float* weight, float eps, uint32_t cols,
                       TiledActivations out) {
  const uint32_t row = blockIdx.x, lane = threadIdx.x % 32;
  pdl_launch_dependents();
  pdl_wait();
  const float* from = x + uint64_t(gather ? gather[row] : row) * cols;
  const float inverse = inverse_rms4(from, cols, eps);  // by every warp: no exchange needed
  for (uint32_t base = threadIdx.x / 32 * 128; base < cols; base += blockDim.x * 4) {
    const uint32_t k = base + 4 * lane;
    const bool inside = k < cols;  // the eight lanes of a block are inside together
    const FourQuantized four = quantize_four(inside ? normed4(load4(from + k), inverse, load4(weight + k)) : float4{});
    if (!inside) continue;
    *reinterpret_cast<uint32_t*>(out.q + tiled_word(out, row, k)) = four.q;
    if (lane % 8) continue;
    const uint32_t at = tiled_block(out, row, k / 32);
    out.d[at] = four.d;
    out.sum[at] = four.sum;
    out.sum_lo16[at] = four.sum_lo16;
  }
}

__global__ void quantize_rows(Activations a) {
  const uint32_t row = blockIdx.x, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (uint32_t block = warp; block < a.cols / 32; block += kThreads / 32)
    store_block(a, row, block, quantize_block(a.x[uint64_t(row) * a.cols + block * 32 + lane]));
}

__global__ void swiglu_rows(const float* gate, const float* up, Activations out) {
  const uint32_t row = blockIdx.x, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (uint32_t base = warp * 32; base < out.cols; base += kThreads) {
    const uint64_t at = uint64_t(row) * out.cols + base + lane;
    const bool inside = base + lane < out.cols;
    const float y = inside ? silu_times(gate[at], up[at]) : 0.0f;
    if (out.x && inside) out.x[at] = y;
    if (out.q) store_block(out, row, base / 32, quantize_block(y));
  }
}

}  // namespace

void rmsnorm(const float* x, const uint32_t* gather, uint32_t rows, const float* weight, float eps,
             const Activations& out, cudaStream_t stream) {
  rmsnorm_rows<<<rows, kThreads, 0, stream>>>(x, gather, weight, eps, out);
  ORCD_CUDA(cudaGetLastError());
}

void rmsnorm_tiled(const float* x, const uint32_t* gather, uint32_t rows, const float* weight, float eps, uint32_t cols,
                   const TiledActivations& out, bool pdl, cudaStream_t stream) {
  const uint32_t warps = min((cols + 127) / 128, kTiledWarps);
  launch_kernel(rmsnorm_tiled_rows, {rows, warps * 32}, pdl, stream, x, gather, weight, eps, cols, out);
}

void quantize(const Activations& a, uint32_t rows, cudaStream_t stream) {
  if (!a.q) return;  // only float weights read it
  quantize_rows<<<rows, kThreads, 0, stream>>>(a);
  ORCD_CUDA(cudaGetLastError());
}

void swiglu(const float* gate, const float* up, uint32_t rows, const Activations& out, cudaStream_t stream) {
  swiglu_rows<<<rows, kThreads, 0, stream>>>(gate, up, out);
  ORCD_CUDA(cudaGetLastError());
}

}  // namespace orcd::kernels
