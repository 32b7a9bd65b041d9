// Products on two to kSmallM rows, for decoding several sequences and for short prompts, on int8 matrix
// units. Tiles come through a ring as in tiles.cuh. A warp takes one segment of a tile against all rows;
// what the segments of an output give meets in shared memory and is added there in ascending order.
#include "device/check.h"
#include "kernels/fragments.cuh"
#include "kernels/pdl.h"
#include "kernels/tiles.cuh"

namespace orcd::kernels {
namespace {

constexpr uint32_t kMaxWarps = 14;
constexpr uint32_t kPad = 8;  // floats between the parts of two tiles: keeps reads of neighbors off one bank

struct Args : ProductArgs {
  uint32_t rows;
  TiledActivations in;
  TiledActivations out;  // with SwiGLU: the result
};

// What a block of threads holds in shared memory.
struct Shared {
  Ring ring;
  float* part;      // (buffers, tiles of a round, (segments, rows, 8) and kPad)
  uint32_t buffer;  // floats of a buffer
  uint32_t bytes;
};

__host__ __device__ inline Shared carve(uint8_t* base, const Args& a, uint32_t grid) {
  Carver c = {base};
  Shared s;
  s.ring.stages = c.take<uint8_t>(a.stages * a.stage_bytes);
  s.ring.full = c.take<uint64_t>(kMaxStages);
  s.buffer = a.at_once * (a.swiglu ? 2 : 1) * (segments_of(a.cols) * a.rows * kGroupRows + kPad);
  s.part = c.take<float>((a.rounds > grid ? 2 : 1) * s.buffer);
  s.bytes = c.at;
  return s;
}

// One segment of one tile against all rows: part[row][weight row].
template <TensorType T, bool kEight, bool kWhole>
__device__ __forceinline__ void multiply(const uint8_t* tile, uint32_t tile_rows, uint32_t seg, const Args& a,
                                         float* part) {
  const uint32_t lane = threadIdx.x % 32, g = lane / 4, t = lane % 4, nb = a.cols / 32;
  const uint32_t blocks = kWhole ? kSegmentBlocks : min(kSegmentBlocks, nb - seg * kSegmentBlocks);
  const SegmentWeights<T> w = load_fragments<T, kWhole>(tile, tile_rows, nb, seg);
#pragma unroll 1
  for (uint32_t group = 0; group < a.in.groups; group += kEight ? 1 : 2) {
    float acc[4];
    multiply_segment<T, kEight>(w, a.in, group, seg, blocks, acc);
#pragma unroll
    for (uint32_t i = 0; i < (kEight ? 1 : 2); ++i) {
      const uint32_t row = (group + i) * 8 + g;
      if (row < a.rows) *reinterpret_cast<float2*>(part + row * kGroupRows + 2 * t) = {acc[2 * i], acc[2 * i + 1]};
    }
  }
}

// Output `i` of a round: at_once tiles of eight columns a row.
struct Output {
  uint32_t row, column;  // column: of the round
  uint32_t n;            // of the job
  bool inside;
};

__device__ __forceinline__ Output output_of(const Args& a, const Round& round, uint32_t i) {
  const uint32_t width = a.at_once * kGroupRows, row = i / width, column = i % width;
  const uint32_t n = round.tile * kGroupRows + column;
  return {row, column, n, row < a.rows && column < round.tiles * kGroupRows && n < a.jobs[round.job].n};
}

// What the first output of this thread will be added to, fetched while the products are computed.
__device__ __forceinline__ float residual_of(const Args& a, const Round& round) {
  const Job& job = a.jobs[round.job];
  const Output o = output_of(a, round, threadIdx.x);
  return job.add && o.inside ? job.y[uint64_t(o.row) * job.n + o.n] : 0.0f;
}

// The results of a round. With a.out they leave quantized: then a round is 32 columns wide, a warp has a
// row's block.
__device__ __forceinline__ void finish_round(const Args& a, const Round& round, const float* part, float residual) {
  const Job& job = a.jobs[round.job];
  const uint32_t segments = segments_of(a.cols), step = a.rows * kGroupRows, of_tile = segments * step + kPad;
  for (uint32_t i = threadIdx.x; i < a.rows * a.at_once * kGroupRows; i += blockDim.x) {
    const Output o = output_of(a, round, i);
    const auto total = [&](uint32_t second) {
      const float* p =
          part + (second * a.at_once + o.column / kGroupRows) * of_tile + o.row * kGroupRows + o.column % kGroupRows;
      float y = 0.0f;
#pragma unroll 8
      for (uint32_t seg = 0; seg < segments; ++seg) y = y + p[seg * step];
      return y;
    };
    if (a.out.q) {
      store_block(a.out, o.row, o.n / 32, quantize_block(silu_times(total(0), total(1))));
      continue;
    }
    if (!o.inside) continue;
    float y = total(0);
    if (job.bias) y = y + job.bias[o.n];
    if (a.swiglu) y = silu_times(y, total(1));
    float* to = job.y + uint64_t(o.row) * job.n + o.n;
    *to = job.add ? (i == threadIdx.x ? residual : *to) + y : y;
  }
}

template <uint32_t kType, bool kEight>
__global__ void __launch_bounds__(kMaxWarps * 32, 2) gemm_small_m_kernel(const __grid_constant__ Args a) {
  extern __shared__ __align__(128) uint8_t memory[];
  const Shared s = carve(memory, a, gridDim.x);
  const uint32_t warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const uint32_t segments = segments_of(a.cols), tiles = a.at_once * (a.swiglu ? 2 : 1);
  const bool whole_segments = a.cols % kSegment == 0;

  pdl_launch_dependents();
  if (threadIdx.x == 0) start_ring(a, s.ring);
  __syncthreads();  // the ring's barriers are there
  pdl_wait();

  uint32_t stage = 0, parity = 0, turn = 0;
  for (uint32_t at = blockIdx.x; at < a.rounds; at += gridDim.x, ++turn) {
    const Round round = find_round(a, at);
    float* part = s.part + turn % 2 * s.buffer;
    const float residual = residual_of(a, round);
    wait_full(s.ring, stage, parity);
    uint32_t which = 0, seg = warp;
#pragma unroll 1
    for (;; seg += warps) {
      for (; seg >= segments; seg -= segments) ++which;  // few tiles: cheaper than a division
      if (which >= tiles) break;
      const bool second = which >= a.at_once;
      const uint32_t tile = second ? which - a.at_once : which;
      if (tile >= round.tiles) continue;
      const TileView v = view_tile(a, s.ring, round, stage, second, tile);
      float* to = part + which * (segments * a.rows * kGroupRows + kPad) + seg * a.rows * kGroupRows;
      const auto run = [&]<TensorType T>() {
        const uint8_t* group = kStaged && v.rows == kGroupRows ? v.in_shared : v.in_device;
        if (v.rows == kGroupRows && whole_segments) multiply<T, kEight, true>(group, kGroupRows, seg, a, to);
        else multiply<T, kEight, false>(group, v.rows, seg, a, to);
      };
      if constexpr (kType == kAnyType) formats::with_format(v.type, run);
      else run.template operator()<TensorType(kType)>();
    }
    __syncthreads();
    if (threadIdx.x == blockDim.x - 32) fetch(a, s.ring, at + a.stages * gridDim.x, stage);
    finish_round(a, round, part, residual);
    if (++stage == a.stages) stage = 0, parity ^= 1;
  }
}

using Kernel = void (*)(Args);

template <uint32_t kType>
Kernel kernel_of(bool eight) {
  static const bool ready = [] {
    const int bytes = int(processor().shared_bytes);
    ORCD_CUDA(
        cudaFuncSetAttribute(gemm_small_m_kernel<kType, true>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    ORCD_CUDA(
        cudaFuncSetAttribute(gemm_small_m_kernel<kType, false>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    return true;
  }();
  (void)ready;
  return eight ? gemm_small_m_kernel<kType, true> : gemm_small_m_kernel<kType, false>;
}

// A kernel of its own for the common types, and one for the others and for jobs that mix them.
Kernel choose(const Args& a) {
  const bool eight = a.rows <= 8;
  for (uint32_t i = 1; i < a.n_jobs; ++i)
    if (a.jobs[i].type != a.jobs[0].type) return kernel_of<kAnyType>(eight);
  switch (a.jobs[0].type) {
    case TensorType::kQ4_0: return kernel_of<uint32_t(TensorType::kQ4_0)>(eight);
    case TensorType::kQ5_0: return kernel_of<uint32_t(TensorType::kQ5_0)>(eight);
    case TensorType::kQ8_0: return kernel_of<uint32_t(TensorType::kQ8_0)>(eight);
    case TensorType::kQ4_K: return kernel_of<uint32_t(TensorType::kQ4_K)>(eight);
    case TensorType::kQ5_K: return kernel_of<uint32_t(TensorType::kQ5_K)>(eight);
    case TensorType::kQ6_K: return kernel_of<uint32_t(TensorType::kQ6_K)>(eight);
    default: return kernel_of<kAnyType>(eight);
  }
}

// Tiles a round may take: with SwiGLU the width of a block of the quantized result, else as many as give
// each warp a segment.
uint32_t most_tiles(uint32_t cols, bool swiglu) {
  if (swiglu) return kQuantBlock / kGroupRows;
  return 2 * segments_of(cols) <= kMaxWarps ? 2 : 1;
}

struct Plan {
  Args a;
  uint32_t grid, warps, shared_bytes;
};

Plan plan(const MatmulJob* jobs, uint32_t n_jobs, uint32_t rows, bool swiglu) {
  TensorType types[3];
  uint32_t tiles = 0;
  for (uint32_t i = 0; i < n_jobs; ++i) {
    types[i] = jobs[i].w.type;
    tiles += tiles_of(jobs[i].w.rows);
  }
  const uint32_t count = processor().count, limit = processor().shared_bytes, cols = jobs[0].w.cols;
  Args a = {smallest_product(types, n_jobs, cols, swiglu), rows};
  // Fewer tiles a round where otherwise some processor had none. Two blocks share a processor.
  a.at_once = swiglu || tiles >= 2 * count ? most_tiles(cols, swiglu) : 1;
  a.stage_bytes *= a.at_once;
  add_jobs(a, jobs);
  const uint32_t grid = min(a.rounds, 2 * count), room = a.rounds > count ? limit / 2 : limit;
  a.stages = min((a.rounds + grid - 1) / grid, kMaxStages);
  while (a.stages > 1 && carve(nullptr, a, grid).bytes > room) --a.stages;
  const uint32_t items = segments_of(cols) * a.at_once * (swiglu ? 2 : 1), shares = (items + kMaxWarps - 1) / kMaxWarps;
  return {a, grid, max(4u, (items + shares - 1) / shares), carve(nullptr, a, grid).bytes};
}

}  // namespace

bool gemm_small_m_fits(const Tensor* weights, uint32_t n_jobs, uint32_t rows, bool swiglu) {
  MatmulJob jobs[3];
  for (uint32_t i = 0; i < n_jobs; ++i) jobs[i].w = weights[i];
  return rows <= kSmallM && plan(jobs, n_jobs, rows, swiglu).shared_bytes <= processor().shared_bytes;
}

void gemm_small_m(const MatmulJob* jobs, uint32_t n_jobs, const TiledActivations& input, uint32_t rows,
                  const TiledActivations* swiglu, bool pdl, cudaStream_t stream) {
  Plan p = plan(jobs, n_jobs, rows, swiglu);
  p.a.in = input;
  if (swiglu) p.a.out = *swiglu;
  launch_kernel(choose(p.a), {p.grid, p.warps * 32, p.shared_bytes}, pdl, stream, p.a);
}

}  // namespace orcd::kernels
