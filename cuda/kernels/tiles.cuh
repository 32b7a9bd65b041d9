// What the product kernels for few rows share. A tile is a group of eight weight rows: its bytes are
// contiguous, so one bulk copy brings whole tiles into shared memory, and a ring of such copies runs ahead,
// the first of them before the kernel before has ended. Devices before compute capability 9.0 read the
// tiles from device memory.
#pragma once

#include "kernels/block.cuh"
#include "kernels/launch.h"
#include "kernels/warp.cuh"

namespace orcd::kernels {

inline constexpr uint32_t kMaxStages = 4;
// Template arguments beside single types: the jobs' types differ, or are rare; none has super-blocks, or all have.
inline constexpr uint32_t kAnyType = 0xffff, kAnySuper = 0xfffe;

// Whether the jobs' types have super-blocks.
template <uint32_t kType>
__host__ __device__ constexpr bool takes_supers() {
  if constexpr (kType == kAnyType || kType == kAnySuper) return kType == kAnySuper;
  else return formats::has_super_blocks(formats::Format<TensorType(kType)>::kScales);
}

// f.template operator()<T>() for the type, one of those that kType stands for.
template <uint32_t kType, class F>
__device__ __forceinline__ void with_type(TensorType type, const F& f) {
  if constexpr (kType == kAnyType || kType == kAnySuper) {
    formats::with_format(type, [&]<TensorType T>() {
      if constexpr (kSupers<T> == (kType == kAnySuper)) f.template operator()<T>();
    });
  } else {
    f.template operator()<TensorType(kType)>();
  }
}

struct Job {
  const uint8_t* data;
  const float* bias;
  float* y;
  uint32_t n, add;
  TensorType type;
  uint32_t first_round;  // of this job among all; of a gated unit both jobs have the same rounds
  uint32_t tile_bytes;   // of a whole tile
};

struct ProductArgs {
  Job jobs[3];
  uint32_t n_jobs, cols, gated, supers;  // supers: the jobs' types have super-blocks
  Activation activation;                 // of a gated unit
  uint32_t at_once;                      // tiles a round takes: neighbors in one job
  uint32_t rounds;                       // of the whole grid
  uint32_t stages;                       // rounds in shared memory
  uint32_t stage_bytes;
};

__host__ __device__ inline uint32_t segments_of(uint32_t cols) {
  return (cols / 32 + kSegmentBlocks - 1) / kSegmentBlocks;
}

// Chains of a row: segments, or super-blocks.
__host__ __device__ inline uint32_t chains_of(uint32_t cols, bool supers) {
  return supers ? cols / kSuperBlock : segments_of(cols);
}

__host__ __device__ inline uint32_t tiles_of(uint32_t n) { return (n + kGroupRows - 1) / kGroupRows; }

// Places for a kernel's parts in its shared memory, one behind the other.
struct Carver {
  uint8_t* base;
  uint32_t at = 0;

  template <class T>
  __host__ __device__ T* take(uint32_t count) {
    uint8_t* p = base + at;
    at += (count * uint32_t(sizeof(T)) + 15) / 16 * 16;
    return reinterpret_cast<T*>(p);
  }
};

// The weights on their way.
struct Ring {
  uint8_t* stages;  // (stages, stage_bytes)
  uint64_t* full;   // (stages) barriers: the stage's bytes have arrived
};

// The tiles of a round: neighbors of one job. Rounds are numbered through all jobs.
struct Round {
  uint32_t job, tile, tiles;  // tile: within the job
};

__device__ __forceinline__ Round find_round(const ProductArgs& a, uint32_t round) {
  uint32_t job = 0;
  if (!a.gated)
    while (job + 1 < a.n_jobs && round >= a.jobs[job + 1].first_round) ++job;
  const uint32_t tile = (round - a.jobs[job].first_round) * a.at_once;
  return {job, tile, min(a.at_once, tiles_of(a.jobs[job].n) - tile)};
}

#if __CUDA_ARCH__ >= 900
inline constexpr bool kStaged = true;
#else
inline constexpr bool kStaged = false;
#endif

__device__ __forceinline__ uint32_t shared_address(const void* p) { return uint32_t(__cvta_generic_to_shared(p)); }

// Whole tiles of a part of a round; a last tile of fewer rows is read from device memory.
__device__ __forceinline__ uint32_t staged_bytes(const Job& job, const Round& r) {
  const uint32_t whole = min(r.tiles, job.n / kGroupRows - min(r.tile, job.n / kGroupRows));
  return whole * job.tile_bytes;
}

__device__ __forceinline__ void bulk_copy(const uint8_t* from, uint8_t* to, uint32_t bytes, uint64_t* barrier) {
#if __CUDA_ARCH__ >= 900
  if (bytes)
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                     shared_address(to)),
                 "l"(from), "r"(bytes), "r"(shared_address(barrier))
                 : "memory");
#endif
}

// By one thread: starts the copies of a round into a stage.
__device__ __forceinline__ void fetch(const ProductArgs& a, const Ring& ring, uint32_t round, uint32_t stage) {
#if __CUDA_ARCH__ >= 900
  if (round >= a.rounds) return;
  const Round r = find_round(a, round);
  const Job& first = a.jobs[r.job];
  const uint32_t bytes = staged_bytes(first, r), more = a.gated ? staged_bytes(a.jobs[1], r) : 0;
  uint64_t* barrier = ring.full + stage;
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
               "r"(bytes + more)
               : "memory");
  uint8_t* to = ring.stages + stage * a.stage_bytes;
  bulk_copy(first.data + uint64_t(r.tile) * first.tile_bytes, to, bytes, barrier);
  if (a.gated)
    bulk_copy(a.jobs[1].data + uint64_t(r.tile) * a.jobs[1].tile_bytes, to + a.at_once * first.tile_bytes, more,
              barrier);
#endif
}

// By one thread: prepares the barriers and starts the first copies. Weights depend on nobody: this comes
// before waiting for the kernel before.
__device__ __forceinline__ void start_ring(const ProductArgs& a, const Ring& ring) {
#if __CUDA_ARCH__ >= 900
  for (uint32_t i = 0; i < a.stages; ++i)
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(ring.full + i)) : "memory");
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
  for (uint32_t i = 0; i < a.stages; ++i) fetch(a, ring, blockIdx.x + i * gridDim.x, i);
}

__device__ __forceinline__ void wait_full(const Ring& ring, uint32_t stage, uint32_t parity) {
#if __CUDA_ARCH__ >= 900
  uint32_t done = 0;
  while (!done)
    asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                 : "=r"(done)
                 : "r"(shared_address(ring.full + stage)), "r"(parity)
                 : "memory");
#endif
}

// One tile of a round, where a warp reads it: `which` counts the round's tiles, those of the second job
// of a gated unit behind those of the first.
struct TileView {
  const uint8_t* in_device;
  const uint8_t* in_shared;  // a whole tile only
  uint32_t rows;             // 8, fewer in a last tile
  TensorType type;
};

__device__ __forceinline__ TileView view_tile(const ProductArgs& a, const Ring& ring, const Round& round,
                                              uint32_t stage, bool second, uint32_t tile) {
  const Job& job = a.jobs[second ? 1 : round.job];
  const uint32_t group = round.tile + tile;
  const uint32_t before = second ? a.at_once * a.jobs[0].tile_bytes : 0;
  return {job.data + uint64_t(group) * job.tile_bytes,
          ring.stages + stage * a.stage_bytes + before + tile * job.tile_bytes,
          min(kGroupRows, job.n - group * kGroupRows), job.type};
}

inline uint32_t tile_bytes(TensorType type, uint32_t cols) {
  return uint32_t(kGroupRows * formats::row_bytes(type, cols));
}

// Whether products with these types may read the same quantized input.
bool are_alike(const TensorType* types, uint32_t n);

// Whether whole tiles begin where bulk copies and loads of 16 bytes can: not so of MXFP4 with rows of an odd number of
// blocks.
bool can_be_staged(const TensorType* types, uint32_t n, uint32_t cols);

// Everything but what depends on the jobs' memory: a tile at a time, one stage.
ProductArgs smallest_product(const TensorType* types, uint32_t n_jobs, uint32_t cols, bool gated);

// Adds the jobs and numbers their rounds of a.at_once tiles.
void add_jobs(ProductArgs& a, const MatmulJob* jobs);

}  // namespace orcd::kernels
