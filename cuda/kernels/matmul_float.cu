// Products with float weights: a warp per weight row, in the contract's 32 lanes, eight activation rows
// at a time so that a weight is read once for them.
#include "arith/constants.h"
#include "device/check.h"
#include "kernels/float_weight.cuh"
#include "kernels/launch.h"
#include "kernels/pdl.h"
#include "kernels/warp.cuh"

namespace orcd::kernels {
namespace {

constexpr uint32_t kThreads = 128;
constexpr uint32_t kRowsAtOnce = 8;

constexpr uint32_t kSegmentsAtOnce = 4;

__global__ void __launch_bounds__(kThreads)
    matmul_float_kernel(const __grid_constant__ MatmulArgs p, const __grid_constant__ Activations act, uint32_t rows) {
  constexpr uint32_t kEach = kSegment / kDotLanes;
  const uint32_t n = blockIdx.x * (kThreads / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  const uint32_t row0 = blockIdx.y * kRowsAtOnce;
  pdl_launch_dependents();
  pdl_wait();
  if (n >= p.w.rows) return;
  float y[kRowsAtOnce] = {};
  // Weights of some segments are fetched before the first is used.
  for (uint32_t first = 0; first < act.cols; first += kSegmentsAtOnce * kSegment) {
    float w[kSegmentsAtOnce][kEach];
#pragma unroll
    for (uint32_t i = 0; i < kSegmentsAtOnce; ++i)
#pragma unroll
      for (uint32_t j = 0; j < kEach; ++j) {
        const uint32_t k = first + i * kSegment + j * kDotLanes + lane;
        w[i][j] = k < act.cols ? float_weight(p.w, uint64_t(n) * act.cols + k) : 0.0f;
      }
#pragma unroll
    for (uint32_t r = 0; r < kRowsAtOnce; ++r) {
      if (row0 + r >= rows) break;
      const float* x = act.x + uint64_t(row0 + r) * act.cols;
      float s[kSegmentsAtOnce] = {};
#pragma unroll
      for (uint32_t i = 0; i < kSegmentsAtOnce; ++i)
#pragma unroll
        for (uint32_t j = 0; j < kEach; ++j) {
          const uint32_t k = first + i * kSegment + j * kDotLanes + lane;
          s[i] = arith::fma32(w[i][j], k < act.cols ? x[k] : 0.0f, s[i]);  // a missing one adds 0 · 0: nothing
        }
#pragma unroll
      for (uint32_t i = 0; i < kSegmentsAtOnce; ++i) {
        const float sum = tree32(s[i]);
        if (first + i * kSegment < act.cols) y[r] = y[r] + sum;
      }
    }
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
  const dim3 blocks((p.w.rows + kThreads / 32 - 1) / (kThreads / 32), (rows + kRowsAtOnce - 1) / kRowsAtOnce);
  launch_kernel(matmul_float_kernel, {blocks, kThreads}, true, stream, p, a, rows);
}

}  // namespace orcd::kernels
