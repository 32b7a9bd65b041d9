// Which experts rows take, with which weights, and where each pair of a row and an expert has its place: places of an expert
// lie together, and are cut into tiles. Of few rows, one kernel norms them and multiplies with the router too.
#include "arith/router.h"
#include "kernels/float_weight.cuh"
#include "kernels/launch.h"
#include "kernels/pdl.h"
#include "kernels/store_row.cuh"
#include "kernels/warp.cuh"

namespace orcd::kernels {
namespace {

constexpr uint32_t kThreads = 256, kWarps = kThreads / 32;
constexpr uint32_t kSortThreads = 1024;

// Finite logits in their order as integers; -0 and +0 are alike. 0 is below all of them.
__device__ __forceinline__ uint32_t order_of(float logit) {
  const uint32_t bits = arith::bits_of(logit + 0.0f);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// What logit has this order.
__device__ __forceinline__ float logit_of(uint32_t order) {
  return arith::float_of(order & 0x80000000u ? order & 0x7fffffffu : ~order);
}

// By one warp, of a row. A lane has every 32nd expert, kEach of them at most, and every 32nd rank.
template <uint32_t kEach>
__device__ __forceinline__ void choose_of(const Mixture& m, uint64_t row) {
  constexpr uint32_t kRanks = kMostExpertsUsed / 32;
  const uint32_t lane = threadIdx.x % 32;
  uint32_t order[kEach];
  bool sound = true;
#pragma unroll
  for (uint32_t i = 0; i < kEach; ++i) {
    const uint32_t e = lane + 32 * i;
    // Not by way of the L1 cache: other thread blocks may have written it just now.
    const float logit = e < m.experts ? __ldcg(m.logits + row * m.experts + e) : 0.0f;
    sound &= arith::is_finite(logit);
    order[i] = e < m.experts ? order_of(logit) : 0;
  }
  sound = __all_sync(kFull, sound);
  uint32_t expert[kRanks] = {}, best[kRanks] = {}, first = 0;
  for (uint32_t rank = 0; rank < m.used; ++rank) {
    uint32_t top = 0, at = kMostExperts;
#pragma unroll
    for (uint32_t i = 0; i < kEach; ++i)
      if (order[i] > top) top = order[i], at = lane + 32 * i;
    const uint32_t of_all = __reduce_max_sync(kFull, top);
    at = __reduce_min_sync(kFull, top == of_all ? at : kMostExperts);
    if (!sound) at = rank;
#pragma unroll
    for (uint32_t i = 0; i < kEach; ++i)
      if (at == lane + 32 * i) order[i] = 0;
    if (rank == 0) first = of_all;
#pragma unroll
    for (uint32_t i = 0; i < kRanks; ++i)
      if (rank == lane + 32 * i) expert[i] = at, best[i] = of_all;
  }
  float mass[kRanks], sum = 0.0f;
#pragma unroll
  for (uint32_t i = 0; i < kRanks; ++i)
    mass[i] = sound ? arith::expert_mass(logit_of(best[i]), logit_of(first)) : arith::float_of(0x7fc00000u);
#pragma unroll
  for (uint32_t i = 0; i < kRanks; ++i)
    for (uint32_t rank = 32 * i; rank < min(m.used, 32 * i + 32); ++rank)
      sum = sum + __shfl_sync(kFull, mass[i], rank % 32);
#pragma unroll
  for (uint32_t i = 0; i < kRanks; ++i) {
    const uint32_t rank = lane + 32 * i;
    if (rank >= m.used) continue;
    m.expert[row * m.used + rank] = expert[i];
    m.weight[row * m.used + rank] = arith::share_of(mass[i], sum, m.scale);
  }
}

__device__ __forceinline__ void choose(const Mixture& m, uint64_t row) {
  if (m.experts <= 128) choose_of<4>(m, row);
  else choose_of<kMostExperts / 32>(m, row);
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
  pdl_launch_dependents();
  pdl_wait();
  choose(m, blockIdx.x);
}

__global__ void __launch_bounds__(kSortThreads)
    places_kernel(const __grid_constant__ Mixture m, uint32_t pairs, TilePlan plan) {
  pdl_launch_dependents();
  pdl_wait();
  give_places<kSortThreads>(m, pairs, plan);
}

// Values of a row that a thread block holds at once.
constexpr uint32_t kHeld = 6144;

// Segments of an expert's row of the router, a warp's: as many are fetched before the first is used.
template <uint32_t kAtOnce>
struct RouterRow {
  static constexpr uint32_t kEach = kSegment / kDotLanes;
  float w[kAtOnce][kEach];

  __device__ __forceinline__ void fetch(const Tensor& router, uint32_t n, uint32_t first /* value */) {
#pragma unroll
    for (uint32_t i = 0; i < kAtOnce; ++i)
#pragma unroll
      for (uint32_t j = 0; j < kEach; ++j) {
        const uint32_t k = first + i * kSegment + j * kDotLanes + threadIdx.x % 32;
        w[i][j] = k < router.cols ? float_weight(router, uint64_t(n) * router.cols + k) : 0.0f;
      }
  }

  // x: the row's values from `first` on, in shared memory.
  __device__ __forceinline__ float add(float y, const float* x, uint32_t cols, uint32_t first) const {
    float s[kAtOnce] = {};
#pragma unroll
    for (uint32_t i = 0; i < kAtOnce; ++i)
#pragma unroll
      for (uint32_t j = 0; j < kEach; ++j) {
        const uint32_t k = i * kSegment + j * kDotLanes + threadIdx.x % 32;
        s[i] = arith::fma32(w[i][j], first + k < cols ? x[k] : 0.0f, s[i]);  // a missing one adds 0 · 0: nothing
      }
#pragma unroll
    for (uint32_t i = 0; i < kAtOnce; ++i) {
      const float sum = tree32(s[i]);
      if (first + i * kSegment < cols) y = y + sum;
    }
    return y;
  }
};

// Thread blocks of a row that multiply it, a warp for each expert, and behind them those that store it normed.
struct RouterGrid {
  uint32_t multiply, store;
};

RouterGrid router_grid(const Router& a, const Mixture& m) {
  const uint32_t each = kWarps * (a.normed.supers.q ? kSuperBlock : 2 * kQuantBlock);  // values
  return {(m.experts + kWarps - 1) / kWarps, (a.w.cols + each - 1) / each};
}

// A row of thread blocks for each row. The last of all of them chooses.
template <uint32_t kAtOnce>
__global__ void __launch_bounds__(kThreads)
    router_kernel(const __grid_constant__ Router a, const __grid_constant__ Mixture m, RouterGrid grid, TilePlan plan) {
  __shared__ float x[kHeld];
  __shared__ bool last;
  const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, row = blockIdx.y, rows = gridDim.y;
  const uint32_t n = blockIdx.x * kWarps + warp, cols = a.w.cols;
  const bool stores = blockIdx.x >= grid.multiply, multiplies = !stores && n < m.experts;
  constexpr uint32_t kStep = kAtOnce * kSegment;
  static_assert(kHeld % kStep == 0);
  RouterRow<kAtOnce> router;
  pdl_launch_dependents();
  if (multiplies) router.fetch(a.w, n, 0);  // depends on nobody
  pdl_wait();
  const float* from = a.x + uint64_t(row) * cols;
  const float inverse = inverse_rms4<12>(from, cols, a.eps);
  const auto value = [&](uint32_t k) { return (from[k] * inverse) * a.norm[k]; };
  if (stores) {
    store_row(a.normed, rows, row, {n - grid.multiply * kWarps, grid.store * kWarps}, value,
              [&](uint32_t k) { return normed4(load4(from + k), inverse, load4(a.norm + k)); });
  } else {
    float y = 0.0f;
    for (uint32_t base = 0; base < cols; base += kHeld) {
      __syncthreads();
      for (uint32_t k = threadIdx.x; k < min(kHeld, cols - base); k += kThreads) x[k] = value(base + k);
      __syncthreads();
      for (uint32_t first = base; multiplies && first < min(base + kHeld, cols); first += kStep) {
        if (first) router.fetch(a.w, n, first);
        y = router.add(y, x + (first - base), cols, first);
      }
    }
    if (multiplies && lane == 0) a.logits[row * m.experts + n] = a.bias ? y + a.bias[n] : y;
  }

  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last = atomicAdd(a.arrived, 1) == gridDim.x * rows - 1;
  __syncthreads();
  if (!last) return;
  __threadfence();
  if (threadIdx.x == 0) *a.arrived = 0;
  for (uint32_t r = warp; r < rows; r += kWarps) choose(m, r);
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
  const RouterGrid grid = router_grid(router, m);
  // Of one row all weights at once; of more, more thread blocks at once.
  const auto kernel = rows == 1 && router.w.cols > 16 * kSegment ? router_kernel<24> : router_kernel<16>;
  launch_kernel(kernel, {dim3(grid.multiply + grid.store, rows), kThreads}, true, stream, router, m, grid,
                tile_plan(rows * m.used, m.experts));
}

}  // namespace orcd::kernels
