// Products on two to kSmallM rows of any length, on int8 matrix units, where gemm_small_m's tiles do not fit shared
// memory whole or would leave too little of it: here K comes in chunks of some segments. A warp takes one segment of
// sixteen or thirty-two weight rows against all rows; what the segments of a chunk give meets in shared memory and is
// added there in ascending order to what the chunks before gave.
#include "device/check.h"
#include "kernels/fragments.cuh"
#include "kernels/pdl.h"
#include "kernels/tiles.cuh"

namespace orcd::kernels {
namespace {

constexpr uint32_t kWarps = 8;
constexpr uint32_t kPairRows = 2 * kGroupRows;  // weight rows of one matrix product
constexpr uint32_t kPartWidth = kPairRows + 4;  // floats: keeps the stores of a warp off each other's banks
constexpr uint32_t kTargetUnits = 2 * kWarps;   // of a chunk: so that warps seldom wait for each other

struct Args : ProductArgs {
  uint32_t rows;
  TiledActivations in;
  TiledActivations out;       // with SwiGLU: the result
  uint32_t chunk, chunks;     // segments of a chunk; chunks of a row
  uint32_t buffers;           // for what segments give: 2, or 1 and one more wait a chunk
  formats::Planes planes[3];  // of the jobs' types
};

// What a block of threads holds in shared memory.
struct Shared {
  Ring ring;
  float* part;      // (buffers, pairs, segments, rows, kPartWidth)
  float* sum;       // (matrices, rows, columns) of the chunks before
  uint32_t buffer;  // floats of a buffer
  uint32_t bytes;
};

__host__ __device__ inline uint32_t pairs_of(const Args& a) { return a.at_once / 2 * (a.swiglu ? 2 : 1); }

// Floats that one segment gives with one pair of tiles.
__host__ __device__ inline uint32_t part_of(const Args& a) { return (a.rows + 7) / 8 * 8 * kPartWidth; }

__host__ __device__ inline Shared carve(uint8_t* base, const Args& a) {
  Carver c = {base};
  Shared s;
  s.ring.stages = c.take<uint8_t>(a.stages * a.stage_bytes);
  s.ring.full = c.take<uint64_t>(kMaxStages);
  s.buffer = pairs_of(a) * a.chunk * part_of(a);
  s.part = c.take<float>(a.buffers * s.buffer);
  s.sum = c.take<float>(a.rows * pairs_of(a) * kPairRows);
  s.bytes = c.at;
  return s;
}

// Blocks of a chunk.
__host__ __device__ inline uint32_t blocks_of(const Args& a, uint32_t chunk) {
  const uint32_t first = chunk * a.chunk * kSegmentBlocks;
  return min(a.chunk * kSegmentBlocks, a.cols / 32 - first);
}

// Bytes of `blocks` blocks of a whole tile.
__host__ __device__ inline uint32_t tile_bytes_of(const formats::Planes& l, uint32_t blocks) {
  const uint32_t each = l.low + l.high + (l.super ? 0 : l.head);
  return kGroupRows * (blocks * each + (l.super ? blocks / 8 * (l.head + l.tail) : 0));
}

__device__ __forceinline__ uint32_t segments_in(const Args& a, uint32_t chunk) {
  return (blocks_of(a, chunk) + kSegmentBlocks - 1) / kSegmentBlocks;
}

// By a warp: starts the copies of a chunk of a round into a stage, where each tile lies as one of so many columns.
__device__ __forceinline__ void fetch_chunk(const Args& a, const Ring& ring, uint32_t round, uint32_t chunk,
                                            uint32_t stage) {
#if __CUDA_ARCH__ >= 900
  if (round >= a.rounds) return;
  const uint32_t lane = threadIdx.x % 32, nb = a.cols / 32;
  const uint32_t first = chunk * a.chunk * kSegmentBlocks, blocks = blocks_of(a, chunk);
  const Round r = find_round(a, round);
  uint64_t* barrier = ring.full + stage;
  // Lane 4i + p: piece p of tile i, those of the second matrix after those of the first.
  const uint32_t tile = lane / 4, piece = lane % 4;
  const bool second = tile >= a.at_once;
  const uint32_t job_index = second ? 1 : r.job, in_round = second ? tile - a.at_once : tile;
  const Job& job = a.jobs[job_index];
  const formats::Planes& l = a.planes[job_index];
  const uint32_t whole = job.n / kGroupRows;  // a last tile of fewer rows is read from device memory
  const bool there = tile < a.at_once * (a.swiglu ? 2 : 1) && in_round < r.tiles && r.tile + in_round < whole;
  uint32_t from = 0, to = 0, bytes = 0;
  const uint32_t head_end = l.low + l.high;
  if (piece == 0) bytes = blocks * l.low, from = first * l.low;
  if (piece == 1) bytes = blocks * l.high, from = nb * l.low + first * l.high, to = blocks * l.low;
  if (piece == 2) {
    bytes = (l.super ? blocks / 8 : blocks) * l.head;
    from = nb * head_end + (l.super ? first / 8 : first) * l.head;
    to = blocks * head_end;
  }
  if (piece == 3) {
    bytes = blocks / 8 * l.tail;
    from = nb * head_end + nb / 8 * l.head + first / 8 * l.tail;
    to = blocks * head_end + blocks / 8 * l.head;
  }
  bytes = there ? bytes * kGroupRows : 0;
  const uint32_t all = __reduce_add_sync(kFull, bytes);
  if (lane == 0)
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(all)
                 : "memory");
  __syncwarp();
  uint8_t* base = ring.stages + stage * a.stage_bytes + (second ? a.at_once * tile_bytes_of(a.planes[0], blocks) : 0) +
                  in_round * tile_bytes_of(l, blocks);
  bulk_copy(job.data + uint64_t(r.tile + in_round) * job.tile_bytes + from * kGroupRows, base + to * kGroupRows, bytes,
            barrier);
#endif
}

// A segment of two tiles: weight rows g and g + 8 of a lane 4g + t.
template <TensorType T>
struct PairWeights {
  uint32_t values[kSegmentBlocks][4];  // as mma.m16n8k32 takes them, still with their offset
  float d[2][kSegmentBlocks], m[2][kSegmentBlocks];
  uint2 scales[2];
};

// Where one tile's part of a chunk is to be read.
struct TileSource {
  const uint8_t* group;
  uint32_t rows, nb, seg;
};

template <TensorType T, bool kWhole>
__device__ __forceinline__ void load_tile(const TileSource& from, uint32_t i, PairWeights<T>& w) {
  const uint32_t g = threadIdx.x % 32 / 4;
  const uint32_t first = from.seg * kSegmentBlocks;
  const uint32_t blocks = kWhole ? kSegmentBlocks : min(kSegmentBlocks, from.nb - first);
  uint32_t values[kSegmentBlocks][2] = {};
  load_values<T, kWhole>(from.group, kWhole ? kGroupRows : from.rows, from.nb, first, blocks, values);
#pragma unroll
  for (uint32_t j = 0; j < kSegmentBlocks; ++j) w.values[j][i] = values[j][0], w.values[j][i + 2] = values[j][1];
  load_scales<T, kWhole>(from.group, kWhole ? kGroupRows : from.rows, from.nb, first, blocks, g, w.d[i], w.m[i],
                         w.scales[i]);
}

__device__ __forceinline__ void mma_pair(int32_t c[4], const uint32_t a[4], uint32_t b0, uint32_t b1, int32_t left,
                                         int32_t right) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%10,%11};"
      : "=r"(c[0]), "=r"(c[1]), "=r"(c[2]), "=r"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "r"(left), "r"(right));
}

__device__ __forceinline__ void mma_pair_half(int32_t c[4], uint32_t a0, uint32_t a1, uint32_t b, int32_t left,
                                              int32_t right) {
  asm("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%7,%8,%7,%8};"
      : "=r"(c[0]), "=r"(c[1]), "=r"(c[2]), "=r"(c[3])
      : "r"(a0), "r"(a1), "r"(b), "r"(left), "r"(right));
}

// What eight rows of activations bring of a segment: lane 4g + t has values of row g, and numbers of rows 2t, 2t + 1.
struct RowsOfSegment {
  uint4 q[2];
  float d[2][kSegmentBlocks];
  int32_t sum[2][kSegmentBlocks], sum_lo16[2][kSegmentBlocks];
};

template <TensorType T>
__device__ __forceinline__ RowsOfSegment load_rows(const TiledActivations& x, uint32_t group, uint32_t seg) {
  const uint32_t lane = threadIdx.x % 32, at = seg * x.groups + group;
  RowsOfSegment r;
  const uint4* q = reinterpret_cast<const uint4*>(x.q + at * kTiledSegment) + lane;
  r.q[0] = q[0], r.q[1] = q[32];
#pragma unroll
  for (uint32_t n = 0; n < 2; ++n) {
    const uint32_t numbers = (at * 8 + lane % 4 * 2 + n) * kSegmentBlocks;
    four_of<true>(x.d + numbers, kSegmentBlocks, r.d[n]);
    if constexpr (kAffine<T> || kOffset<T> != 0) four_of<true>(x.sum + numbers, kSegmentBlocks, r.sum[n]);
    if constexpr (kSplit<T>) four_of<true>(x.sum_lo16 + numbers, kSegmentBlocks, r.sum_lo16[n]);
  }
  return r;
}

// The segment's chain: rows 2t and 2t + 1 with weight row g to acc[0 .. 1], with g + 8 to acc[2 .. 3].
template <TensorType T>
__device__ __forceinline__ void multiply_pair(const PairWeights<T>& w, const RowsOfSegment& x, uint32_t blocks,
                                              float acc[4]) {
  const uint32_t b[kSegmentBlocks][2] = {
      {x.q[0].x, x.q[0].y}, {x.q[0].z, x.q[0].w}, {x.q[1].x, x.q[1].y}, {x.q[1].z, x.q[1].w}};
#pragma unroll
  for (uint32_t i = 0; i < 4; ++i) acc[i] = 0.0f;
#pragma unroll
  for (uint32_t j = 0; j < kSegmentBlocks; ++j) {
    if (j >= blocks) break;
    float dots[4];
    if constexpr (kSplit<T>) {
      int32_t low[4], high[4];
      const auto start = [&](uint32_t n, bool second) {
        return -kOffset<T> * (second ? x.sum[n][j] - x.sum_lo16[n][j] : x.sum_lo16[n][j]);
      };
      mma_pair_half(low, w.values[j][0], w.values[j][1], b[j][0], start(0, false), start(1, false));
      mma_pair_half(high, w.values[j][2], w.values[j][3], b[j][1], start(0, true), start(1, true));
#pragma unroll
      for (uint32_t i = 0; i < 4; ++i) {
        const uint32_t scales = j < 2 ? w.scales[i / 2].x : w.scales[i / 2].y;
        dots[i] = float(signed_byte(scales, j % 2 * 2) * low[i] + signed_byte(scales, j % 2 * 2 + 1) * high[i]);
      }
    } else {
      int32_t c[4], start[2] = {kMagicBits, kMagicBits};
      if constexpr (kOffset<T> != 0) start[0] -= kOffset<T> * x.sum[0][j], start[1] -= kOffset<T> * x.sum[1][j];
      mma_pair(c, w.values[j], b[j][0], b[j][1], start[0], start[1]);
#pragma unroll
      for (uint32_t i = 0; i < 4; ++i) dots[i] = arith::float_of(uint32_t(c[i])) - kMagic;
    }
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) {
      acc[i] = arith::fma32(w.d[i / 2][j] * x.d[i % 2][j], dots[i], acc[i]);
      if constexpr (kAffine<T>) acc[i] = arith::fma32(w.m[i / 2][j] * x.d[i % 2][j], float(x.sum[i % 2][j]), acc[i]);
    }
  }
}

// One segment of kPairs pairs of tiles against all rows: part[row][weight row] of each pair.
template <TensorType T, uint32_t kPairs, bool kWhole>
__device__ __forceinline__ void multiply(const TileSource (&tiles)[2 * kPairs], const TiledActivations& rows,
                                         uint32_t seg, uint32_t blocks, float* part, uint32_t next_pair) {
  const uint32_t lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  PairWeights<T> w[kPairs];
#pragma unroll
  for (uint32_t i = 0; i < 2 * kPairs; ++i) load_tile<T, kWhole>(tiles[i], i % 2, w[i / 2]);
#pragma unroll 1
  for (uint32_t group = 0; group < rows.groups; ++group) {
    const RowsOfSegment x = load_rows<T>(rows, group, seg);
#pragma unroll
    for (uint32_t i = 0; i < kPairs; ++i) {
      float acc[4];
      multiply_pair<T>(w[i], x, kWhole ? kSegmentBlocks : blocks, acc);
      float* to = part + i * next_pair + (group * 8 + 2 * t) * kPartWidth + g;
      to[0] = acc[0], to[kPartWidth] = acc[1], to[8] = acc[2], to[kPartWidth + 8] = acc[3];
    }
  }
}

// Adds a chunk's segments to the sums so far; behind the last one, the results leave. With a.out they leave quantized:
// then a round is 32 columns wide, a warp has a row's block.
__device__ __forceinline__ void finish_chunk(const Args& a, const Shared& s, const Round& round, const float* part,
                                             uint32_t segments, bool begins, bool ends) {
  const Job& job = a.jobs[round.job];
  const uint32_t width = a.at_once * kGroupRows, of_segment = part_of(a), of_pair = a.chunk * of_segment;
  for (uint32_t i = threadIdx.x; i < a.rows * width; i += blockDim.x) {
    const uint32_t row = i / width, column = i % width, n = round.tile * kGroupRows + column;
    const auto total = [&](uint32_t second) {
      float* before = s.sum + second * a.rows * width + i;
      const float* p =
          part + (second * (a.at_once / 2) + column / kPairRows) * of_pair + row * kPartWidth + column % kPairRows;
      float y = begins ? 0.0f : *before;
#pragma unroll 4
      for (uint32_t seg = 0; seg < segments; ++seg) y = y + p[seg * of_segment];
      if (!ends) *before = y;
      return y;
    };
    float y = total(0);
    const float up = a.swiglu ? total(1) : 0.0f;
    if (!ends) continue;
    if (a.out.q) {
      store_block(a.out, row, n / 32, quantize_block(silu_times(y, up)));
      continue;
    }
    if (column >= round.tiles * kGroupRows || n >= job.n) continue;
    if (job.bias) y = y + job.bias[n];
    if (a.swiglu) y = silu_times(y, up);
    float* to = job.y + uint64_t(row) * job.n + n;
    *to = job.add ? *to + y : y;
  }
}

template <uint32_t kType, uint32_t kPairs>
__global__ void __launch_bounds__(kWarps * 32, 2) gemm_chunked_kernel(const __grid_constant__ Args a) {
  extern __shared__ __align__(128) uint8_t memory[];
  const Shared s = carve(memory, a);
  const uint32_t warp = threadIdx.x / 32, nb = a.cols / 32;
  const bool whole_segments = a.cols % kSegment == 0;

  pdl_launch_dependents();
  // What is fetched next, by the first warp.
  uint32_t next_round = blockIdx.x, next_chunk = 0;
  const auto advance = [&] {
    if (++next_chunk == a.chunks) next_chunk = 0, next_round += gridDim.x;
  };
  if (warp == 0) {
#if __CUDA_ARCH__ >= 900
    if (threadIdx.x == 0) {
      for (uint32_t i = 0; i < a.stages; ++i)
        asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(s.ring.full + i)) : "memory");
      asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncwarp();
#endif
    // Weights depend on nobody.
    for (uint32_t i = 0; i < a.stages; ++i, advance()) fetch_chunk(a, s.ring, next_round, next_chunk, i);
  }
  __syncthreads();
  pdl_wait();

  uint32_t stage = 0, parity = 0, turn = 0;
  for (uint32_t at = blockIdx.x; at < a.rounds; at += gridDim.x) {
    const Round round = find_round(a, at);
    for (uint32_t chunk = 0; chunk < a.chunks; ++chunk, ++turn) {
      const uint32_t blocks = blocks_of(a, chunk), segments = segments_in(a, chunk);
      float* part = s.part + (a.buffers == 2 ? turn % 2 : 0) * s.buffer;
      wait_full(s.ring, stage, parity);
      const uint32_t of_segment = part_of(a), of_pair = a.chunk * of_segment;
      uint32_t pair = 0, seg = warp;
#pragma unroll 1
      for (;; seg += kWarps) {
        for (; seg >= segments; seg -= segments) pair += kPairs;
        if (pair >= pairs_of(a)) break;
        const bool second = pair * 2 >= a.at_once;
        const uint32_t job_index = second ? 1 : round.job, first = pair * 2 - (second ? a.at_once : 0);
        const Job& job = a.jobs[job_index];
        if (first >= round.tiles) continue;
        const uint32_t of_tile = tile_bytes_of(a.planes[job_index], blocks);
        const uint8_t* staged =
            s.ring.stages + stage * a.stage_bytes + (second ? a.at_once * tile_bytes_of(a.planes[0], blocks) : 0);
        TileSource tiles[2 * kPairs];
        bool whole = whole_segments;
#pragma unroll
        for (uint32_t i = 0; i < 2 * kPairs; ++i) {
          // A tile that is not there is its neighbor again; nobody uses what it gives.
          const uint32_t tile = min(first + i, round.tiles - 1), group = round.tile + tile;
          const uint32_t in_group = min(kGroupRows, job.n - group * kGroupRows);
          if (kStaged && in_group == kGroupRows) tiles[i] = {staged + tile * of_tile, in_group, blocks, seg};
          else tiles[i] = {job.data + uint64_t(group) * job.tile_bytes, in_group, nb, chunk * a.chunk + seg};
          whole = whole && in_group == kGroupRows;
        }
        float* to = part + pair * of_pair + seg * of_segment;
        const uint32_t in_segment = min(kSegmentBlocks, blocks - seg * kSegmentBlocks);
        const auto run = [&]<TensorType T>() {
          const uint32_t here = chunk * a.chunk + seg;
          if (whole) multiply<T, kPairs, true>(tiles, a.in, here, in_segment, to, of_pair);
          else multiply<T, kPairs, false>(tiles, a.in, here, in_segment, to, of_pair);
        };
        if constexpr (kType == kAnyType) formats::with_format(job.type, run);
        else run.template operator()<TensorType(kType)>();
      }
      __syncthreads();
      if (warp == 0) {
        fetch_chunk(a, s.ring, next_round, next_chunk, stage);
        advance();
      }
      finish_chunk(a, s, round, part, segments, chunk == 0, chunk + 1 == a.chunks);
      if (a.buffers == 1) __syncthreads();
      if (++stage == a.stages) stage = 0, parity ^= 1;
    }
  }
}

using Kernel = void (*)(Args);

template <uint32_t kType>
Kernel kernel_of(uint32_t pairs) {
  static const bool ready = [] {
    const int bytes = int(processor().shared_bytes);
    ORCD_CUDA(cudaFuncSetAttribute(gemm_chunked_kernel<kType, 1>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    ORCD_CUDA(cudaFuncSetAttribute(gemm_chunked_kernel<kType, 2>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    return true;
  }();
  (void)ready;
  return pairs == 1 ? gemm_chunked_kernel<kType, 1> : gemm_chunked_kernel<kType, 2>;
}

// A kernel of its own for the common types, and one for the others and for jobs that mix them.
Kernel choose(const Args& a, uint32_t pairs) {
  for (uint32_t i = 1; i < a.n_jobs; ++i)
    if (a.jobs[i].type != a.jobs[0].type) return kernel_of<kAnyType>(pairs);
  switch (a.jobs[0].type) {
    case TensorType::kQ4_0: return kernel_of<uint32_t(TensorType::kQ4_0)>(pairs);
    case TensorType::kQ5_0: return kernel_of<uint32_t(TensorType::kQ5_0)>(pairs);
    case TensorType::kQ8_0: return kernel_of<uint32_t(TensorType::kQ8_0)>(pairs);
    case TensorType::kQ4_K: return kernel_of<uint32_t(TensorType::kQ4_K)>(pairs);
    case TensorType::kQ5_K: return kernel_of<uint32_t(TensorType::kQ5_K)>(pairs);
    case TensorType::kQ6_K: return kernel_of<uint32_t(TensorType::kQ6_K)>(pairs);
    default: return kernel_of<kAnyType>(pairs);
  }
}

struct Plan {
  Args a;
  uint32_t grid, pairs, shared_bytes;
};

// Chunks of so many segments: whether two blocks that share a processor have room for them.
bool try_chunk(Args& a, uint32_t chunk, uint32_t segments, uint32_t bytes_a_block) {
  a.chunk = chunk;
  a.chunks = (segments + chunk - 1) / chunk;
  a.stage_bytes = (chunk * kSegmentBlocks * bytes_a_block + 127) / 128 * 128;
  for (a.buffers = 2; a.buffers >= 1; --a.buffers)
    for (a.stages = kMaxStages; a.stages >= 2; --a.stages)
      if (carve(nullptr, a).bytes <= processor().shared_bytes / 2 - 1024) return true;
  a.buffers = 1, a.stages = 2;
  return false;
}

Plan plan(const MatmulJob* jobs, uint32_t n_jobs, uint32_t rows, bool swiglu) {
  Args a = {};
  a.n_jobs = n_jobs;
  a.cols = jobs[0].w.cols;
  a.swiglu = swiglu;
  a.rows = rows;
  a.at_once = swiglu ? kQuantBlock / kGroupRows : 2;
  // Two pairs a warp share what it loads of the rows; with more rows than these there is no room for what they give.
  const uint32_t pairs = swiglu && rows > 16 && rows <= 32 ? 2 : 1;
  add_jobs(a, jobs);
  uint32_t bytes_a_block = 0;  // of a round
  for (uint32_t i = 0; i < n_jobs; ++i) {
    formats::with_format(jobs[i].w.type, [&]<TensorType T>() { a.planes[i] = kPlanes<T>; });
    const uint32_t bytes = a.at_once * tile_bytes_of(a.planes[i], 8) / 8;
    bytes_a_block = swiglu ? bytes_a_block + bytes : max(bytes_a_block, bytes);
  }
  const uint32_t segments = segments_of(a.cols);
  uint32_t chunk = min((segments + 1) / 2 * 2, max(2u, kTargetUnits * pairs / pairs_of(a) / 2 * 2));
  while (!try_chunk(a, chunk, segments, bytes_a_block) && chunk > 2) chunk -= 2;
  return {a, min(a.rounds, 2 * processor().count), pairs, carve(nullptr, a).bytes};
}

}  // namespace

bool gemm_chunked_fits(const Tensor* weights, uint32_t n_jobs, uint32_t rows, bool swiglu) {
  MatmulJob jobs[3];
  for (uint32_t i = 0; i < n_jobs; ++i) jobs[i].w = weights[i];
  return rows <= kSmallM && plan(jobs, n_jobs, rows, swiglu).shared_bytes <= processor().shared_bytes;
}

void gemm_chunked(const MatmulJob* jobs, uint32_t n_jobs, const TiledActivations& input, uint32_t rows,
                  const TiledActivations* swiglu, bool pdl, cudaStream_t stream) {
  Plan p = plan(jobs, n_jobs, rows, swiglu);
  p.a.in = input;
  if (swiglu) p.a.out = *swiglu;
  launch_kernel(choose(p.a, p.pairs), {p.grid, kWarps * 32, p.shared_bytes}, pdl, stream, p.a);
}

// By bench_products on an H100: chunks are faster, unless there are so few weight rows that some processors have none while
// the others go through many chunks, and but for many rows of 8-bit weights.
static bool is_faster_chunked(const Tensor* weights, uint32_t n_jobs, uint32_t rows) {
  uint32_t tiles = 0;
  for (uint32_t i = 0; i < n_jobs; ++i) tiles += tiles_of(weights[i].rows);
  if (rows > 16 && weights[0].type == TensorType::kQ8_0) return false;
  return tiles >= 2 * processor().count || segments_of(weights[0].cols) <= kTargetUnits;
}

void gemm_few_rows(const MatmulJob* jobs, uint32_t n_jobs, const TiledActivations& input, uint32_t rows,
                   const TiledActivations* swiglu, bool pdl, cudaStream_t stream) {
  Tensor weights[3];
  for (uint32_t i = 0; i < n_jobs; ++i) weights[i] = jobs[i].w;
  const bool whole =
      !is_faster_chunked(weights, n_jobs, rows) && gemm_small_m_fits(weights, n_jobs, rows, swiglu != nullptr);
  (whole ? gemm_small_m : gemm_chunked)(jobs, n_jobs, input, rows, swiglu, pdl, stream);
}

bool gemm_few_rows_fits(const Tensor* weights, uint32_t n_jobs, uint32_t rows, bool swiglu) {
  return gemm_small_m_fits(weights, n_jobs, rows, swiglu) || gemm_chunked_fits(weights, n_jobs, rows, swiglu);
}

}  // namespace orcd::kernels
