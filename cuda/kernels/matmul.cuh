// Products of quantized weights on several rows: int8 matrix units give the exact integer sums of each block of 32, and
// the rest of the contract's chain runs beside that in registers.
//
// A unit is what a chain of the contract goes over: a segment of four blocks, or a super-block. A warp computes sixteen
// weight rows by all rows of activations of its thread block, a unit at a time. Packed weights and activations come
// by asynchronous copies some steps ahead; a warp unpacks what is its own straight to where the matrix unit wants it,
// once for all its rows. So nothing that is unpacked goes through shared memory, and a step has one barrier.
//
// Where there are too few weight rows for all processors, several warps share them: in each step every one takes
// another unit, and what these give is added up in the contract's order a step later, from shared memory.
#pragma once

#include <algorithm>

#include "device/check.h"
#include "kernels/multiply.cuh"
#include "kernels/pdl.h"
#include "kernels/several_rows.cuh"
#include "kernels/shared_results.cuh"
#include "kernels/warp.cuh"
#include "ops/tiles.h"

namespace orcd::kernels {
namespace {

constexpr uint32_t kWarps = 8, kThreads = kWarps * 32;
constexpr uint32_t kMostStages = 4;

// What a thread block computes: 8 · kTiles rows by sixteen weights for each of its groups of kShares warps.
template <TensorType kTypeOf, uint32_t kTilesOf, uint32_t kSharesOf>
struct Shape {
  static constexpr TensorType kType = kTypeOf;
  static constexpr uint32_t kTiles = kTilesOf, kRows = kTiles * 8, kShares = kSharesOf;
  static constexpr uint32_t kThreads = kWarps * 32, kWeights = kWarps / kShares * kWarpWeights;
  static constexpr uint32_t kBlocksAProcessor = kShares == 1 || kTiles * kShares <= 8 ? 2 : 1;
};

// Of few places with experts: rows are short, and each expert's weights are asked for when it is known. What that takes is
// hidden by other thread blocks.
template <TensorType T>
struct FewPlaces : Shape<T, 1, 4> {
  static constexpr uint32_t kBlocksAProcessor = kSplit<T> ? 2 : kSupers<T> ? 3 : 4;
};

// Activations lie as UnitView has them.
template <class S>
struct alignas(16) Stage {
  uint8_t weights[kWarps * kWarpGroups][GroupBytes<S::kType>::all];
  int8_t values[S::kShares][S::kRows][kUnit<S::kType>];
  uint32_t sums[S::kShares][kAffine<S::kType> ? S::kRows : 1][kUnitBlocks<S::kType>];
  float d[S::kShares][S::kRows][kUnitScales<S::kType>];
  uint32_t shifts[S::kShares][kSupers<S::kType> ? S::kRows : 1];
};

// Parts of shared results: two where they are little: then a step needs one barrier, else two.
template <class S>
inline constexpr uint32_t kParts = S::kShares == 1               ? 0
                                   : sizeof(Part<S>) > 24 * 1024 ? 1
                                                                 : 2;

// Bytes of shared memory for a thread block: where two share a processor, what those of every generation have for one.
template <class S>
inline constexpr uint32_t kRoom = (S::kBlocksAProcessor == 2 ? 99 : 226 / S::kBlocksAProcessor) * 1024;

// Stages that fit, of two to kMostStages.
template <class S>
inline constexpr uint32_t kFit = (kRoom<S> - kParts<S> * sizeof(Part<S>)) / sizeof(Stage<S>);
template <class S>
inline constexpr uint32_t kStages = kFit<S> < 2             ? 2
                                    : kFit<S> > kMostStages ? kMostStages
                                                            : kFit<S>;

template <class S>
inline constexpr uint32_t kBytes = kStages<S> * sizeof(Stage<S>) + kParts<S> * sizeof(Part<S>);

// Starts the copies of this warp's unit of a step, if there is one. nb: blocks of a row.
template <class S>
__device__ __forceinline__ void fetch_weights(Stage<S>& to, const OwnGroups& own, uint32_t nb, uint32_t step) {
  const uint32_t warp = threadIdx.x / 32;
  fetch_unit<S::kType>(to.weights[warp * kWarpGroups], own, nb, step * S::kShares + warp % S::kShares);
}

// This warp's unit of a stage.
template <class S>
__device__ __forceinline__ UnitView<S::kType> view_of(const Stage<S>& s) {
  const uint32_t warp = threadIdx.x / 32, share = warp % S::kShares;
  return {s.weights[warp * kWarpGroups], s.values[share][0], s.sums[share][0], s.d[share][0], s.shifts[share]};
}

// The same of the activations of all its units.
template <class S>
__device__ __forceinline__ void fetch_rows(Stage<S>& to, const SeveralRowsArgs& a, const OwnRows& own, uint32_t step) {
  constexpr TensorType T = S::kType;
  constexpr uint32_t kPieces = kUnit<T> / 16, kAll = S::kShares * S::kRows, kScales = kUnitScales<T>;
  const uint32_t nb = a.cols / kQuantBlock;
#pragma unroll
  for (uint32_t i = 0; i < (kAll * kPieces + kThreads - 1) / kThreads; ++i) {
    const uint32_t at = i * kThreads + threadIdx.x, piece = at % kPieces, share = at / kPieces % S::kShares;
    const uint32_t row = at / kPieces / S::kShares, k = (step * S::kShares + share) * kUnit<T> + piece * 16;
    if (kAll * kPieces % kThreads && row >= S::kRows) break;
    if (k >= a.cols) continue;
    const bool inside = own.has(row);
    copy_async<16>(&to.values[share][row][value_place(row, piece)], a.x.q + (inside ? own.source(row) * a.cols + k : 0),
                   inside);
  }
#pragma unroll
  for (uint32_t i = 0; i < (kAll * kScales + kThreads - 1) / kThreads; ++i) {
    const uint32_t at = i * kThreads + threadIdx.x, scale = at % kScales, share = at / kScales % S::kShares;
    const uint32_t row = at / kScales / S::kShares, unit = step * S::kShares + share;
    const uint32_t block = unit * kUnitBlocks<T> + scale;
    if (row >= S::kRows) break;
    if (block >= nb) continue;
    const bool inside = own.has(row);
    const uint64_t block_of_row = inside ? own.source(row) * nb + block : 0;
    if constexpr (!kSupers<T>) {
      copy_async<4>(&to.d[share][row][scale], a.x.d + block_of_row, inside);
      if constexpr (kAffine<T>) copy_async<4>(&to.sums[share][row][scale], a.x.sum + block_of_row, inside);
    } else {
      copy_async<4>(&to.d[share][row][0], a.x.d + block_of_row / kSuperBlocks, inside);
      copy_async<4>(&to.shifts[share][row], a.x.shifts + block_of_row / kSuperBlocks, inside);
      if constexpr (kAffine<T>) {
        copy_async<16>(&to.sums[share][row][sum_place(row, 0)], a.x.sum + block_of_row, inside);
        copy_async<16>(&to.sums[share][row][sum_place(row, 4)], a.x.sum + block_of_row + 4, inside);
      }
    }
  }
}

template <class S, bool kExperts>
__global__ void __launch_bounds__(kThreads, S::kBlocksAProcessor)
    matmul_kernel(const __grid_constant__ ArgsOf<kExperts> a) {
  constexpr uint32_t kTiles = S::kTiles, kRing = kStages<S>;
  extern __shared__ __align__(16) uint8_t memory[];
  Stage<S>* ring = reinterpret_cast<Stage<S>*>(memory);
  Part<S>* parts = reinterpret_cast<Part<S>*>(memory + kRing * sizeof(Stage<S>));
  const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  JobOf<kExperts> job = job_of(a, blockIdx.y);
  constexpr uint32_t kBlocks = kUnitBlocks<S::kType>;
  const uint32_t nb = a.cols / kQuantBlock, units = (nb + kBlocks - 1) / kBlocks;
  const uint32_t steps = (units + S::kShares - 1) / S::kShares, weight0 = (blockIdx.y - job.first_tile) * S::kWeights;
  const uint32_t own_weight = warp / S::kShares * kWarpWeights, first = weight0 + own_weight;
  const uint64_t group_bytes = uint64_t(kGroupRows) * formats::row_bytes(S::kType, a.cols);
  OwnRows rows = {blockIdx.x * S::kRows, a.rows, nullptr};

  pdl_launch_dependents();
  if constexpr (kExperts) {
    __shared__ uint32_t sources[S::kRows];
    pdl_wait();
    if (!take_tile<S::kType>(a, job, rows, sources)) return;
  }
  const OwnGroups own = {job.data + first / kGroupRows * group_bytes, group_bytes,
                         first < job.n ? min(job.n - first, kWarpWeights) : 0};
#pragma unroll
  for (uint32_t i = 0; i + 1 < kRing; ++i)
    fetch_weights(ring[i], own, nb, i);  // without experts these depend on nobody
  if constexpr (kExperts) __syncthreads();
  else pdl_wait();
#pragma unroll
  for (uint32_t i = 0; i + 1 < kRing; ++i) {
    fetch_rows(ring[i], a, rows, i);
    commit_copies();  // a thread has one group of copies for each step; the first has the weights of all these
  }

  float y[S::kShares == 1 ? kTiles : 1][4] = {};
  SharedResults<S> shared;
  uint32_t stage = 0;
#pragma unroll 1
  for (uint32_t step = 0; step < steps; ++step) {
    await_copies<kRing - 2>();
    __syncthreads();
    const uint32_t free = stage == 0 ? kRing - 1 : stage - 1;
    fetch_weights(ring[free], own, nb, step + kRing - 1);
    fetch_rows(ring[free], a, rows, step + kRing - 1);
    commit_copies();
    const uint32_t unit = step * S::kShares + warp % S::kShares;
    const auto multiply = [&](const auto& take) {
      const UnitView<S::kType> own_unit = view_of(ring[stage]);
      if constexpr (kSupers<S::kType>) multiply_super<S::kType, kTiles>(own_unit, take);
      else multiply_segment<S::kType, kTiles>(own_unit, min(kBlocks, nb - unit * kBlocks), take);
    };
    if constexpr (S::kShares == 1) {
      multiply([&](uint32_t n, uint32_t e, float value) { y[n][e] = y[n][e] + value; });
    } else {
      if (step > 0) shared.add(parts[(step - 1) % kParts<S>], S::kShares);
      if constexpr (kParts<S> == 1) __syncthreads();
      auto& part = parts[step % kParts<S>].y[warp % S::kShares];
      if (unit < units)
        multiply([&](uint32_t n, uint32_t e, float value) {
          part[n * 8 + lane % 4 * 2 + e % 2][own_weight + e / 2 * 8 + lane / 4] = value;
        });
    }
    if (++stage == kRing) stage = 0;
  }

  if constexpr (S::kShares == 1) {
#pragma unroll
    for (uint32_t n = 0; n < kTiles; ++n)
#pragma unroll
      for (uint32_t e = 0; e < 4; ++e) {
        const uint32_t row = rows.first + n * 8 + lane % 4 * 2 + e % 2, weight = first + e / 2 * 8 + lane / 4;
        if (row < rows.end && weight < job.n) store_result(job, row, weight, y[n][e]);
      }
  } else {
    __syncthreads();
    shared.add(parts[(steps - 1) % kParts<S>], units - (steps - 1) * S::kShares);
    shared.store(job, rows.end, rows.first, weight0);
  }
}

// row_tiles: thread blocks along x.
template <class S, bool kExperts>
void launch_tiles(ArgsOf<kExperts>& a, uint32_t row_tiles, cudaStream_t stream) {
  static const bool ready = [] {
    ORCD_CUDA(
        cudaFuncSetAttribute(matmul_kernel<S, kExperts>, cudaFuncAttributeMaxDynamicSharedMemorySize, int(kBytes<S>)));
    return true;
  }();
  (void)ready;
  const uint32_t tiles = cut_into_tiles(a, S::kWeights);
  launch_kernel(matmul_kernel<S, kExperts>, {dim3(row_tiles, tiles), kThreads, kBytes<S>}, true, stream, a);
}

template <class S>
void launch(SeveralRowsArgs& a, cudaStream_t stream) {
  launch_tiles<S, false>(a, (a.rows + S::kRows - 1) / S::kRows, stream);
}

// What a shape takes, about, in units of 36 ns, by measurements on an H200; none if there is no room. A step costs by
// its rows of activations, and something beside. Two thread blocks that share a processor slow each other down, the
// more the more they compute for each byte; warps that share weights exchange what they give.
template <class S>
uint32_t cost_of(const SeveralRowsArgs& a) {
  if (kBytes<S> > processor().shared_bytes) return UINT32_MAX;
  const uint32_t blocks = blocks_of(a, S::kWeights, S::kRows);
  const uint32_t units = (a.cols + kUnit<S::kType> - 1) / kUnit<S::kType>, count = processor().count;
  const uint32_t steps = (units + S::kShares - 1) / S::kShares + 2;
  const uint32_t split = kSplit<S::kType> ? 15 : 10;  // two sub-scales a block
  const uint32_t each = steps * (1 + S::kTiles) * (S::kShares == 1 ? split : S::kTiles == 8 ? 11 : 14);
  if (blocks <= count || S::kBlocksAProcessor == 1) return (blocks + count - 1) / count * each;
  return (blocks + 2 * count - 1) / (2 * count) * each * (10 + S::kTiles) / 10;
}

template <class S>
void consider(const SeveralRowsArgs& a, Choice& best) {
  const uint32_t cost = cost_of<S>(a);
  if (cost < best.cost) best = {cost, launch<S>};
}

template <TensorType T, uint32_t kTiles>
void consider_all(const SeveralRowsArgs& a, Choice& best) {
  static_assert(kBytes<Shape<T, kTiles, 1>> <= kRoom<Shape<T, kTiles, 1>>);
  consider<Shape<T, kTiles, 1>>(a, best);
  consider<Shape<T, kTiles, 4>>(a, best);
  if constexpr (kTiles <= 4) consider<Shape<T, kTiles, 8>>(a, best);  // of eight tiles there is no room for it
}

}  // namespace

// Of all shapes but those of which most rows would be empty. There is one at least: of warps that share nothing.
template <TensorType T>
void matmul_of(SeveralRowsArgs& a, cudaStream_t stream) {
  Choice best;
  if (a.rows > 16) consider_all<T, 4>(a, best);
  if (a.rows > 32) consider_all<T, 8>(a, best);
  else if (a.rows > 8) consider_all<T, 2>(a, best);
  if (a.rows <= 16) consider_all<T, 1>(a, best);
  if constexpr (kSupers<T>)
    if (a.x.tiles)
      visit_warpgroups<T>(a, [&](const Choice& c) {
        if (c.cost < best.cost) best = c;
      });
  best.launch(a, stream);
}

// Few places are divided among more thread blocks.
template <TensorType T>
void matmul_experts_of(ExpertsArgs& a, uint32_t tiles, uint32_t tile_rows, bool few, cudaStream_t stream) {
  using Many = Shape<T, 4, 1>;
  using Some = Shape<T, 1, 1>;
  using Few = FewPlaces<T>;
  static_assert(Many::kRows == kMostTilePlaces && Some::kRows == kTilePlaces && Few::kRows == kTilePlaces);
  static_assert(kBytes<Many> <= kRoom<Many> && kBytes<Some> <= kRoom<Some> && kBytes<Few> <= kRoom<Few>);
  if (tile_rows > kTilePlaces) launch_tiles<Many, true>(a, tiles, stream);
  else if (few) launch_tiles<Few, true>(a, tiles, stream);
  else launch_tiles<Some, true>(a, tiles, stream);
}

}  // namespace orcd::kernels
