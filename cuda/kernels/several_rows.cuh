// What the kernels for products on several rows share: their arguments, and asynchronous copies into shared memory.
#pragma once

#include <functional>
#include <type_traits>

#include "formats/formats.h"
#include "kernels/async_copies.cuh"
#include "kernels/launch.h"

namespace orcd::kernels {

inline constexpr uint32_t kMostJobs = 3;

struct SeveralRowsJob {
  const uint8_t* data;
  const float* bias;
  float* y;
  uint32_t n, add;
  uint32_t first_tile;  // of this job among all
};

// Products of one type that read the same activations.
struct SeveralRowsArgs {
  SeveralRowsJob jobs[kMostJobs];
  uint32_t n_jobs, cols, rows;
  Quantized x;
};

// The same with experts: the jobs' data and biases are all experts', `n` is of one. `rows` are places.
struct ExpertsArgs : SeveralRowsArgs {
  const ExpertTile* tiles;  // one for each thread block along x
  const uint32_t* row;      // (places) of the activations; null: as the place
};

// Sets each job's first tile; tiles of all jobs.
inline uint32_t cut_into_tiles(SeveralRowsArgs& a, uint32_t weights_of_tile) {
  uint32_t tiles = 0;
  for (uint32_t i = 0; i < a.n_jobs; ++i) {
    a.jobs[i].first_tile = tiles;
    tiles += (a.jobs[i].n + weights_of_tile - 1) / weights_of_tile;
  }
  return tiles;
}

// Thread blocks of so many weights by so many rows.
inline uint32_t blocks_of(const SeveralRowsArgs& a, uint32_t weights, uint32_t rows) {
  uint32_t tiles = 0;
  for (uint32_t i = 0; i < a.n_jobs; ++i) tiles += (a.jobs[i].n + weights - 1) / weights;
  return tiles * ((a.rows + rows - 1) / rows);
}

__device__ __forceinline__ const SeveralRowsJob& job_of(const SeveralRowsArgs& a, uint32_t tile) {
  uint32_t job = 0;
  while (job + 1 < a.n_jobs && tile >= a.jobs[job + 1].first_tile) ++job;
  return a.jobs[job];
}

template <bool kExperts>
using ArgsOf = std::conditional_t<kExperts, ExpertsArgs, SeveralRowsArgs>;
// With experts a thread block's own, for it has those of one.
template <bool kExperts>
using JobOf = std::conditional_t<kExperts, SeveralRowsJob, const SeveralRowsJob&>;

// Rows of activations of a thread block: the first, and what is behind the last; where they come from, if not from there.
struct OwnRows {
  uint32_t first, end;
  const uint32_t* sources;  // (end - first), or null

  __device__ __forceinline__ bool has(uint32_t row) const { return first + row < end; }
  __device__ __forceinline__ uint64_t source(uint32_t row) const { return sources ? sources[row] : first + row; }
};

// The rows of this thread block's tile, and of the job what is its expert's; false if there is no such tile. `sources` is
// there for all threads after the next barrier.
template <TensorType T, uint32_t kRows>
__device__ __forceinline__ bool take_tile(const ExpertsArgs& a, SeveralRowsJob& job, OwnRows& rows,
                                          uint32_t (&sources)[kRows] /* shared */) {
  const ExpertTile tile = a.tiles[blockIdx.x];
  if (tile.first == tile.end) return false;
  job.data += uint64_t(tile.expert) * job.n * formats::row_bytes(T, a.cols);
  if (job.bias) job.bias += uint64_t(tile.expert) * job.n;
  rows = {tile.first, tile.end, sources};
  for (uint32_t i = threadIdx.x; i < min(kRows, tile.end - tile.first); i += blockDim.x)
    sources[i] = a.row ? a.row[tile.first + i] : tile.first + i;
  return true;
}

// What has no source is filled with zeros.
template <uint32_t kBytes>
__device__ __forceinline__ void copy_async(void* to, const void* from, bool inside) {
  const uint32_t address = uint32_t(__cvta_generic_to_shared(to)), bytes = inside ? kBytes : 0;
  if constexpr (kBytes == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(bytes) : "memory");
  else asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(address), "l"(from), "r"(bytes) : "memory");
}

__device__ __forceinline__ void load_matrices(uint32_t out[4], const int8_t* from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(uint32_t(__cvta_generic_to_shared(from))));
}

__device__ __forceinline__ void store_result(const SeveralRowsJob& job, uint32_t row, uint32_t weight, float y) {
  float* to = job.y + uint64_t(row) * job.n + weight;
  const float product = job.bias ? y + job.bias[weight] : y;
  *to = job.add ? *to + product : product;
}

// A form of a product, and what it takes, about.
struct Choice {
  uint32_t cost = UINT32_MAX;
  void (*launch)(SeveralRowsArgs&, cudaStream_t) = nullptr;
};

// Those of warpgroups; for K-quants, where the activations' tiles are there.
template <TensorType T>
void visit_warpgroups(const SeveralRowsArgs& a, const std::function<void(const Choice&)>& visit);

// Products of one type, up to kMostJobs. Without the tiles where so few rows have none.
inline SeveralRowsArgs several_rows(const MatmulArgs* products /* host, (n) */, uint32_t n, const Activations& x,
                                    uint32_t rows) {
  SeveralRowsArgs a = {};
  a.n_jobs = n;
  a.cols = x.cols;
  a.rows = rows;
  a.x = formats::has_super_blocks(products[0].w.type) ? tiled(x, rows).supers : x.blocks;
  for (uint32_t i = 0; i < n; ++i) {
    const MatmulArgs& p = products[i];
    a.jobs[i] = {p.w.data, p.bias, p.y, p.w.rows, p.add, 0};
  }
  return a;
}

// Any number of rows, though one is gemv's. The jobs' first tiles are set here. matmul_of: what has kernels of many
// shapes (matmul.cuh); matmul_direct: all else (matmul_direct.cuh).
template <TensorType T>
void matmul_of(SeveralRowsArgs& a, cudaStream_t stream);
template <TensorType T>
void matmul_direct(SeveralRowsArgs& a, cudaStream_t stream);

// The same with experts; `tiles`: how many, of up to so many rows each. Few places are divided among more thread blocks.
template <TensorType T>
void matmul_experts_of(ExpertsArgs& a, uint32_t tiles, uint32_t tile_rows, bool few, cudaStream_t stream);
template <TensorType T>
void matmul_experts_direct(ExpertsArgs& a, uint32_t tiles, cudaStream_t stream);

template <TensorType T>
inline constexpr bool kHasShapes =
    T == TensorType::kQ4_0 || T == TensorType::kQ4_1 || T == TensorType::kQ5_0 || T == TensorType::kQ5_1 ||
    T == TensorType::kQ8_0 || T == TensorType::kQ4_K || T == TensorType::kQ5_K || T == TensorType::kQ6_K;
// The same with experts: those of gpt-oss are MXFP4.
template <TensorType T>
inline constexpr bool kHasExpertShapes = kHasShapes<T> || T == TensorType::kMXFP4;

}  // namespace orcd::kernels
