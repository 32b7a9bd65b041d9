// Products on one row, for decoding a single sequence. Tiles come through a ring as in tiles.cuh; eight lanes
// take a segment of a tile, a row each. Such kernels are bound by the length of their chain of dependent
// instructions: what can be known before the kernel before has ended is found out there, all loads come before
// the first use, and the sums need no exchange between lanes.
#include "device/check.h"
#include "kernels/pdl.h"
#include "kernels/prologue.cuh"
#include "kernels/tiles.cuh"

namespace orcd::kernels {
namespace {

constexpr uint32_t kMaxWarps = 20;

struct Args : ProductArgs {
  GemvInput input;
};

// The activations in shared memory.
struct SharedActivations {
  int8_t* q;          // (cols)
  float* d;           // (nb)
  int32_t* sum;       // (nb)
  int32_t* sum_lo16;  // (nb)
};

// What a block holds in shared memory; sizes follow from the arguments.
struct Shared {
  Ring ring;
  SharedActivations a;
  float* part;      // (2, tiles of a round, segments, 8)
  uint32_t buffer;  // floats of one of both
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
  s.a.sum_lo16 = c.take<int32_t>(nb);
  s.buffer = a.at_once * (a.swiglu ? 2 : 1) * segments_of(a.cols) * kGroupRows;
  s.part = c.take<float>(2 * s.buffer);
  s.bytes = c.at;
  return s;
}

// Quantizes pieces of 128 values, spread over the warps. `value(k, own)` gives four values of the input;
// `own`: of the warp's first piece.
template <uint32_t kAhead, class Value>
__device__ __forceinline__ void quantize_all(const Args& a, const Shared& s, Value value) {
  const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
  for (uint32_t piece = warp; piece * 128 < a.cols; piece += kAhead * warps) {
    float4 v[kAhead];  // all loads before the first use
#pragma unroll
    for (uint32_t i = 0; i < kAhead; ++i) {
      const uint32_t k = (piece + i * warps) * 128 + lane * 4;
      v[i] = k < a.cols ? value(k, piece == warp && i == 0) : float4{};
    }
#pragma unroll
    for (uint32_t i = 0; i < kAhead; ++i) {
      const uint32_t k = (piece + i * warps) * 128 + lane * 4;
      // The eight lanes of a block are inside together; the others take part in the exchange only.
      const FourQuantized four = quantize_four(v[i]);
      if (k >= a.cols) continue;
      *reinterpret_cast<uint32_t*>(s.a.q + k) = four.q;
      if (lane % 8) continue;
      s.a.d[k / 32] = four.d;
      s.a.sum[k / 32] = four.sum;
      s.a.sum_lo16[k / 32] = four.sum_lo16;
    }
  }
}

// Norm weights of this warp's first piece, fetched before the kernel before has ended.
__device__ __forceinline__ float4 early_weight(const Args& a) {
  const uint32_t k = threadIdx.x / 32 * 128 + threadIdx.x % 32 * 4;
  return a.input.kind == Input::kNorm && k < a.cols ? load4(a.input.weight + k) : float4{};
}

// Fills q, d, sum and sum_lo16 in shared memory.
__device__ __forceinline__ void prepare_input(const Args& a, const Shared& s, const float4& first_weight) {
  const uint32_t nb = a.cols / 32, warp = threadIdx.x / 32;
  if (a.input.kind == Input::kGiven) {
    for (uint32_t i = threadIdx.x; i < a.cols / 16; i += blockDim.x) {
      const bool block = i < nb;  // all loads before the first use
      const uint4 q = reinterpret_cast<const uint4*>(a.input.a.q)[i];
      const float d = block ? a.input.a.d[i] : 0.0f;
      const int32_t sum = block ? a.input.a.sum[i] : 0, sum_lo16 = block ? a.input.a.sum_lo16[i] : 0;
      reinterpret_cast<uint4*>(s.a.q)[i] = q;
      if (block) s.a.d[i] = d, s.a.sum[i] = sum, s.a.sum_lo16[i] = sum_lo16;
    }
  } else if (a.input.kind == Input::kQuantize) {
    quantize_all<2>(a, s, [&](uint32_t k, bool) { return load4(a.input.a.x + k); });
  } else if (warp * 128 < a.cols) {
    const float* x = a.input.x + uint64_t(a.input.gather ? a.input.gather[0] : 0) * a.cols;
    const uint32_t own_k = warp * 128 + threadIdx.x % 32 * 4;
    const float4 first = own_k < a.cols ? load4(x + own_k) : float4{};
    const float inverse = inverse_rms4(x, a.cols, a.input.eps);  // by each warp that quantizes
    quantize_all<1>(a, s, [&](uint32_t k, bool own) {
      return own ? normed4(first, inverse, first_weight) : normed4(load4(x + k), inverse, load4(a.input.weight + k));
    });
  }
}

// One row of one segment of a tile: the chain over its blocks, in order. By eight lanes, a row each.
template <TensorType T>
__device__ __forceinline__ void segment(const TileView& v, uint32_t seg, uint32_t nb, const Shared& s, float* part) {
  const uint32_t r = threadIdx.x % kGroupRows, first = seg * kSegmentBlocks, blocks = min(kSegmentBlocks, nb - first);
  float acc = 0.0f;
  const auto add = [&](const WeightBlock<T>& w, uint32_t b, float d, int32_t sum, int32_t sum_lo16) {
    const uint4* q = reinterpret_cast<const uint4*>(s.a.q + b * 32);
    acc = arith::fma32(w.d * d, float(dot(w, q[0], q[1], sum, sum_lo16)), acc);
    if constexpr (kAffine<T>) acc = arith::fma32(w.m * d, float(sum), acc);
  };
  const bool whole = v.rows == kGroupRows;
  const uint8_t* group = kStaged && whole ? v.in_shared : v.in_device;
  if (whole && blocks == kSegmentBlocks) {
    RawBlock raw[kSegmentBlocks];
    load_segment<T>(group, nb, seg, r, raw);
    const float4 scales = *reinterpret_cast<const float4*>(s.a.d + first);
    const int4 sums = *reinterpret_cast<const int4*>(s.a.sum + first),
               halves = *reinterpret_cast<const int4*>(s.a.sum_lo16 + first);
    add(unpack<T>(raw[0], first), first, scales.x, sums.x, halves.x);
    add(unpack<T>(raw[1], first + 1), first + 1, scales.y, sums.y, halves.y);
    add(unpack<T>(raw[2], first + 2), first + 2, scales.z, sums.z, halves.z);
    add(unpack<T>(raw[3], first + 3), first + 3, scales.w, sums.w, halves.w);
  } else if (r < v.rows) {
#pragma unroll 1
    for (uint32_t b = first; b < first + blocks; ++b) {
      const WeightBlock<T> w =
          whole ? load_block<T, true>(group, kGroupRows, nb, b, r) : load_block<T, false>(group, v.rows, nb, b, r);
      add(w, b, s.a.d[b], s.a.sum[b], s.a.sum_lo16[b]);
    }
  }
  part[r] = acc;
}

// What finish_round will add to, fetched while the products are computed.
__device__ __forceinline__ float residual_of(const ProductArgs& a, const Round& round) {
  const Job& job = a.jobs[round.job];
  const uint32_t n = round.tile * kGroupRows + threadIdx.x;
  return job.add && threadIdx.x < round.tiles * kGroupRows && n < job.n ? job.y[n] : 0.0f;
}

// The same of the bias, which depends on no other kernel.
__device__ __forceinline__ float bias_of(const ProductArgs& a, const Round& round) {
  const Job& job = a.jobs[round.job];
  const uint32_t n = round.tile * kGroupRows + threadIdx.x;
  return job.bias && threadIdx.x < round.tiles * kGroupRows && n < job.n ? job.bias[n] : 0.0f;
}

// The results of a round: eight threads a tile.
__device__ __forceinline__ void finish_round(const ProductArgs& a, const Round& round, const float* part, float bias,
                                             float residual) {
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
  if (job.bias) y = y + bias;
  if (a.swiglu) y = silu_times(y, total(1));
  job.y[n] = job.add ? residual + y : y;
}

// The jobs' types: kType, and kOther if that is another one, or any.
template <uint32_t kType, uint32_t kOther, bool kSwiglu>
__global__ void __launch_bounds__(kMaxWarps * 32, 1 /* registers rather than blocks */)
    gemv_kernel(const __grid_constant__ Args a) {
  extern __shared__ __align__(128) uint8_t memory[];
  const Shared s = carve(memory, a);
  const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32, nb = a.cols / 32;
  // Eight lanes take a segment; neighbors in a warp take what is `warps` segments apart, so that all warps
  // have work.
  const uint32_t segments = segments_of(a.cols), own = lane / kGroupRows * warps + warp;
  const uint32_t own_tile = own / segments, own_seg = own % segments;

  pdl_launch_dependents();
  if (threadIdx.x == 0) start_ring(a, s.ring);
  const float4 first_weight = early_weight(a);
  Round round = find_round(a, blockIdx.x);  // there are no more blocks than rounds
  float bias = bias_of(a, round);
  pdl_wait();
  prepare_input(a, s, first_weight);
  __syncthreads();

  uint32_t stage = 0, parity = 0, turn = 0;
  for (uint32_t at = blockIdx.x;;) {
    float* part = s.part + turn % 2 * s.buffer;
    const float residual = residual_of(a, round);
    wait_full(s.ring, stage, parity);
    // With SwiGLU the second matrix's tiles come behind a.at_once of the first.
    const uint32_t end = kSwiglu ? a.at_once + round.tiles : round.tiles;
    uint32_t tile = own_tile, seg = own_seg;
    while (tile < end) {
      const bool second = kSwiglu && tile >= a.at_once;
      const TileView v = view_tile(a, s.ring, round, stage, second, second ? tile - a.at_once : tile);
      float* to = part + (tile * segments + seg) * kGroupRows;
      if (!kSwiglu || second || tile < round.tiles) {
        if constexpr (kType == kAnyType) {
          formats::with_format(v.type, [&]<TensorType T>() { segment<T>(v, seg, nb, s, to); });
        } else {
          if (kType == kOther || v.type == TensorType(kType)) segment<TensorType(kType)>(v, seg, nb, s, to);
          else segment<TensorType(kOther)>(v, seg, nb, s, to);
        }
      }
      for (seg += 32 / kGroupRows * warps; seg >= segments; seg -= segments) ++tile;  // cheaper than a division
    }
    __syncthreads();
    if (threadIdx.x == blockDim.x - 32) fetch(a, s.ring, at + a.stages * gridDim.x, stage);  // not by who finishes
    finish_round(a, round, part, bias, residual);
    if ((at += gridDim.x) >= a.rounds) break;
    round = find_round(a, at);
    bias = bias_of(a, round);
    if (++stage == a.stages) stage = 0, parity ^= 1;
    ++turn;
  }
}

using Kernel = void (*)(Args);

template <uint32_t kType, uint32_t kOther, bool kSwiglu>
Kernel kernel_of() {
  static const bool ready = [] {
    ORCD_CUDA(cudaFuncSetAttribute(gemv_kernel<kType, kOther, kSwiglu>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   int(processor().shared_bytes)));
    return true;
  }();
  (void)ready;
  return gemv_kernel<kType, kOther, kSwiglu>;
}

template <TensorType kType>
Kernel kernel_of(bool swiglu) {
  constexpr uint32_t type = uint32_t(kType);
  return swiglu ? kernel_of<type, type, true>() : kernel_of<type, type, false>();
}

// A kernel of its own for the common types and pairs of types, and one for all else.
Kernel choose(const ProductArgs& a) {
  TensorType other = a.jobs[0].type;
  bool any = false;
  for (uint32_t i = 1; i < a.n_jobs; ++i) {
    if (a.jobs[i].type == a.jobs[0].type) continue;
    any |= a.swiglu || (other != a.jobs[0].type && other != a.jobs[i].type);
    other = a.jobs[i].type;
  }
  const auto is = [&](TensorType first, TensorType second) {
    return !any && a.jobs[0].type == first && other == second;
  };
  using enum TensorType;
  const bool swiglu = a.swiglu;
  if (is(kQ4_0, kQ4_0)) return kernel_of<kQ4_0>(swiglu);
  if (is(kQ5_0, kQ5_0)) return kernel_of<kQ5_0>(swiglu);
  if (is(kQ8_0, kQ8_0)) return kernel_of<kQ8_0>(swiglu);
  if (is(kQ4_K, kQ4_K)) return kernel_of<kQ4_K>(swiglu);
  if (is(kQ5_K, kQ5_K)) return kernel_of<kQ5_K>(swiglu);
  if (is(kQ6_K, kQ6_K)) return kernel_of<kQ6_K>(swiglu);
  if (is(kQ5_0, kQ8_0)) return kernel_of<uint32_t(kQ5_0), uint32_t(kQ8_0), false>();
  if (is(kQ4_K, kQ6_K)) return kernel_of<uint32_t(kQ4_K), uint32_t(kQ6_K), false>();
  if (is(kQ5_K, kQ6_K)) return kernel_of<uint32_t(kQ5_K), uint32_t(kQ6_K), false>();
  return swiglu ? kernel_of<kAnyType, kAnyType, true>() : kernel_of<kAnyType, kAnyType, false>();
}

}  // namespace

bool gemv_fits(const TensorType* types, uint32_t n_jobs, uint32_t cols, bool swiglu) {
  return carve(nullptr, smallest_product(types, n_jobs, cols, swiglu)).bytes <= processor().shared_bytes;
}

void gemv(const MatmulJob* jobs, uint32_t n_jobs, const GemvInput& input, bool swiglu, bool pdl, cudaStream_t stream) {
  TensorType types[3];
  uint32_t tiles = 0;
  for (uint32_t i = 0; i < n_jobs; ++i) {
    types[i] = jobs[i].w.type;
    if (i == 0 || !swiglu) tiles += tiles_of(jobs[i].w.rows);
  }
  Args a = {smallest_product(types, n_jobs, jobs[0].w.cols, swiglu), input};
  const uint32_t count = processor().count, limit = processor().shared_bytes;

  // So many tiles a round that each processor has one round, where the warps can take them in one go: what a
  // round costs beside the products comes once.
  const uint32_t segments = segments_of(a.cols), single_stage = a.stage_bytes;
  const uint32_t matrices = swiglu ? 2 : 1, most = max(1u, 4 * kMaxWarps / (segments * matrices)),
                 each = (tiles + count - 1) / count;
  a.at_once = tiles <= 2 * count ? 1 : each <= most ? each : min(4u, most);
  while (a.at_once > 1 && a.at_once * single_stage * 2 > limit / 2) --a.at_once;
  a.stage_bytes = single_stage * a.at_once;
  add_jobs(a, jobs);
  const uint32_t grid = min(a.rounds, count * (tiles > 2 * count ? 1 : 2));
  a.stages = min((a.rounds + grid - 1) / grid, kMaxStages);
  while (a.stages > 1 && carve(nullptr, a).bytes > limit) --a.stages;

  // For the round's segments, and for quantizing as many pieces as a row has segments.
  const auto spread = [](uint32_t tasks) {
    const uint32_t goes = (tasks + kMaxWarps - 1) / kMaxWarps;
    return (tasks + goes - 1) / goes;
  };
  const uint32_t warps = max(4u, max(spread(segments), spread((segments * matrices * a.at_once + 3) / 4)));
  launch_kernel(choose(a), {grid, warps * 32, carve(nullptr, a).bytes}, pdl, stream, a);
}

}  // namespace orcd::kernels
