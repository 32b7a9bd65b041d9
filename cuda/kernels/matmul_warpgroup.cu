// Products of K-quants on many rows, on the matrix units of Hopper's warpgroups. Compiled for sm_90a alone.
//
// A warpgroup computes 64 weight rows by all rows of activations of its thread block. Packed weights go from shared
// memory to registers as matmul.cuh has them; activations are read by the matrix unit itself. Nothing is left to do for
// their shifts: they come in two parts of eight bits, v = 8 · v1 + v0 (ops/tiles.h), whose products the unit adds up.
//
//   Q4_K, Q5_K   of a block: w · v = (8 · w) · v1 + w · v0, two products in one accumulator. Then a multiply-add with the
//                sub-scale.
//   Q6_K         a whole super-block stays in the accumulators, because the sub-scales, which change every sixteen values,
//                are multiplied into the weights: W = −w · sc = 32 · w1 + w0 / 8 with w1 int8 and w0 = 8 · (W mod 32) uint8.
//                Four products in three accumulators: w1 · v1; w1 · (32 · v0) and w0 · v1, which have one unit;
//                w0 · (32 · v0).
//
// The sums are exact and fit 32 bits, so what comes out is the contract's integer.
//
// All of it comes by asynchronous copies some super-blocks ahead: weights by each warp for itself, since no other reads
// them; activations in three pieces that one thread asks for when all warps have left the stage.
//
// Where there are too few weight rows for all processors, three warpgroups share them: each takes another super-block,
// and what these give is added up in the contract's order a step later, from shared memory.
#include <algorithm>

#include "device/check.h"
#include "formats/formats.h"
#include "kernels/fragments.cuh"
#include "kernels/group_copies.cuh"
#include "kernels/pdl.h"
#include "kernels/shared_results.cuh"
#include "kernels/warp.cuh"
#include "kernels/wgmma.cuh"
#include "ops/tiles.h"

namespace orcd::kernels {
namespace {

constexpr uint32_t kGroupThreads = 128;                                       // of a warpgroup
constexpr uint32_t kGroupWeights = 64;                                        // rows of weights
constexpr uint32_t kWarpGroups = 2, kWarpWeights = kWarpGroups * kGroupRows;  // of these a warp's
constexpr uint32_t kRoom = 226 * 1024;
constexpr uint32_t kMostStages = 4;

// A thread block computes 8 · kTiles rows by 64 weight rows for each of its warpgroups, or for all of them together.
template <TensorType kTypeOf, uint32_t kTilesOf, uint32_t kGroupsOf, bool kSharedOf>
struct Shape {
  static constexpr TensorType kType = kTypeOf;
  static constexpr uint32_t kTiles = kTilesOf, kRows = kTiles * kTileRows, kGroups = kGroupsOf;
  static constexpr bool kShared = kSharedOf;
  static constexpr uint32_t kShares = kShared ? kGroups : 1, kThreads = kGroups * kGroupThreads;
  static constexpr uint32_t kWeights = kGroups / kShares * kGroupWeights;
};

// The second of the planes of activations that a type reads.
template <TensorType T>
inline constexpr uint32_t kLowPlane = kSplit<T> ? 2 : 1;

template <class S>
struct alignas(1024) Stage {
  uint8_t planes[S::kShares][2][S::kTiles][kPlaneBytes];
  uint8_t numbers[S::kShares][S::kTiles][kNumbersBytes];
  uint8_t weights[S::kThreads / 32][kWarpGroups][GroupBytes<S::kType>::all];
};

// Parts of shared results: two where there is room: then a step needs one barrier, else two.
template <class S>
inline constexpr uint32_t kParts = !S::kShared                                                  ? 0
                                   : 2 * sizeof(Stage<S>) + 2 * sizeof(Part<S>) <= kRoom - 1024 ? 2
                                                                                                : 1;

// Stages for which there is room if so many thread blocks share a processor; as many blocks as registers are for, and
// have two stages each.
template <class S>
constexpr uint32_t kFit(uint32_t blocks) {
  return (kRoom / blocks - 1024 - kParts<S> * sizeof(Part<S>)) / sizeof(Stage<S>);
}
template <class S>
inline constexpr uint32_t kBlocksAProcessor =
    S::kGroups == 1 && kFit<S>(3) >= 2                                            ? 3
    : S::kGroups <= 2 && !(kSplit<S::kType> && S::kTiles == 8) && kFit<S>(2) >= 2 ? 2
                                                                                  : 1;
template <class S>
inline constexpr uint32_t kStages = std::min(kMostStages, kFit<S>(kBlocksAProcessor<S>));

template <class S>
struct Memory {
  Stage<S> ring[kStages<S>];
  uint64_t full[kStages<S>], empty[kStages<S>];
};

template <class S>
inline constexpr uint32_t kBytes = sizeof(Memory<S>) + kParts<S> * sizeof(Part<S>);

// Stored values of a block of this warp's sixteen rows, as the matrix unit takes them: rows g of the first and of the
// second eight, values 4t .. and 16 + 4t ...
template <TensorType T>
__device__ __forceinline__ void load_stored(const uint8_t (&packed)[kWarpGroups][GroupBytes<T>::all], uint32_t block,
                                            uint32_t (&a)[4]) {
  using B = GroupBytes<T>;
  const uint32_t lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
  for (uint32_t i = 0; i < kWarpGroups; ++i) {
    const uint32_t* words = reinterpret_cast<const uint32_t*>(packed[i]);
    const uint32_t low = words[block * 32 + lane];
    a[i] = low & 0x0f0f0f0fu, a[i + 2] = low >> 4 & 0x0f0f0f0fu;
    if constexpr (B::l.high == 4) {
      const uint32_t high = words[B::low / 4 + block / 4 * 32 + g * 4 + block % 4];
      a[i] |= high << (4 - t) & 0x10101010u;
      a[i + 2] |= high >> t & 0x10101010u;
    }
    if constexpr (B::l.high == 8) {
      const uint2 high = *reinterpret_cast<const uint2*>(words + B::low / 4 + block * 16 + g * 2);
      a[i] |= (high.x >> (2 * t) & 0x03030303u) << 4;
      a[i + 2] |= (high.y >> (2 * t) & 0x03030303u) << 4;
    }
  }
}

// Both parts of Q6_K's weights.
struct WeightParts {
  uint32_t high[4], low[4];
};

// Of four stored values and their scale. The products are made in 16 bits each, two in a word, of which the lower must
// not borrow from the upper: it is lifted by 2^15.
__device__ __forceinline__ void multiply_scale(uint32_t stored, int32_t sc, uint32_t& high, uint32_t& low) {
  const uint32_t even = stored & 0x00ff00ffu, odd = stored >> 8 & 0x00ff00ffu;
  const uint32_t lift = uint32_t(kOffset<TensorType::kQ6_K> * 8 * sc) * 0x00010001u + 0x8000u;
  const uint32_t p = (even * uint32_t(-8 * sc) + lift) ^ 0x8000u, q = (odd * uint32_t(-8 * sc) + lift) ^ 0x8000u;
  high = __byte_perm(p, q, 0x7351), low = __byte_perm(p, q, 0x6240);
}

// Starts the copies of a step's activations, by one thread. groups: those of the thread block that there are.
template <class S>
__device__ __forceinline__ void fetch_rows(Stage<S>& to, uint64_t& full, const SeveralRowsArgs& a, uint32_t first_group,
                                           uint32_t groups, uint32_t step) {
  const uint32_t first = step * S::kShares, shares = S::kShared ? min(S::kShares, a.cols / kSuperBlock - first) : 1;
  arrive_expecting(full, shares * groups * (2 * kPlaneBytes + kNumbersBytes));
  for (uint32_t i = 0; i < shares; ++i) {
    const uint32_t super = first + i;
    const auto plane = [&](uint32_t p) { return a.x.tiles + plane_place(a.rows, super, p, first_group); };
    copy_bulk(to.planes[i][0], plane(0), groups * kPlaneBytes, full);
    copy_bulk(to.planes[i][1], plane(kLowPlane<S::kType>), groups * kPlaneBytes, full);
    copy_bulk(to.numbers[i], a.x.tiles + numbers_place(a.rows, a.cols, super, first_group), groups * kNumbersBytes,
              full);
  }
}

// Which of those that share weights this warp is of.
template <class S>
__device__ __forceinline__ uint32_t share_of() {
  return S::kShared ? threadIdx.x / kGroupThreads : 0;
}

// The integers of a super-block, of a lane 4g + t weight rows g (i < 2) and g + 8 of its warp, of each tile rows 2t
// (even i) and 2t + 1. rows: of these weights. `next` is called once, when other stages may be filled.
template <class S, class Next>
__device__ __forceinline__ void multiply(const Stage<S>& s, const SuperRow<S::kType> (&rows)[2],
                                         int32_t (&products)[S::kTiles][4], const Next& next) {
  constexpr TensorType T = S::kType;
  constexpr uint32_t kTiles = S::kTiles;
  const auto& packed = s.weights[threadIdx.x / 32];
  // The first lane's address: the compiler sees that it is all lanes'.
  const uint64_t planes =
      matrix_descriptor(__shfl_sync(kFull, shared_address(s.planes[share_of<S>()]), 0), kPlaneBytes);
  const auto plane_of = [&](uint32_t plane, uint32_t block) {
    return planes + (plane * kTiles * kPlaneBytes + block / 4 * (kPlaneBytes / 2) + block % 4 * kQuantBlock) / 16;
  };
  if constexpr (kSplit<T>) {
    int32_t middle[kTiles][4], low[kTiles][4];
    WeightParts w[2];
#pragma unroll
    for (uint32_t block = 0; block < kSuperBlocks; ++block) {
      if (block >= 2) wgmma_wait<1>();  // the weights of two blocks ago are not read any more
      WeightParts& own = w[block % 2];
      uint32_t stored[4];
      load_stored<T>(packed, block, stored);
#pragma unroll
      for (uint32_t i = 0; i < 4; ++i)
        multiply_scale(stored[i], signed_byte(rows[i % 2].sc[block / 2], block % 2 * 2 + i / 2), own.high[i],
                       own.low[i]);
      wgmma_fence();
      wgmma<true, true>(products, own.high, plane_of(0, block), block > 0);
      wgmma<true, false>(middle, own.high, plane_of(1, block), block > 0);
      wgmma<false, true>(middle, own.low, plane_of(0, block), true);
      wgmma<false, false>(low, own.low, plane_of(1, block), block > 0);
      wgmma_commit();
      if (block == kSuperBlocks / 2) next();
    }
    wgmma_wait<0>();
    wgmma_came(products), wgmma_came(middle), wgmma_came(low);
#pragma unroll
    for (uint32_t n = 0; n < kTiles; ++n)
#pragma unroll
      for (uint32_t e = 0; e < 4; ++e) products[n][e] = -(products[n][e] * 256 + middle[n][e] + (low[n][e] >> 8));
  } else {
    constexpr uint32_t kBuffers =
        kTiles < 8 ? 2 : 1;  // of so few rows there are registers for the next block's sums too
    int32_t sums[kBuffers][kTiles][4];
    uint32_t stored[2][4];
    const auto begin = [&](uint32_t block) {
      const uint32_t (&w)[4] = stored[block % 2];
      const uint32_t eightfold[4] = {w[0] << 3, w[1] << 3, w[2] << 3, w[3] << 3};
      wgmma_fence();
      wgmma<false, true>(sums[block % kBuffers], eightfold, plane_of(0, block), false);
      wgmma<false, true>(sums[block % kBuffers], w, plane_of(1, block), true);
      wgmma_commit();
    };
    load_stored<T>(packed, 0, stored[0]);
    begin(0);
#pragma unroll
    for (uint32_t block = 0; block < kSuperBlocks; ++block) {
      const bool last = block + 1 == kSuperBlocks;
      if (!last) load_stored<T>(packed, block + 1, stored[(block + 1) % 2]);
      if (!last && kBuffers == 2) begin(block + 1);
      if (!last && kBuffers == 2) wgmma_wait<1>();
      else wgmma_wait<0>();
      int32_t (&sum)[kTiles][4] = sums[block % kBuffers];
      wgmma_came(sum);
      if (block == kSuperBlocks / 2) next();
#pragma unroll
      for (uint32_t n = 0; n < kTiles; ++n)
#pragma unroll
        for (uint32_t e = 0; e < 4; ++e) {
          const int32_t scaled = signed_byte(rows[e / 2].sc[block / 4], block % 4) * sum[n][e];
          products[n][e] = block == 0 ? scaled : products[n][e] + scaled;
        }
      if (!last && kBuffers == 1) begin(block + 1);
    }
  }
}

template <class S>
__device__ __forceinline__ void load_rows(const Stage<S>& s, SuperRow<S::kType> (&rows)[2]) {
#pragma unroll
  for (uint32_t i = 0; i < kWarpGroups; ++i)
    rows[i] = load_super_row<S::kType>(s.weights[threadIdx.x / 32][i], threadIdx.x % 32 / 4);
}

// What a super-block gives: take(n, i, value), laid out as multiply() has it.
template <class S, class Next, class Take>
__device__ __forceinline__ void add_super(const Stage<S>& s, const Next& next, const Take& take) {
  constexpr TensorType T = S::kType;
  const uint32_t lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  SuperRow<T> rows[2];
  load_rows(s, rows);
  int32_t products[S::kTiles][4];
  multiply(s, rows, products, next);
  load_rows(s, rows);  // again, instead of keeping all of it in registers
  uint32_t mn[4] = {};
#pragma unroll
  for (uint32_t i = 0; i < 4; ++i)
    if constexpr (!kSplit<T>) mn[i] = twice_as_half(rows[i % 2].mn[i / 2], t);
#pragma unroll
  for (uint32_t n = 0; n < S::kTiles; ++n) {
    const uint32_t* numbers = reinterpret_cast<const uint32_t*>(s.numbers[share_of<S>()][n]);
    float minima[4] = {};
    if constexpr (!kSplit<T>) mma_halves(minima, mn, numbers[sum_word(g, t)], numbers[sum_word(g, 4 + t)]);
    const float2 da = *reinterpret_cast<const float2*>(numbers + kTileSums + t * 2);
#pragma unroll
    for (uint32_t e = 0; e < 4; ++e) {
      const SuperRow<T>& row = rows[e / 2];
      take(n, e, finish_super<T>(products[n][e], minima[e], row.d, row.dmin, e % 2 ? da.y : da.x));
    }
  }
}

template <class S>
__global__ void __launch_bounds__(S::kThreads, kBlocksAProcessor<S>)
    matmul_warpgroup_kernel(const __grid_constant__ SeveralRowsArgs a) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  constexpr TensorType T = S::kType;
  constexpr uint32_t kRing = kStages<S>;
  static_assert(kRing >= 2);
  extern __shared__ __align__(1024) uint8_t memory[];
  Memory<S>& m = *reinterpret_cast<Memory<S>*>(memory);
  Part<S>* parts = reinterpret_cast<Part<S>*>(memory + sizeof(Memory<S>));
  const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const SeveralRowsJob& job = job_of(a, blockIdx.y);
  const uint32_t row0 = blockIdx.x * S::kRows, weight0 = (blockIdx.y - job.first_tile) * S::kWeights;
  const uint32_t own_weight = (S::kShared ? warp % 4 : warp) * kWarpWeights, first = weight0 + own_weight;
  const bool present = first < job.n;  // else it computes what another one does, and keeps it for itself
  const uint32_t supers = a.cols / kSuperBlock, nb = a.cols / kQuantBlock;
  const uint64_t group_bytes = uint64_t(kGroupRows) * formats::row_bytes(T, a.cols);
  const uint8_t* own = job.data + (present ? first : 0) / kGroupRows * group_bytes;
  const uint32_t first_group = row0 / kTileRows,
                 groups = min(S::kTiles, (a.rows + kTileRows - 1) / kTileRows - first_group);
  const uint32_t steps = (supers + S::kShares - 1) / S::kShares;
  const auto fetch_weights = [&](uint32_t stage, uint32_t step) {
    const uint32_t super = step * S::kShares + share_of<S>();
    if (super < supers)
      for (uint32_t i = 0; i < kWarpGroups; ++i)
        fetch_group<T>(m.ring[stage].weights[warp][i], own + i * group_bytes, nb, super);
    commit_copies();  // a thread has one group of copies for each step
  };

  if (threadIdx.x == 0) {
    for (uint32_t i = 0; i < kRing; ++i) barrier_init(m.full[i], 1), barrier_init(m.empty[i], S::kThreads / 32);
    barriers_ready();
  }
  __syncthreads();
  pdl_launch_dependents();
#pragma unroll
  for (uint32_t i = 0; i + 1 < kRing; ++i) fetch_weights(i, i);  // these depend on nobody
  pdl_wait();
  if (threadIdx.x == 0)
    for (uint32_t i = 0; i + 1 < kRing && i < steps; ++i) fetch_rows(m.ring[i], m.full[i], a, first_group, groups, i);

  float y[S::kShared ? 1 : S::kTiles][4] = {};
  SharedResults<S> shared;  // instead, if shared
  uint32_t stage = 0, parity = 0;
#pragma unroll 1
  for (uint32_t step = 0; step < steps; ++step) {
    await_copies<kRing - 2>();
    __syncwarp();
    await(m.full[stage], parity);
    const auto next = [&] {
      const uint32_t later = step + kRing - 1, into = stage == 0 ? kRing - 1 : stage - 1;
      fetch_weights(into, later);
      if (threadIdx.x == 0 && later < steps) {
        if (step > 0) await(m.empty[into], stage == 0 ? parity ^ 1 : parity);
        fetch_rows(m.ring[into], m.full[into], a, first_group, groups, later);
      }
      __syncwarp();
    };
    if constexpr (!S::kShared) {
      add_super(m.ring[stage], next, [&](uint32_t n, uint32_t e, float value) { y[n][e] = y[n][e] + value; });
    } else {
      if (step > 0) {
        __syncthreads();
        shared.add(parts[(step - 1) % kParts<S>], S::kShares);
        if constexpr (kParts<S> == 1) __syncthreads();
      }
      auto& part = parts[step % kParts<S>].y[share_of<S>()];
      if (step * S::kShares + share_of<S>() < supers)
        add_super(m.ring[stage], next, [&](uint32_t n, uint32_t e, float value) {
          part[n * 8 + lane % 4 * 2 + e % 2][own_weight + e / 2 * 8 + lane / 4] = value;
        });
      else next();
    }
    __syncwarp();
    if (lane == 0) arrive(m.empty[stage]);
    if (++stage == kRing) stage = 0, parity ^= 1;
  }
  if constexpr (S::kShared) {
    __syncthreads();
    shared.add(parts[(steps - 1) % kParts<S>], supers - (steps - 1) * S::kShares);
    return shared.store(job, a.rows, row0, weight0);
  }
  if (!present) return;
#pragma unroll
  for (uint32_t n = 0; n < S::kTiles; ++n)
#pragma unroll
    for (uint32_t e = 0; e < 4; ++e) {
      const uint32_t row = row0 + n * 8 + lane % 4 * 2 + e % 2, weight = first + e / 2 * 8 + lane / 4;
      if (row < a.rows) store_result(job, row, weight, y[n][e]);
    }
#endif
}

template <class S>
void launch(SeveralRowsArgs& a, cudaStream_t stream) {
  static const bool ready = [] {
    ORCD_CUDA(
        cudaFuncSetAttribute(matmul_warpgroup_kernel<S>, cudaFuncAttributeMaxDynamicSharedMemorySize, int(kBytes<S>)));
    return true;
  }();
  (void)ready;
  const uint32_t tiles = cut_into_tiles(a, S::kWeights);
  launch_kernel(matmul_warpgroup_kernel<S>, {dim3((a.rows + S::kRows - 1) / S::kRows, tiles), S::kThreads, kBytes<S>},
                true, stream, a);
}

// What a step takes, in the unit of matmul.cuh's costs, as bench_products --shapes has it on an H200: a thread block
// alone on its processor, and each further one beside it or after it.
struct SuperCost {
  uint32_t alone, further;
};
template <class S>
constexpr SuperCost super_cost() {
  if (S::kShared) return {63, 63};
  switch (S::kTiles) {
    case 10: return {58, 57};
    case 8: return S::kGroups == 2 ? SuperCost{50, 40} : SuperCost{83, 82};
    case 6: return S::kGroups == 2 ? SuperCost{45, 30} : SuperCost{32, 17};
    case 4: return S::kGroups == 2 ? SuperCost{33, 26} : SuperCost{29, 14};
    default: return {24, 12};
  }
}
// The same of Q6_K.
template <class S>
constexpr SuperCost split_cost() {
  if (S::kShared) return {88, 88};
  switch (S::kTiles) {
    case 12: return {80, 79};
    case 10: return {73, 73};
    case 8: return S::kGroups == 2 ? SuperCost{67, 67} : SuperCost{96, 95};
    case 6: return S::kGroups == 2 ? SuperCost{68, 56} : SuperCost{45, 29};
    case 4: return S::kGroups == 2 ? SuperCost{54, 47} : SuperCost{39, 25};
    default: return {34, 22};
  }
}

template <class S>
uint32_t cost_of(const SeveralRowsArgs& a) {
  const uint32_t blocks = blocks_of(a, S::kWeights, S::kRows);
  const uint32_t steps = (a.cols / kSuperBlock + S::kShares - 1) / S::kShares;
  // Where several have room on a processor, some are put together before every one has one.
  const uint32_t count = processor().count, together = blocks <= count ? count / 2 : count / 4;
  const uint32_t each = (blocks + (kBlocksAProcessor<S> > 1 ? together : 0) + count - 1) / count;
  const SuperCost super = kSplit<S::kType> ? split_cost<S>() : super_cost<S>();
  return (steps + 2) * (super.alone + (each - 1) * super.further);
}

}  // namespace

template <TensorType T>
void visit_warpgroups(const SeveralRowsArgs& a, const std::function<void(const Choice&)>& visit) {
  for (uint32_t i = 0; i < a.n_jobs; ++i)
    if (a.jobs[i].n % kGroupWeights) return;
  const auto shape = [&]<uint32_t kTiles, uint32_t kGroups, bool kShared = false>() {
    using S = Shape<T, kTiles, kGroups, kShared>;
    static_assert(kBytes<S> * kBlocksAProcessor<S> <= kRoom + 1024);  // what every processor with warpgroups has
    visit({cost_of<S>(a), launch<S>});
  };
  shape.template operator()<8, kSplit<T> ? 3 : 4>();
  shape.template operator()<8, 2>();
  if constexpr (kSplit<T>) shape.template operator()<12, 2>();
  shape.template operator()<10, 2>();
  shape.template operator()<6, 2>();
  shape.template operator()<6, 1>();
  shape.template operator()<4, 2>();
  shape.template operator()<4, 1>();
  shape.template operator()<2, 1>();
  shape.template operator()<4, 3, true>();
}

template void visit_warpgroups<TensorType::kQ4_K>(const SeveralRowsArgs&, const std::function<void(const Choice&)>&);
template void visit_warpgroups<TensorType::kQ5_K>(const SeveralRowsArgs&, const std::function<void(const Choice&)>&);
template void visit_warpgroups<TensorType::kQ6_K>(const SeveralRowsArgs&, const std::function<void(const Choice&)>&);

}  // namespace orcd::kernels
