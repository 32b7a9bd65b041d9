// Products on up to eight rows, for decoding. A tile is a group of eight weight rows: its bytes are
// contiguous, so a ring of asynchronous copies brings whole tiles into shared memory, the first of them
// before the kernel before has ended. A warp takes one segment of a tile, lane 8j + r block j of row r.
#include <cuda_pipeline.h>

#include "device/check.h"
#include "kernels/block.cuh"
#include "kernels/launch.h"
#include "kernels/warp.cuh"

namespace orcd::kernels {
namespace {

constexpr uint32_t kMaxWarps = 20;

struct Job {
  const uint8_t* data;
  const float* bias;
  float* y;
  uint32_t n, add;
  TensorType type;
  uint32_t first_tile;   // of this job among all; with SwiGLU both jobs have the same tiles
  uint32_t tile_bytes;   // of a whole tile
};

struct Args {
  Job jobs[3];
  MatvecInput input;
  uint32_t n_jobs, tiles, cols, rows, stages, stage_bytes, swiglu;
};

// What a block holds in shared memory; sizes follow from Args.
struct Shared {
  uint8_t* ring;   // (stages, stage_bytes)
  float* x;        // (rows, cols) kNorm only
  int8_t* q;       // (rows, cols)
  float* d;        // (rows, nb)
  int32_t* sum;    // (rows, nb)
  int32_t* half;   // (rows, nb)
  float* part;     // (rows, items, 8)
  uint32_t bytes;
};

__host__ __device__ inline Shared carve(uint8_t* base, const Args& a) {
  const uint32_t nb = a.cols / 32, items = (nb + 3) / 4 * (a.swiglu ? 2 : 1);
  uint32_t at = 0;
  const auto take = [&](uint32_t bytes) {
    uint8_t* p = base + at;
    at += (bytes + 15) / 16 * 16;
    return p;
  };
  Shared s;
  s.ring = take(a.stages * a.stage_bytes);
  s.x = reinterpret_cast<float*>(take(a.input.kind == Input::kNorm ? a.rows * a.cols * 4 : 0));
  s.q = reinterpret_cast<int8_t*>(take(a.rows * a.cols));
  s.d = reinterpret_cast<float*>(take(a.rows * nb * 4));
  s.sum = reinterpret_cast<int32_t*>(take(a.rows * nb * 4));
  s.half = reinterpret_cast<int32_t*>(take(a.rows * nb * 4));
  s.part = reinterpret_cast<float*>(take(a.rows * items * 8 * 4));
  s.bytes = at;
  return s;
}

// Where tile t's rows lie: job, first row, number of rows.
struct Tile {
  uint32_t job, row, rows;
};

__device__ __forceinline__ Tile find_tile(const Args& a, uint32_t t) {
  uint32_t job = 0;
  if (!a.swiglu)
    while (job + 1 < a.n_jobs && t >= a.jobs[job + 1].first_tile) ++job;
  const uint32_t row = (t - a.jobs[job].first_tile) * kGroupRows;
  return {job, row, min(kGroupRows, a.jobs[job].n - row)};
}

// Copies one matrix' part of a tile. A last tile of fewer rows may end off the 16-byte grid: its rest
// goes by plain loads.
__device__ __forceinline__ void copy_part(const Job& job, const Tile& tile, uint8_t* to) {
  const uint32_t bytes = job.tile_bytes / kGroupRows * tile.rows;
  const uint8_t* from = job.data + uint64_t(tile.row / kGroupRows) * job.tile_bytes;
  for (uint32_t i = threadIdx.x * 16; i + 16 <= bytes; i += blockDim.x * 16)
    __pipeline_memcpy_async(to + i, from + i, 16);
  for (uint32_t i = bytes / 16 * 16 + threadIdx.x; i < bytes; i += blockDim.x) to[i] = from[i];
}

__device__ __forceinline__ void fetch(const Args& a, const Shared& s, uint32_t t, uint32_t stage) {
  if (t < a.tiles) {
    const Tile tile = find_tile(a, t);
    uint8_t* to = s.ring + stage * a.stage_bytes;
    copy_part(a.jobs[tile.job], tile, to);
    if (a.swiglu) copy_part(a.jobs[1], tile, to + a.jobs[0].tile_bytes);
  }
  __pipeline_commit();  // also when empty: the ring counts commits
}

// Fills q, d, sum and half in shared memory.
__device__ void prepare_input(const Args& a, const Shared& s) {
  const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
  const uint32_t nb = a.cols / 32;
  const Activations out = {a.cols, nullptr, s.q, s.d, s.sum, s.half};
  if (a.input.kind == Input::kGiven) {
    for (uint32_t i = threadIdx.x; i < a.rows * a.cols / 16; i += blockDim.x)
      reinterpret_cast<uint4*>(s.q)[i] = reinterpret_cast<const uint4*>(a.input.a.q)[i];
    for (uint32_t i = threadIdx.x; i < a.rows * nb; i += blockDim.x) {
      s.d[i] = a.input.a.d[i];
      s.sum[i] = a.input.a.sum[i];
      s.half[i] = a.input.a.half[i];
    }
  } else if (a.input.kind == Input::kQuantise) {
#pragma unroll 4
    for (uint32_t i = warp; i < a.rows * nb; i += warps)
      store_block(out, i / nb, i % nb, quantise_block(a.input.a.x[uint64_t(i) * 32 + lane]));
  } else {
    for (uint32_t i = threadIdx.x; i < a.rows * a.cols; i += blockDim.x) {
      const uint32_t row = i / a.cols;
      s.x[i] = a.input.x[uint64_t(a.input.pick ? a.input.pick[row] : row) * a.cols + i % a.cols];
    }
    __syncthreads();
    for (uint32_t row = 0; row < a.rows; ++row) {
      const float* x = s.x + row * a.cols;
      const float inverse = inverse_rms(x, a.cols, a.input.eps);
#pragma unroll 4
      for (uint32_t b = warp; b < nb; b += warps) {
        const uint32_t k = b * 32 + lane;
        store_block(out, row, b, quantise_block((x[k] * inverse) * a.input.weight[k]));
      }
    }
  }
}

// One segment of one tile against all rows: part[row][item][r].
template <TensorType T, bool kWhole>
__device__ __forceinline__ void segment(const uint8_t* group, uint32_t group_rows, uint32_t seg, uint32_t item,
                                        uint32_t items, uint32_t cols, uint32_t rows, const Shared& s) {
  const uint32_t lane = threadIdx.x % 32, j = lane / 8, r = lane % 8;
  const uint32_t nb = cols / 32, b = seg * kSegmentBlocks + j;
  const uint32_t blocks = min(kSegmentBlocks, nb - seg * kSegmentBlocks);
  const bool mine = j < blocks && r < group_rows;
  WeightBlock<T> w = {};
  if (mine) w = load_block<T, kWhole>(group, group_rows, nb, b, r);
  for (uint32_t row = 0; row < rows; ++row) {
    int32_t sum = 0;
    float scale = 0, total = 0, addend = 0, a = 0;
    if (mine) {
      const uint4* q = reinterpret_cast<const uint4*>(s.q + row * cols + b * 32);
      const uint32_t at = row * nb + b;
      sum = s.sum[at];
      total = float(dot(w, q[0], q[1], sum, T == TensorType::kQ6_K ? s.half[at] : 0));
      scale = w.d * s.d[at];
      if constexpr (kAffine<T>) {
        addend = w.m * s.d[at];
        a = float(sum);
      }
    }
    float acc = 0.0f;
#pragma unroll
    for (uint32_t i = 0; i < kSegmentBlocks; ++i) {
      const float si = __shfl_sync(kFull, scale, i * 8 + r), ti = __shfl_sync(kFull, total, i * 8 + r);
      if (i < blocks) acc = arith::fma32(si, ti, acc);
      if constexpr (kAffine<T>) {
        const float mi = __shfl_sync(kFull, addend, i * 8 + r), ai = __shfl_sync(kFull, a, i * 8 + r);
        if (i < blocks) acc = arith::fma32(mi, ai, acc);
      }
    }
    if (lane < 8) s.part[(row * items + item) * 8 + r] = acc;
  }
}

__device__ __forceinline__ float add_segments(const Shared& s, uint32_t items, uint32_t row, uint32_t first,
                                              uint32_t count, uint32_t r) {
  float y = 0.0f;
#pragma unroll 8
  for (uint32_t i = 0; i < count; ++i) y = y + s.part[(row * items + first + i) * 8 + r];
  return y;
}

__device__ __forceinline__ void finish_tile(const Args& a, const Shared& s, const Tile& tile, uint32_t segments) {
  const uint32_t items = segments * (a.swiglu ? 2 : 1);
  for (uint32_t i = threadIdx.x; i < a.rows * 8; i += blockDim.x) {
    const uint32_t row = i / 8, r = i % 8;
    if (r >= tile.rows) continue;
    const Job& job = a.jobs[tile.job];
    float y = add_segments(s, items, row, 0, segments, r);
    if (job.bias) y = y + job.bias[tile.row + r];
    if (a.swiglu) y = silu_times(y, add_segments(s, items, row, segments, segments, r));
    float* to = job.y + uint64_t(row) * job.n + tile.row + r;
    *to = job.add ? *to + y : y;
  }
}

__global__ void __launch_bounds__(kMaxWarps * 32) matvec_kernel(const __grid_constant__ Args a) {
  extern __shared__ __align__(16) uint8_t memory[];
  const Shared s = carve(memory, a);
  const uint32_t warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const uint32_t segments = (a.cols / 32 + 3) / 4, items = segments * (a.swiglu ? 2 : 1);

  let_successor_start();
  // Weights depend on nobody: fetch before waiting.
  for (uint32_t i = 0; i + 1 < a.stages || i == 0; ++i) fetch(a, s, blockIdx.x + i * gridDim.x, i);
  wait_for_predecessor();
  prepare_input(a, s);

  uint32_t stage = 0;
  const uint32_t ahead = a.stages > 1 ? a.stages - 1 : 1;
  for (uint32_t t = blockIdx.x; t < a.tiles; t += gridDim.x) {
    // All but the newest ahead - 1 fetches have landed: this tile's among them.
    switch (ahead - 1) {
      case 0: __pipeline_wait_prior(0); break;
      case 1: __pipeline_wait_prior(1); break;
      case 2: __pipeline_wait_prior(2); break;
      default: __pipeline_wait_prior(3); break;
    }
    __syncthreads();
    const Tile tile = find_tile(a, t);
    const uint8_t* group = s.ring + stage * a.stage_bytes;
    for (uint32_t item = warp; item < items; item += warps) {
      const bool second = item >= segments;
      const Job& job = a.jobs[tile.job + (second ? 1 : 0)];
      const uint8_t* at = group + (second ? a.jobs[0].tile_bytes : 0);
      const uint32_t seg = second ? item - segments : item;
      with_type(job.type, [&]<TensorType T>() {
        if (tile.rows == kGroupRows) segment<T, true>(at, kGroupRows, seg, item, items, a.cols, a.rows, s);
        else segment<T, false>(at, tile.rows, seg, item, items, a.cols, a.rows, s);
      });
    }
    __syncthreads();
    const uint32_t into = stage + ahead < a.stages ? stage + ahead : stage + ahead - a.stages;
    fetch(a, s, t + ahead * gridDim.x, into);
    finish_tile(a, s, tile, segments);
    stage = stage + 1 == a.stages ? 0 : stage + 1;
  }
  __pipeline_wait_prior(0);
}

// Properties of the current device that decide launches, asked for once.
struct Processor {
  int count = 0, shared_bytes = 0;
};

const Processor& processor() {
  static const Processor p = [] {
    Processor q;
    int device = 0;
    ORCD_CUDA(cudaGetDevice(&device));
    ORCD_CUDA(cudaDeviceGetAttribute(&q.count, cudaDevAttrMultiProcessorCount, device));
    ORCD_CUDA(cudaDeviceGetAttribute(&q.shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
    ORCD_CUDA(cudaFuncSetAttribute(matvec_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, q.shared_bytes));
    return q;
  }();
  return p;
}

uint32_t tile_bytes(TensorType type, uint32_t cols) { return uint32_t(kGroupRows * arith::row_bytes(type, cols)); }

Args stage_sizes(const TensorType* types, uint32_t n_jobs, uint32_t cols, uint32_t rows, Input input, bool swiglu) {
  Args a = {};
  a.input.kind = input;
  a.n_jobs = n_jobs;
  a.cols = cols;
  a.rows = rows;
  a.swiglu = swiglu;
  for (uint32_t i = 0; i < n_jobs; ++i) {
    const uint32_t bytes = tile_bytes(types[i], cols);
    a.stage_bytes = swiglu ? a.stage_bytes + bytes : max(a.stage_bytes, bytes);
  }
  return a;
}

}  // namespace

bool matvec_fits(const TensorType* types, uint32_t n_jobs, uint32_t cols, uint32_t rows, Input input, bool swiglu) {
  Args a = stage_sizes(types, n_jobs, cols, rows, input, swiglu);
  a.stages = 1;
  return rows <= kMatvecRows && carve(nullptr, a).bytes <= uint32_t(processor().shared_bytes);
}

void matvec(const MatvecJob* jobs, uint32_t n_jobs, const MatvecInput& input, uint32_t rows, bool swiglu,
            bool overlap, cudaStream_t stream) {
  TensorType types[3];
  for (uint32_t i = 0; i < n_jobs; ++i) types[i] = jobs[i].w.type;
  Args a = stage_sizes(types, n_jobs, jobs[0].w.cols, rows, input.kind, swiglu);
  a.input = input;
  for (uint32_t i = 0; i < n_jobs; ++i) {
    const Tensor& w = jobs[i].w;
    const uint32_t tiles = (w.rows + kGroupRows - 1) / kGroupRows;
    a.jobs[i] = {w.data, jobs[i].bias, jobs[i].y, w.rows, jobs[i].add, w.type, swiglu ? 0 : a.tiles,
                 tile_bytes(w.type, w.cols)};
    a.tiles = swiglu ? tiles : a.tiles + tiles;
  }

  // A warp per segment where a block has room for them, else an even share.
  const uint32_t items = (a.cols / 32 + 3) / 4 * (swiglu ? 2 : 1);
  const uint32_t rounds = (items + kMaxWarps - 1) / kMaxWarps;
  const uint32_t warps = max(4u, (items + rounds - 1) / rounds);
  // Matrices of many tiles run as several blocks per processor, each with a ring; small ones as a block
  // per tile.
  const uint32_t count = uint32_t(processor().count);
  const uint32_t resident = a.tiles > 16 * count ? (warps > 10 ? 2 : 4) : swiglu ? 1 : 2;
  const uint32_t grid = min(a.tiles, count * resident);
  const uint32_t per_block = (a.tiles + grid - 1) / grid;
  a.stages = min(per_block, 4u) + (per_block > 1 ? 1 : 0);
  while (a.stages > 1 && carve(nullptr, a).bytes * (a.tiles > 16 * count ? resident : 1) > uint32_t(processor().shared_bytes))
    --a.stages;

  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = warps * 32;
  config.dynamicSmemBytes = carve(nullptr, a).bytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = overlap ? 1 : 0;
  ORCD_CUDA(cudaLaunchKernelEx(&config, matvec_kernel, a));
}

}  // namespace orcd::kernels
