// Products on one row, for decoding a single sequence. Tiles come through a ring as in tiles.cuh; a warp
// takes one segment of a tile, lane 8j + r block j of row r. With SwiGLU it takes that of both matrices.
#include "device/check.h"
#include "kernels/overlap.h"
#include "kernels/prologue.cuh"
#include "kernels/tiles.cuh"

namespace orcd::kernels {
namespace {

constexpr uint32_t kMaxWarps = 21;

struct Args : ProductArgs {
  MatvecInput input;
};

// The activations in shared memory.
struct SharedActivations {
  int8_t* q;      // (cols)
  float* d;       // (nb)
  int32_t* sum;   // (nb)
  int32_t* half;  // (nb)
};

// What a block holds in shared memory; sizes follow from the arguments.
struct Shared {
  Ring ring;
  SharedActivations a;
  float* part;          // (2, tiles of a round, segments, 8)
  uint32_t buffer;      // floats of one of both
  uint32_t bytes;
};

__host__ __device__ inline Shared carve(uint8_t* base, const ProductArgs& a) {
  const uint32_t nb = a.cols / 32;
  Carver c = {base};
  Shared s;
  s.ring.stages = c.take<uint8_t>(a.stages * a.stage_bytes);
  s.ring.full = c.take<uint64_t>(kMaxStages);
  s.a.q = c.take<int8_t>(a.cols);
  s.a.d = c.take<float>(nb);
  s.a.sum = c.take<int32_t>(nb);
  s.a.half = c.take<int32_t>(nb);
  s.buffer = a.at_once * (a.swiglu ? 2 : 1) * segments_of(a.cols) * kGroupRows;
  s.part = c.take<float>(2 * s.buffer);
  s.bytes = c.at;
  return s;
}

// Quantises pieces of 128 values, spread over the warps. `value(k)` gives four values.
template <class Value>
__device__ __forceinline__ void quantise_all(const Args& a, const Shared& s, Value value) {
  const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
#pragma unroll 2
  for (uint32_t piece = warp; piece < (a.cols + 127) / 128; piece += warps) {
    const uint32_t k = piece * 128 + lane * 4;
    // The eight lanes of a block are inside together; the others take part in the exchange only.
    const bool inside = k < a.cols;
    const FourQuantised four = quantise_four(inside ? value(k) : float4{});
    if (inside) *reinterpret_cast<uint32_t*>(s.a.q + k) = four.q;
    if (inside && lane % 8 == 0) {
      s.a.d[k / 32] = four.d;
      s.a.sum[k / 32] = four.sum;
      s.a.half[k / 32] = four.half;
    }
  }
}

// Norm weights of this warp's first piece, fetched before the kernel before has ended.
__device__ __forceinline__ float4 early_weight(const Args& a) {
  const uint32_t k = threadIdx.x / 32 * 128 + threadIdx.x % 32 * 4;
  return a.input.kind == Input::kNorm && k < a.cols ? load4(a.input.weight + k) : float4{};
}

// Fills q, d, sum and half in shared memory.
__device__ __forceinline__ void prepare_input(const Args& a, const Shared& s, const float4& first_weight) {
  const uint32_t nb = a.cols / 32, warp = threadIdx.x / 32;
  if (a.input.kind == Input::kGiven) {
    for (uint32_t i = threadIdx.x; i < a.cols / 16; i += blockDim.x)
      reinterpret_cast<uint4*>(s.a.q)[i] = reinterpret_cast<const uint4*>(a.input.a.q)[i];
    for (uint32_t i = threadIdx.x; i < nb; i += blockDim.x) {
      s.a.d[i] = a.input.a.d[i];
      s.a.sum[i] = a.input.a.sum[i];
      s.a.half[i] = a.input.a.half[i];
    }
  } else if (a.input.kind == Input::kQuantise) {
    quantise_all(a, s, [&](uint32_t k) { return load4(a.input.a.x + k); });
  } else if (warp * 128 < a.cols) {
    const float* x = a.input.x + uint64_t(a.input.pick ? a.input.pick[0] : 0) * a.cols;
    const float inverse = inverse_rms4(x, a.cols, a.input.eps);  // by each warp that quantises
    quantise_all(a, s, [&](uint32_t k) {
      return normed4(load4(x + k), inverse, k / 128 == warp ? first_weight : load4(a.input.weight + k));
    });
  }
}

// One block of one row: what it adds to the row's chain.
struct Step {
  float scale, total;   // of d
  float addend, sum;    // of m
};

template <TensorType T, bool kWhole>
__device__ __forceinline__ Step block_step(const uint8_t* group, uint32_t group_rows, uint32_t seg, uint32_t nb,
                                           const Shared& s) {
  const uint32_t lane = threadIdx.x % 32, j = lane / 8, r = lane % 8, b = seg * kSegmentBlocks + j;
  if (b >= nb || (!kWhole && r >= group_rows)) return {};
  const WeightBlock<T> w = load_block<T, kWhole>(group, group_rows, nb, b, r);
  const uint4* q = reinterpret_cast<const uint4*>(s.a.q + b * 32);
  const float d = s.a.d[b];
  const int32_t sum = kAffine<T> || kOffset<T> != 0 ? s.a.sum[b] : 0;
  const int32_t total = dot(w, q[0], q[1], sum, T == TensorType::kQ6_K ? s.a.half[b] : 0);
  return {w.d * d, float(total), kAffine<T> ? w.m * d : 0.0f, kAffine<T> ? float(sum) : 0.0f};
}

// The chain of a segment; lanes r < 8 have row r's.
template <TensorType T>
__device__ __forceinline__ float chain(const Step& own, uint32_t blocks) {
  const uint32_t r = threadIdx.x % 8;
  float acc = 0.0f;
#pragma unroll
  for (uint32_t i = 0; i < kSegmentBlocks; ++i) {
    const float scale = __shfl_sync(kFull, own.scale, i * 8 + r), total = __shfl_sync(kFull, own.total, i * 8 + r);
    if (i < blocks) acc = arith::fma32(scale, total, acc);
    if constexpr (kAffine<T>) {
      const float addend = __shfl_sync(kFull, own.addend, i * 8 + r), sum = __shfl_sync(kFull, own.sum, i * 8 + r);
      if (i < blocks) acc = arith::fma32(addend, sum, acc);
    }
  }
  return acc;
}

// One segment of one tile: part[r].
template <TensorType T>
__device__ __forceinline__ void segment(const TileView& v, uint32_t seg, uint32_t nb, const Shared& s, float* part) {
  const Step own = v.rows == kGroupRows ? block_step<T, true>(kStaged ? v.in_shared : v.in_device, kGroupRows, seg, nb, s)
                                        : block_step<T, false>(v.in_device, v.rows, seg, nb, s);
  const float acc = chain<T>(own, min(kSegmentBlocks, nb - seg * kSegmentBlocks));
  if (threadIdx.x % 32 < kGroupRows) part[threadIdx.x % 32] = acc;
}

// The same for whole tiles of two matrices of one type: two chains of instructions side by side.
template <TensorType T>
__device__ __forceinline__ void segment_pair(const TileView& v, const TileView& w, uint32_t seg, uint32_t nb, const Shared& s,
                                             float* part, float* second_part) {
  const Step own = block_step<T, true>(kStaged ? v.in_shared : v.in_device, kGroupRows, seg, nb, s);
  const Step more = block_step<T, true>(kStaged ? w.in_shared : w.in_device, kGroupRows, seg, nb, s);
  const uint32_t lane = threadIdx.x % 32, blocks = min(kSegmentBlocks, nb - seg * kSegmentBlocks);
  const float acc = chain<T>(own, blocks), second = chain<T>(more, blocks);
  if (lane < kGroupRows) part[lane] = acc, second_part[lane] = second;
}

// What finish_round will add to, fetched while the products are computed.
__device__ __forceinline__ float residual_of(const ProductArgs& a, const Round& round) {
  const Job& job = a.jobs[round.job];
  const uint32_t n = round.tile * kGroupRows + threadIdx.x;
  return job.add && threadIdx.x < round.tiles * kGroupRows && n < job.n ? job.y[n] : 0.0f;
}

// The results of a round: eight threads a tile.
__device__ __forceinline__ void finish_round(const ProductArgs& a, const Round& round, const float* part, float residual) {
  const Job& job = a.jobs[round.job];
  const uint32_t i = threadIdx.x, n = round.tile * kGroupRows + i, segments = segments_of(a.cols);
  if (i >= round.tiles * kGroupRows || n >= job.n) return;
  const auto total = [&](uint32_t second) {
    const float* p = part + (second * a.at_once + i / kGroupRows) * segments * kGroupRows + i % kGroupRows;
    float y = 0.0f;
#pragma unroll 8
    for (uint32_t seg = 0; seg < segments; ++seg) y = y + p[seg * kGroupRows];
    return y;
  };
  float y = total(0);
  if (job.bias) y = y + job.bias[n];
  if (a.swiglu) y = silu_times(y, total(1));
  job.y[n] = job.add ? residual + y : y;
}

template <uint32_t kType>
__global__ void __launch_bounds__(kMaxWarps * 32) matvec_kernel(const __grid_constant__ Args a) {
  extern __shared__ __align__(128) uint8_t memory[];
  const Shared s = carve(memory, a);
  const uint32_t warp = threadIdx.x / 32, warps = blockDim.x / 32, nb = a.cols / 32, segments = segments_of(a.cols);

  let_successor_start();
  if (threadIdx.x == 0) start_ring(a, s.ring);
  const float4 first_weight = early_weight(a);
  wait_for_predecessor();
  prepare_input(a, s, first_weight);
  __syncthreads();

  uint32_t stage = 0, parity = 0, turn = 0;
  for (uint32_t at = blockIdx.x; at < a.rounds; at += gridDim.x, ++turn) {
    const Round round = find_round(a, at);
    float* part = s.part + turn % 2 * s.buffer;
    const float residual = residual_of(a, round);
    wait_full(s.ring, stage, parity);
    uint32_t tile = 0, seg = warp;
    for (;; seg += warps) {
      for (; seg >= segments; seg -= segments) ++tile;  // few tiles: cheaper than a division
      if (tile >= round.tiles) break;
      const TileView first = view_tile(a, s.ring, round, stage, false, tile), more = view_tile(a, s.ring, round, stage, true, tile);
      float* to = part + (tile * segments + seg) * kGroupRows;
      float* to_more = to + a.at_once * segments * kGroupRows;
      if constexpr (kType == kAnyType) {
        with_type(first.type, [&]<TensorType T>() { segment<T>(first, seg, nb, s, to); });
        if (a.swiglu) with_type(more.type, [&]<TensorType T>() { segment<T>(more, seg, nb, s, to_more); });
      } else if (a.swiglu && first.rows == kGroupRows) {
        segment_pair<TensorType(kType)>(first, more, seg, nb, s, to, to_more);
      } else {
        segment<TensorType(kType)>(first, seg, nb, s, to);
        if (a.swiglu) segment<TensorType(kType)>(more, seg, nb, s, to_more);
      }
    }
    __syncthreads();
    if (threadIdx.x == blockDim.x - 32) fetch(a, s.ring, at + a.stages * gridDim.x, stage);  // not by who finishes
    finish_round(a, round, part, residual);
    if (++stage == a.stages) stage = 0, parity ^= 1;
  }
}

using Kernel = void (*)(Args);

template <uint32_t kType>
Kernel kernel_of() {
  static const bool ready = [] {
    ORCD_CUDA(cudaFuncSetAttribute(matvec_kernel<kType>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   int(processor().shared_bytes)));
    return true;
  }();
  (void)ready;
  return matvec_kernel<kType>;
}

// A kernel of its own for the common types, and one for the others and for jobs that mix them.
Kernel choose(const ProductArgs& a) {
  for (uint32_t i = 1; i < a.n_jobs; ++i)
    if (a.jobs[i].type != a.jobs[0].type) return kernel_of<kAnyType>();
  switch (a.jobs[0].type) {
    case TensorType::kQ4_0: return kernel_of<uint32_t(TensorType::kQ4_0)>();
    case TensorType::kQ5_0: return kernel_of<uint32_t(TensorType::kQ5_0)>();
    case TensorType::kQ8_0: return kernel_of<uint32_t(TensorType::kQ8_0)>();
    case TensorType::kQ4_K: return kernel_of<uint32_t(TensorType::kQ4_K)>();
    case TensorType::kQ5_K: return kernel_of<uint32_t(TensorType::kQ5_K)>();
    case TensorType::kQ6_K: return kernel_of<uint32_t(TensorType::kQ6_K)>();
    default: return kernel_of<kAnyType>();
  }
}

}  // namespace

bool matvec_fits(const TensorType* types, uint32_t n_jobs, uint32_t cols, bool swiglu) {
  return carve(nullptr, smallest_product(types, n_jobs, cols, swiglu)).bytes <= processor().shared_bytes;
}

void matvec(const MatvecJob* jobs, uint32_t n_jobs, const MatvecInput& input, bool swiglu, bool overlap,
            cudaStream_t stream) {
  TensorType types[3];
  uint32_t tiles = 0;
  for (uint32_t i = 0; i < n_jobs; ++i) {
    types[i] = jobs[i].w.type;
    if (i == 0 || !swiglu) tiles += tiles_of(jobs[i].w.rows);
  }
  Args a = {smallest_product(types, n_jobs, jobs[0].w.cols, swiglu), input};
  const uint32_t count = processor().count, limit = processor().shared_bytes;

  // So many tiles a round that each processor has one round, where the warps can take them in two goes: what
  // a round costs beside the products comes once.
  const uint32_t segments = segments_of(a.cols), single_stage = a.stage_bytes;
  const uint32_t most = max(1u, 2 * kMaxWarps / segments), each = (tiles + count - 1) / count;
  a.at_once = tiles <= 2 * count ? 1 : each <= most ? each : min(4u, most);
  while (a.at_once > 1 && a.at_once * single_stage * 2 > limit / 2) --a.at_once;
  a.stage_bytes = single_stage * a.at_once;
  add_jobs(a, jobs);
  const uint32_t grid = min(a.rounds, count * (tiles > 2 * count ? 1 : 2));
  a.stages = min((a.rounds + grid - 1) / grid, kMaxStages);
  while (a.stages > 1 && carve(nullptr, a).bytes > limit) --a.stages;

  const uint32_t items = segments * a.at_once, shares = (items + kMaxWarps - 1) / kMaxWarps;
  const uint32_t warps = max(4u, (items + shares - 1) / shares);
  launch_kernel(choose(a), {grid, warps * 32, carve(nullptr, a).bytes}, overlap, stream, a);
}

}  // namespace orcd::kernels
