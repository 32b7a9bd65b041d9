// Products of feed-forward parts with experts, and the sum of what they give. A place is a row and one of its experts; a
// tile is some places of one expert (router.cu). Most formats have matmul's kernels for tiles; what is here is of those
// that are rare in experts, and of floats.
#include "arith/super_block.h"
#include "device/check.h"
#include "kernels/block.cuh"
#include "kernels/float_weight.cuh"
#include "kernels/launch.h"
#include "kernels/pdl.h"
#include "kernels/several_rows.cuh"
#include "kernels/warp.cuh"

namespace orcd::kernels {
namespace {

constexpr uint32_t kWarps = 8;
constexpr uint32_t kThreads = kWarps * 32;

struct PlainArgs {
  Tensor w;           // all experts' rows, one after the other
  const float* bias;  // (experts, rows of each) or null
  float* y;           // (places, rows of each)
  Activations input;
  const uint32_t* row;  // (places) of the input; null: as the place
  const ExpertTile* tiles;
  uint32_t rows;  // of each expert
};

// Binary16 sums of two halves of a block as int16.
__device__ __forceinline__ int32_t sums_of(int32_t word) {
  const __half2 h = *reinterpret_cast<const __half2*>(&word);
  const float2 f = __half22float2(h);
  return (int32_t(f.x) & 0xffff) | int32_t(f.y) << 16;
}

// What four lanes of a row have found, in their order; all four get it.
__device__ __forceinline__ float add_four(float y, float mine, uint32_t lanes, uint32_t n) {
#pragma unroll
  for (uint32_t i = 0; i < 4; ++i) {
    const float part = __shfl_sync(kFull, mine, i * kGroupRows + lanes);
    if (i < n) y = y + part;
  }
  return y;
}

// Rows of the input that a warp takes at once.
constexpr uint32_t kPlaces = 4;

// Eight weight rows by one warp, by some rows of the input: a lane has one of the weight rows, and every fourth segment of
// it, which it unpacks once for all.
template <TensorType T>
__device__ __forceinline__ void by_segments(const uint8_t* group, const Activations& in, const uint64_t (&row)[kPlaces],
                                            float (&y)[kPlaces]) {
  const uint32_t nb = in.cols / 32, lane = threadIdx.x % 32, r = lane % kGroupRows, own = lane / kGroupRows;
  const uint32_t segments = (nb + kSegmentBlocks - 1) / kSegmentBlocks;
  for (uint32_t base = 0; base < segments; base += 4) {
    const uint32_t first = (base + own) * kSegmentBlocks;
    float acc[kPlaces] = {};
    for (uint32_t b = first; b < min(first + kSegmentBlocks, nb); ++b) {
      const WeightBlock<T> w = load_block<T, kAligned<T>>(group, kGroupRows, nb, b, r);
#pragma unroll
      for (uint32_t p = 0; p < kPlaces; ++p) {
        const uint4* x = reinterpret_cast<const uint4*>(in.blocks.q + row[p] * in.cols + b * 32);
        const float d = in.blocks.d[row[p] * nb + b];
        const int32_t sum = in.blocks.sum[row[p] * nb + b];
        acc[p] = arith::fma32(w.d * d, float(dot(w, x[0], x[1], sum)), acc[p]);
        if constexpr (kAffine<T>) acc[p] = arith::fma32(w.dmin * d, float(sum), acc[p]);
      }
    }
#pragma unroll
    for (uint32_t p = 0; p < kPlaces; ++p) y[p] = add_four(y[p], acc[p], r, segments - base);
  }
}

// The same with every fourth super-block.
template <TensorType T>
__device__ __forceinline__ void by_supers(const uint8_t* group, const Activations& in, const uint64_t (&row)[kPlaces],
                                          float (&y)[kPlaces]) {
  const uint32_t nb = in.cols / 32, lane = threadIdx.x % 32, r = lane % kGroupRows, own = lane / kGroupRows;
  const uint32_t supers = nb / kSuperBlocks;
  for (uint32_t base = 0; base < supers; base += 4) {
    const uint32_t super = min(base + own, supers - 1);
    SuperSums sums[kPlaces] = {};
    uint32_t shifts[kPlaces];
#pragma unroll
    for (uint32_t p = 0; p < kPlaces; ++p) shifts[p] = in.supers.shifts[row[p] * supers + super];
    float d = 0.0f, dmin = 0.0f;
#pragma unroll
    for (uint32_t half = 0; half < 2; ++half)
#pragma unroll
      for (uint32_t j = 0; j < kSegmentBlocks; ++j) {
        const uint32_t b = super * kSuperBlocks + half * kSegmentBlocks + j;
        const WeightBlock<T> w = load_block<T, kAligned<T>>(group, kGroupRows, nb, b, r);
        d = w.d, dmin = w.dmin;  // of the whole super-block
#pragma unroll
        for (uint32_t p = 0; p < kPlaces; ++p) {
          const uint4* x = reinterpret_cast<const uint4*>(in.supers.q + row[p] * in.cols + b * 32);
          add_block<T>(sums[p], w, x[0], x[1], arith::shifts_of_half(shifts[p], half) >> j * 8,
                       sums_of(in.supers.sum[row[p] * nb + b]));
        }
      }
#pragma unroll
    for (uint32_t p = 0; p < kPlaces; ++p) {
      const float part =
          finish_super<T>(sums[p].products, float(sums[p].minima), d, dmin, in.supers.d[row[p] * supers + super]);
      y[p] = add_four(y[p], part, r, supers - base);
    }
  }
}

template <TensorType T>
__global__ void __launch_bounds__(kThreads) plain_kernel(const __grid_constant__ PlainArgs a) {
  pdl_launch_dependents();
  pdl_wait();
  const ExpertTile places = a.tiles[blockIdx.y];
  const uint32_t group_of = blockIdx.x * kWarps + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (group_of >= a.rows / kGroupRows) return;
  const uint64_t row_bytes = formats::row_bytes(T, a.w.cols);
  const uint8_t* group = a.w.data + (uint64_t(places.expert) * a.rows + group_of * kGroupRows) * row_bytes;
  const uint32_t n = group_of * kGroupRows + lane % kGroupRows;
  const float bias = a.bias ? a.bias[uint64_t(places.expert) * a.rows + n] : 0.0f;
  for (uint32_t first = places.first; first < places.end; first += kPlaces) {
    uint64_t row[kPlaces];
    float y[kPlaces] = {};
#pragma unroll
    for (uint32_t i = 0; i < kPlaces; ++i) {
      const uint32_t p = min(first + i, places.end - 1);
      row[i] = a.row ? a.row[p] : p;
    }
    if constexpr (kSupers<T>) by_supers<T>(group, a.input, row, y);
    else by_segments<T>(group, a.input, row, y);
    if (lane >= kGroupRows) continue;
#pragma unroll
    for (uint32_t i = 0; i < kPlaces; ++i)
      if (first + i < places.end) a.y[uint64_t(first + i) * a.rows + n] = a.bias ? y[i] + bias : y[i];
  }
}

// Of float weights: a warp a weight row.
__global__ void __launch_bounds__(kThreads) float_kernel(const __grid_constant__ PlainArgs a) {
  pdl_launch_dependents();
  pdl_wait();
  const ExpertTile places = a.tiles[blockIdx.y];
  const uint32_t n = blockIdx.x * kWarps + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (n >= a.rows) return;
  const uint64_t at = uint64_t(places.expert) * a.rows + n;
  for (uint32_t p = places.first; p < places.end; ++p) {
    const float* x = a.input.x + uint64_t(a.row ? a.row[p] : p) * a.w.cols;
    float y = 0.0f;
    for (uint32_t segment = 0; segment < a.w.cols; segment += kSegment) {
      float s = 0.0f;
      for (uint32_t k = segment + lane; k < min(segment + kSegment, a.w.cols); k += kDotLanes)
        s = arith::fma32(float_weight(a.w, at * a.w.cols + k), x[k], s);
      y = y + tree32(s);
    }
    if (lane == 0) a.y[uint64_t(p) * a.rows + n] = a.bias ? y + a.bias[at] : y;
  }
}

// Of a row, over ranks ascending: Σ weight · given.
__global__ void sum_kernel(const __grid_constant__ Mixture m, uint32_t cols, MixtureEnd end) {
  pdl_launch_dependents();
  pdl_wait();
  const uint64_t row = blockIdx.y;
  const uint32_t k = blockIdx.x * kThreads + threadIdx.x;
  if (k >= cols) return;
  float sum = 0.0f;
  for (uint32_t rank = 0; rank < m.used; ++rank) {
    const uint64_t pair = row * m.used + rank;
    sum = arith::fma32(m.weight[pair], m.given[uint64_t(m.place[pair]) * cols + k], sum);
  }
  float* to = end.y + row * cols + k;
  *to = end.add ? *to + sum * end.scale : sum;
}

// The product of some places with their experts' rows.
struct ExpertProduct {
  Tensor w;
  const float* bias;
  float* y;
};

void multiply(const Mixture& m, std::span<const ExpertProduct> products, const Activations& input, const uint32_t* row,
              uint32_t pairs, cudaStream_t stream) {
  constexpr uint32_t kFew = 32;  // places
  const TilePlan plan = tile_plan(pairs, m.experts);
  const TensorType type = products[0].w.type;
  bool done = false;
  formats::with_format(type, [&]<TensorType T>() {
    if constexpr (kHasExperts<T>) {
      ExpertsArgs a = {};
      a.n_jobs = uint32_t(products.size()), a.cols = input.cols, a.rows = pairs;
      a.x = kSupers<T> ? input.supers : input.blocks;
      a.tiles = m.tiles, a.row = row;
      for (size_t i = 0; i < products.size(); ++i)
        a.jobs[i] = {products[i].w.data, products[i].bias, products[i].y, products[i].w.rows / m.experts, false, 0};
      matmul_experts_of<T>(a, plan.count, plan.rows, pairs <= kFew, stream);
      done = true;
    }
  });
  if (done) return;
  for (const ExpertProduct& p : products) {
    const PlainArgs a = {p.w, p.bias, p.y, input, row, m.tiles, p.w.rows / m.experts};
    const bool floats = !formats::is_quantized(type);
    const uint32_t units = floats ? a.rows : a.rows / kGroupRows;
    const Grid grid = {dim3((units + kWarps - 1) / kWarps, plan.count), kThreads};
    if (floats) launch_kernel(float_kernel, grid, true, stream, a);
    formats::with_format(type, [&]<TensorType T>() {
      if constexpr (!kHasExperts<T>) launch_kernel(plain_kernel<T>, grid, true, stream, a);
    });
  }
}

}  // namespace

void mix(const Mixture& m, const Activations& normed, uint32_t rows, const MixtureEnd& end, cudaStream_t stream) {
  const uint32_t pairs = rows * m.used, d_model = normed.cols;
  const ExpertProduct up[] = {{m.gate, m.gate_bias, m.gated}, {m.up, m.up_bias, m.upped}};
  if (m.gate.type == m.up.type) {
    multiply(m, up, normed, m.row, pairs, stream);
  } else {
    for (const ExpertProduct& product : up) multiply(m, {&product, 1}, normed, m.row, pairs, stream);
  }
  Activations hidden = m.hidden;
  hidden.supers.tiles = nullptr;
  glu(m.activation, m.gated, m.upped, pairs, hidden, stream);
  const ExpertProduct down = {m.down, m.down_bias, m.given};
  multiply(m, {&down, 1}, hidden, nullptr, pairs, stream);
  launch_kernel(sum_kernel, {dim3((d_model + kThreads - 1) / kThreads, rows), kThreads}, true, stream, m, d_model, end);
}

}  // namespace orcd::kernels
