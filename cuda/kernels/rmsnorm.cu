// RMSNorm and activation quantisation of whole rows, and SwiGLU: a block of threads per row.
#include "device/check.h"
#include "kernels/launch.h"
#include "kernels/warp.cuh"

namespace orcd::kernels {
namespace {

constexpr uint32_t kThreads = 256;

__global__ void rmsnorm_rows(const float* x, const uint32_t* pick, const float* weight, float eps, Activations out) {
  const uint32_t row = blockIdx.x, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const float* from = x + uint64_t(pick ? pick[row] : row) * out.cols;
  const float inverse = inverse_rms(from, out.cols, eps);  // by every warp: no exchange needed
  for (uint32_t base = warp * 32; base < out.cols; base += kThreads) {
    const uint32_t k = base + lane;
    const bool inside = k < out.cols;
    const float y = inside ? (from[k] * inverse) * weight[k] : 0.0f;
    if (out.x && inside) out.x[uint64_t(row) * out.cols + k] = y;
    if (out.q) store_block(out, row, base / 32, quantise_block(y));
  }
}

__global__ void quantise_rows(Activations a) {
  const uint32_t row = blockIdx.x, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (uint32_t block = warp; block < a.cols / 32; block += kThreads / 32)
    store_block(a, row, block, quantise_block(a.x[uint64_t(row) * a.cols + block * 32 + lane]));
}

__global__ void swiglu_rows(const float* gate, const float* up, Activations out) {
  const uint32_t row = blockIdx.x, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (uint32_t base = warp * 32; base < out.cols; base += kThreads) {
    const uint64_t at = uint64_t(row) * out.cols + base + lane;
    const bool inside = base + lane < out.cols;
    const float y = inside ? silu_times(gate[at], up[at]) : 0.0f;
    if (out.x && inside) out.x[at] = y;
    if (out.q) store_block(out, row, base / 32, quantise_block(y));
  }
}

}  // namespace

void rmsnorm(const float* x, const uint32_t* pick, uint32_t rows, const float* weight, float eps,
             const Activations& out, cudaStream_t stream) {
  rmsnorm_rows<<<rows, kThreads, 0, stream>>>(x, pick, weight, eps, out);
  ORCD_CUDA(cudaGetLastError());
}

void quantise(const Activations& a, uint32_t rows, cudaStream_t stream) {
  if (!a.q) return;  // only float weights read it
  quantise_rows<<<rows, kThreads, 0, stream>>>(a);
  ORCD_CUDA(cudaGetLastError());
}

void swiglu(const float* gate, const float* up, uint32_t rows, const Activations& out, cudaStream_t stream) {
  swiglu_rows<<<rows, kThreads, 0, stream>>>(gate, up, out);
  ORCD_CUDA(cudaGetLastError());
}

}  // namespace orcd::kernels
