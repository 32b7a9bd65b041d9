// Which experts rows take, with which weights, and where each pair of a row and an expert has its place: places of an expert
// lie together, and are cut into tiles. Of few rows, one kernel norms them and multiplies with the router too.
#include "arith/router.h"
#include "device/check.h"
#include "kernels/float_weight.cuh"
#include "kernels/launch.h"
#include "kernels/pdl.h"
#include "kernels/store_row.cuh"
#include "kernels/warp.cuh"

namespace orcd::kernels {
namespace {

constexpr uint32_t kThreads = 256, kWarps = kThreads / 32;
constexpr uint32_t kSortThreads = 1024;

// By one warp, of a row; `masses`: scratch of the warp. A lane has every 32nd expert, kEach of them at most.
template <uint32_t kEach>
__device__ __forceinline__ void choose_of(const Mixture& m, uint64_t row, float (&masses)[kMostExpertsUsed]) {
  const uint32_t lane = threadIdx.x % 32;
  // Not by way of the L1 cache: other thread blocks may have written them just now.
  const auto logit = [&](uint32_t e) { return __ldcg(m.logits + row * m.experts + e); };
  float own[kEach];
  uint32_t taken = 0;  // bit i: this lane's i-th expert
  bool sound = true;
#pragma unroll
  for (uint32_t i = 0; i < kEach; ++i) {
    own[i] = lane + 32 * i < m.experts ? logit(lane + 32 * i) : 0.0f;
    sound &= arith::is_finite(own[i]);
  }
  sound = __all_sync(kFull, sound);
  float first = 0.0f;
  for (uint32_t rank = 0; rank < m.used; ++rank) {
    float best = 0.0f;
    uint32_t at = kMostExperts;
#pragma unroll
    for (uint32_t i = 0; i < kEach; ++i) {
      const uint32_t e = lane + 32 * i;
      if (e >= m.experts || taken >> i & 1u) continue;
      if (at == kMostExperts || arith::goes_before(own[i], e, best, at)) best = own[i], at = e;
    }
#pragma unroll
    for (int stride = 16; stride; stride /= 2) {
      const float other = __shfl_xor_sync(kFull, best, stride);
      const uint32_t other_at = __shfl_xor_sync(kFull, at, stride);
      if (other_at != kMostExperts && (at == kMostExperts || arith::goes_before(other, other_at, best, at)))
        best = other, at = other_at;
    }
    if (!sound) at = rank;
    if (at % 32 == lane) taken |= 1u << at / 32;
    if (rank == 0) first = best;
    if (lane != 0) continue;
    m.expert[row * m.used + rank] = at;
    masses[rank] = sound ? arith::expert_mass(best, first) : arith::float_of(0x7fc00000u);
  }
  if (lane != 0) return;
  arith::shares(masses, m.used, m.scale);
  for (uint32_t rank = 0; rank < m.used; ++rank) m.weight[row * m.used + rank] = masses[rank];
}

__device__ __forceinline__ void choose(const Mixture& m, uint64_t row, float (&masses)[kMostExpertsUsed]) {
  if (m.experts <= 128) choose_of<4>(m, row, masses);
  else choose_of<kMostExperts / 32>(m, row, masses);
}

struct Counts {
  uint32_t places, tiles;
};

// By a thread block, once its experts are chosen. Which of an expert's places a pair gets changes nothing.
template <uint32_t kThreadsOf>
__device__ __forceinline__ void give_places(const Mixture& m, uint32_t pairs, const TilePlan& plan) {
  constexpr uint32_t kEach = kMostExperts / kThreadsOf;  // experts of a thread
  __shared__ uint32_t next[kMostExperts];
  __shared__ Counts of_warp[kThreadsOf / 32];
  const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const auto tiles_of = [&](uint32_t places) { return (places + plan.rows - 1) / plan.rows; };
  for (uint32_t e = threadIdx.x; e < kMostExperts; e += kThreadsOf) next[e] = 0;
  __syncthreads();
  for (uint32_t i = threadIdx.x; i < pairs; i += kThreadsOf) atomicAdd(next + m.expert[i], 1);
  __syncthreads();

  Counts own = {}, upto;
#pragma unroll
  for (uint32_t i = 0; i < kEach; ++i) {
    const uint32_t n = next[threadIdx.x * kEach + i];
    own.places += n, own.tiles += tiles_of(n);
  }
  upto = own;
#pragma unroll
  for (uint32_t by = 1; by < 32; by *= 2) {
    const uint32_t places = __shfl_up_sync(kFull, upto.places, by), tiles = __shfl_up_sync(kFull, upto.tiles, by);
    if (lane >= by) upto.places += places, upto.tiles += tiles;
  }
  if (lane == 31) of_warp[warp] = upto;
  __syncthreads();
  Counts at = {upto.places - own.places, upto.tiles - own.tiles};
  uint32_t all_tiles = 0;
  for (uint32_t w = 0; w < kThreadsOf / 32; ++w) {
    if (w < warp) at.places += of_warp[w].places, at.tiles += of_warp[w].tiles;
    all_tiles += of_warp[w].tiles;
  }
#pragma unroll
  for (uint32_t i = 0; i < kEach; ++i) {
    const uint32_t e = threadIdx.x * kEach + i, end = at.places + next[e];
    next[e] = at.places;
    for (; at.places < end; at.places += plan.rows)
      m.tiles[at.tiles++] = {e, at.places, min(at.places + plan.rows, end)};
    at.places = end;
  }
  for (uint32_t i = all_tiles + threadIdx.x; i < plan.count; i += kThreadsOf) m.tiles[i] = {};
  __syncthreads();
  for (uint32_t i = threadIdx.x; i < pairs; i += kThreadsOf) {
    const uint32_t place = atomicAdd(next + m.expert[i], 1);
    m.place[i] = place;
    m.row[place] = i / m.used;
  }
}

__global__ void __launch_bounds__(32) choose_kernel(const __grid_constant__ Mixture m) {
  __shared__ float masses[kMostExpertsUsed];
  pdl_launch_dependents();
  pdl_wait();
  choose(m, blockIdx.x, masses);
}

__global__ void __launch_bounds__(kSortThreads)
    places_kernel(const __grid_constant__ Mixture m, uint32_t pairs, TilePlan plan) {
  pdl_launch_dependents();
  pdl_wait();
  give_places<kSortThreads>(m, pairs, plan);
}

// A row's product with one expert's row of the router, by a warp, in the contract's lanes. Weights of some segments are
// fetched at once.
struct RouterRow {
  static constexpr uint32_t kAtOnce = 8, kEach = kSegment / kDotLanes;
  float w[kAtOnce][kEach];

  __device__ __forceinline__ void fetch(const Tensor& router, uint32_t n, uint32_t first) {
#pragma unroll
    for (uint32_t i = 0; i < kAtOnce; ++i)
#pragma unroll
      for (uint32_t j = 0; j < kEach; ++j) {
        const uint32_t k = (first + i) * kSegment + j * kDotLanes + threadIdx.x % 32;
        w[i][j] = k < router.cols ? float_weight(router, uint64_t(n) * router.cols + k) : 0.0f;
      }
  }

  // value(k): of the row.
  template <class Value>
  __device__ __forceinline__ float add(float y, uint32_t cols, uint32_t first, Value value) const {
    float s[kAtOnce] = {};
#pragma unroll
    for (uint32_t i = 0; i < kAtOnce; ++i)
#pragma unroll
      for (uint32_t j = 0; j < kEach; ++j) {
        const uint32_t k = (first + i) * kSegment + j * kDotLanes + threadIdx.x % 32;
        s[i] = arith::fma32(w[i][j], k < cols ? value(k) : 0.0f, s[i]);  // a missing one adds 0 · 0: nothing
      }
#pragma unroll
    for (uint32_t i = 0; i < kAtOnce; ++i) {
      const float sum = tree32(s[i]);
      if ((first + i) * kSegment < cols) y = y + sum;
    }
    return y;
  }
};

// A warp for each expert, a row of thread blocks for each row; the last of all of them chooses.
__global__ void __launch_bounds__(kThreads)
    router_kernel(const __grid_constant__ Router a, const __grid_constant__ Mixture m, TilePlan plan) {
  __shared__ float masses[kWarps][kMostExpertsUsed];
  __shared__ bool last;
  const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, row = blockIdx.y, rows = gridDim.y;
  const uint32_t n = blockIdx.x * kWarps + warp, cols = a.w.cols;
  RouterRow router;
  pdl_launch_dependents();
  if (n < m.experts) router.fetch(a.w, n, 0);  // depends on nobody
  pdl_wait();
  const float* x = a.x + uint64_t(row) * cols;
  const float inverse = cols % 4 ? inverse_rms(x, cols, a.eps) : inverse_rms4(x, cols, a.eps);
  const auto value = [&](uint32_t k) { return (x[k] * inverse) * a.norm[k]; };
  if (n < m.experts) {
    float y = 0.0f;
    for (uint32_t first = 0; first * kSegment < cols; first += RouterRow::kAtOnce) {
      if (first) router.fetch(a.w, n, first);
      y = router.add(y, cols, first, value);
    }
    if (lane == 0) a.logits[row * m.experts + n] = a.bias ? y + a.bias[n] : y;
  }
  store_row(a.normed, rows, row, {n, gridDim.x * kWarps}, value,
            [&](uint32_t k) { return normed4(load4(x + k), inverse, load4(a.norm + k)); });

  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last = atomicAdd(a.arrived, 1) == gridDim.x * rows - 1;
  __syncthreads();
  if (!last) return;
  __threadfence();
  if (threadIdx.x == 0) *a.arrived = 0;
  for (uint32_t r = warp; r < rows; r += kWarps) choose(m, r, masses[warp]);
  __syncthreads();
  if (rows > 1) return give_places<kThreads>(m, rows * m.used, plan);
  // The experts of one row differ.
  for (uint32_t rank = threadIdx.x; rank < m.used; rank += kThreads) {
    m.tiles[rank] = {m.expert[rank], rank, rank + 1};
    m.place[rank] = rank;
    m.row[rank] = 0;
  }
}

}  // namespace

void route(const Mixture& m, uint32_t rows, cudaStream_t stream) {
  const uint32_t pairs = rows * m.used;
  launch_kernel(choose_kernel, {rows, 32}, true, stream, m);
  launch_kernel(places_kernel, {1, kSortThreads}, true, stream, m, pairs, tile_plan(pairs, m.experts));
}

void route_few(const Router& router, const Mixture& m, uint32_t rows, cudaStream_t stream) {
  const dim3 blocks((m.experts + kWarps - 1) / kWarps, rows);
  launch_kernel(router_kernel, {blocks, kThreads}, true, stream, router, m, tile_plan(rows * m.used, m.experts));
}

}  // namespace orcd::kernels
