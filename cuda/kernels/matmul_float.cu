// Products with float weights. Of few rows: a warp per weight row, in the contract's 32 lanes, eight activation rows
// at a time so that a weight is read once for them. Of more: a thread has some results, and all 32 lanes of each.
#include "arith/constants.h"
#include "kernels/float_weight.cuh"
#include "kernels/launch.h"
#include "kernels/pdl.h"
#include "kernels/warp.cuh"

namespace orcd::kernels {
namespace {

constexpr uint32_t kThreads = 128;
constexpr uint32_t kRowsAtOnce = 8;

constexpr uint32_t kSegmentsAtOnce = 4;

__device__ __forceinline__ void store_float(const MatmulArgs& p, uint32_t row, uint32_t n, float y) {
  float* to = p.y + uint64_t(row) * p.w.rows + n;
  const float product = p.bias ? y + p.bias[n] : y;
  *to = p.add ? *to + product : product;
}

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
    store_float(p, row0 + i, n, y[i]);
  }
}

// What a thread block of many rows computes, and each of its threads.
constexpr uint32_t kTile = 32, kTileThreads = 128, kOwnRows = 2, kOwnWeights = 4;
static_assert(kTile / kOwnRows * (kTile / kOwnWeights) == kTileThreads);

// A segment of all rows of one matrix of a tile, by value: a thread loads the values of some rows and weights at once.
template <uint32_t kPad>
struct Held {
  alignas(16) float values[kSegment][kTile + kPad];
};

// On the way from device memory: of each of kTile rows one value, by kSegment threads.
struct Ahead {
  static_assert(kTileThreads == kSegment);
  float values[kTile];

  // value(row): of this thread's place in the segment.
  template <class Value>
  __device__ __forceinline__ void fetch(Value value) {
#pragma unroll
    for (uint32_t r = 0; r < kTile; ++r) values[r] = value(r);
  }
  template <uint32_t kPad>
  __device__ __forceinline__ void store(Held<kPad>& to) const {
#pragma unroll
    for (uint32_t r = 0; r < kTile; ++r) to.values[threadIdx.x][r] = values[r];
  }
};

using Own = float[kOwnRows][kOwnWeights];

// Tree(s, 32) of the lanes kFirst, kFirst + kStride and so on, each of which is computed when it is wanted.
template <uint32_t kFirst, uint32_t kStride>
__device__ __forceinline__ void tree_of(const Held<2>& x, const Held<4>& w, uint32_t row, uint32_t weight, Own& sum) {
  if constexpr (kStride == kDotLanes) {
#pragma unroll
    for (uint32_t k = kFirst; k < kSegment; k += kDotLanes) {
      const float2 a = *reinterpret_cast<const float2*>(x.values[k] + row);
      const float4 b = *reinterpret_cast<const float4*>(w.values[k] + weight);
      const float rows[kOwnRows] = {a.x, a.y}, weights[kOwnWeights] = {b.x, b.y, b.z, b.w};
#pragma unroll
      for (uint32_t i = 0; i < kOwnRows; ++i)
#pragma unroll
        for (uint32_t j = 0; j < kOwnWeights; ++j)
          sum[i][j] = arith::fma32(weights[j], rows[i], k == kFirst ? 0.0f : sum[i][j]);
    }
  } else {
    Own other;
    tree_of<kFirst, kStride * 2>(x, w, row, weight, sum);
    tree_of<kFirst + kStride, kStride * 2>(x, w, row, weight, other);
#pragma unroll
    for (uint32_t i = 0; i < kOwnRows; ++i)
#pragma unroll
      for (uint32_t j = 0; j < kOwnWeights; ++j) sum[i][j] = sum[i][j] + other[i][j];
  }
}

__global__ void __launch_bounds__(kTileThreads)
    matmul_float_tile_kernel(const __grid_constant__ MatmulArgs p, const __grid_constant__ Activations act,
                             uint32_t rows) {
  __shared__ Held<2> x;
  __shared__ Held<4> w;
  const uint32_t row0 = blockIdx.y * kTile, weight0 = blockIdx.x * kTile;
  const uint32_t row = threadIdx.x / (kTile / kOwnWeights) * kOwnRows;
  const uint32_t weight = threadIdx.x % (kTile / kOwnWeights) * kOwnWeights;
  Ahead x_ahead, w_ahead;
  const auto fetch = [&](uint32_t segment) {
    const uint32_t k = segment + threadIdx.x;
    const bool inside = k < act.cols;  // a missing value adds 0 · 0: nothing
    x_ahead.fetch(
        [&](uint32_t r) { return inside && row0 + r < rows ? act.x[uint64_t(row0 + r) * act.cols + k] : 0.0f; });
    w_ahead.fetch([&](uint32_t r) {
      return inside && weight0 + r < p.w.rows ? float_weight(p.w, uint64_t(weight0 + r) * act.cols + k) : 0.0f;
    });
  };
  pdl_launch_dependents();
  pdl_wait();
  Own y = {};
  fetch(0);
  for (uint32_t segment = 0; segment < act.cols; segment += kSegment) {
    __syncthreads();  // the one before is used up
    x_ahead.store(x);
    w_ahead.store(w);
    __syncthreads();
    if (segment + kSegment < act.cols) fetch(segment + kSegment);
    Own sum;
    tree_of<0, 1>(x, w, row, weight, sum);
#pragma unroll
    for (uint32_t i = 0; i < kOwnRows; ++i)
#pragma unroll
      for (uint32_t j = 0; j < kOwnWeights; ++j) y[i][j] = y[i][j] + sum[i][j];
  }
#pragma unroll
  for (uint32_t i = 0; i < kOwnRows; ++i)
#pragma unroll
    for (uint32_t j = 0; j < kOwnWeights; ++j) {
      const uint32_t r = row0 + row + i, n = weight0 + weight + j;
      if (r < rows && n < p.w.rows) store_float(p, r, n, y[i][j]);
    }
}

}  // namespace

void matmul_float(const MatmulArgs& p, const Activations& a, uint32_t rows, cudaStream_t stream) {
  constexpr uint32_t kFew = 2 * kRowsAtOnce;
  if (rows > kFew) {
    const dim3 tiles((p.w.rows + kTile - 1) / kTile, (rows + kTile - 1) / kTile);
    return launch_kernel(matmul_float_tile_kernel, {tiles, kTileThreads}, true, stream, p, a, rows);
  }
  const dim3 blocks((p.w.rows + kThreads / 32 - 1) / (kThreads / 32), (rows + kRowsAtOnce - 1) / kRowsAtOnce);
  launch_kernel(matmul_float_kernel, {blocks, kThreads}, true, stream, p, a, rows);
}

}  // namespace orcd::kernels
