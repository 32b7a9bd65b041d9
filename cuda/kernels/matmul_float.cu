// Products with float weights: a warp per weight row, in the contract's 32 lanes, eight activation rows
// at a time so that a weight is read once for them.
#include "arith/constants.h"
#include "arith/half.h"
#include "device/check.h"
#include "kernels/launch.h"
#include "kernels/warp.cuh"

namespace orcd::kernels {
namespace {

constexpr uint32_t kThreads = 128;
constexpr uint32_t kRowsAtOnce = 8;

__device__ __forceinline__ float weight_at(const Tensor& w, uint64_t i) {
  if (w.type == TensorType::kF32) return reinterpret_cast<const float*>(w.data)[i];
  const uint16_t bits = reinterpret_cast<const uint16_t*>(w.data)[i];
  return w.type == TensorType::kF16 ? arith::f16_to_f32(bits) : arith::bf16_to_f32(bits);
}

__global__ void matmul_float_kernel(MatmulArgs p, Activations act, uint32_t rows) {
  const uint32_t n = blockIdx.x * (kThreads / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  const uint32_t row0 = blockIdx.y * kRowsAtOnce;
  if (n >= p.w.rows) return;
  float y[kRowsAtOnce] = {};
  for (uint32_t segment = 0; segment < act.cols; segment += kSegment) {
    float s[kRowsAtOnce] = {};
    for (uint32_t k = segment + lane; k < segment + kSegment && k < act.cols; k += kDotLanes) {
      const float w = weight_at(p.w, uint64_t(n) * act.cols + k);
#pragma unroll
      for (uint32_t i = 0; i < kRowsAtOnce; ++i)
        if (row0 + i < rows) s[i] = arith::fma32(w, act.x[uint64_t(row0 + i) * act.cols + k], s[i]);
    }
#pragma unroll
    for (uint32_t i = 0; i < kRowsAtOnce; ++i) y[i] = y[i] + tree32(s[i]);
  }
  if (lane) return;
#pragma unroll
  for (uint32_t i = 0; i < kRowsAtOnce; ++i) {
    if (row0 + i >= rows) return;
    float* to = p.y + uint64_t(row0 + i) * p.w.rows + n;
    const float product = p.bias ? y[i] + p.bias[n] : y[i];
    *to = p.add ? *to + product : product;
  }
}

}  // namespace

void matmul_float(const MatmulArgs& p, const Activations& a, uint32_t rows, cudaStream_t stream) {
  const dim3 grid((p.w.rows + kThreads / 32 - 1) / (kThreads / 32), (rows + kRowsAtOnce - 1) / kRowsAtOnce);
  matmul_float_kernel<<<grid, kThreads, 0, stream>>>(p, a, rows);
  ORCD_CUDA(cudaGetLastError());
}

}  // namespace orcd::kernels
