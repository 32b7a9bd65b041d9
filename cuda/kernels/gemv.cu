// Products on one row, for decoding a single sequence; a few rows are so many grids of thread blocks. Tiles come
// through a ring as in tiles.cuh; eight lanes take a segment of a tile, a row each; a super-block takes two times
// eight, which exchange their integers once. Such kernels are bound by the length of their chain of dependent
// instructions: what can be known before the kernel before has ended is found out there, and all loads come before the
// first use.
#include "arith/glu.h"
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
  int8_t* q;         // (cols)
  float* d;          // (nb), or of super-blocks
  int32_t* sum;      // (nb); with super-blocks of both halves, as int16
  uint32_t* shifts;  // of super-blocks
};

// What a block holds in shared memory; sizes follow from the arguments.
struct Shared {
  Ring ring;
  SharedActivations a;
  float* part;      // (2, tiles of a round, chains, 8)
  uint32_t buffer;  // floats of one of both
  uint32_t bytes;
};

__host__ __device__ inline Shared carve(uint8_t* base, const ProductArgs& a, bool supers) {
  const uint32_t nb = a.cols / 32;
  Carver c = {base};
  Shared s;
  s.ring.stages = c.take<uint8_t>(a.stages * a.stage_bytes);
  s.ring.full = c.take<uint64_t>(kMaxStages);
  s.a.q = c.take<int8_t>(a.cols);
  s.a.d = c.take<float>(nb);
  s.a.sum = c.take<int32_t>(nb);
  s.a.shifts = c.take<uint32_t>(supers ? nb / kSuperBlocks : 0);
  s.buffer = a.at_once * (a.gated ? 2 : 1) * chains_of(a.cols, supers) * kGroupRows;
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
    }
  }
}

// The same by super-blocks: pieces of 256 values.
template <uint32_t kAhead, class Value>
__device__ __forceinline__ void quantize_supers(const Args& a, const Shared& s, Value value) {
  const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
  for (uint32_t piece = warp; piece * kSuperBlock < a.cols; piece += kAhead * warps) {
    float4 v[kAhead][2];
#pragma unroll
    for (uint32_t i = 0; i < kAhead; ++i)
#pragma unroll
      for (uint32_t h = 0; h < 2; ++h) {
        const uint32_t k = (piece + i * warps) * kSuperBlock + h * kSegment + lane * 4;
        v[i][h] = k < a.cols ? value(k, piece == warp && i == 0 && h == 0) : float4{};
      }
#pragma unroll
    for (uint32_t i = 0; i < kAhead; ++i) {
      const uint32_t super = piece + i * warps;
      const SuperQuantized x = orcd::kernels::quantize_super(v[i][0], v[i][1]);
      if (super * kSuperBlock >= a.cols) continue;
#pragma unroll
      for (uint32_t h = 0; h < 2; ++h) {
        reinterpret_cast<uint32_t*>(s.a.q + super * kSuperBlock + h * kSegment)[lane] = x.q[h];
        if (lane % 8 == 0) s.a.sum[super * kSuperBlocks + h * 4 + lane / 8] = x.sums[h].as_ints();
      }
      if (lane == 0) s.a.d[super] = x.d, s.a.shifts[super] = x.shifts;
    }
  }
}

// Values of this warp's first piece begin here.
template <bool kSupers>
__device__ __forceinline__ uint32_t own_values() {
  return threadIdx.x / 32 * (kSupers ? kSuperBlock : kSegment) + threadIdx.x % 32 * 4;
}

// Norm weights of the first of them, fetched before the kernel before has ended.
template <bool kSupers>
__device__ __forceinline__ float4 early_weight(const Args& a) {
  const uint32_t k = own_values<kSupers>();
  return a.input.kind == Input::kNorm && k < a.cols ? load4(a.input.weight + k) : float4{};
}

// Binary16 numbers of a word as int16.
__device__ __forceinline__ int32_t ints_of_halves(int32_t word) {
  const float2 f = __half22float2(*reinterpret_cast<const __half2*>(&word));
  return HalfSums{int32_t(f.x), int32_t(f.y)}.as_ints();
}

// What this thread block's row reads; where that depends on no other kernel, it is found out before these have ended.
struct RowInput {
  const float* x;
  Quantized given;
};

template <bool kSupers>
__device__ __forceinline__ RowInput input_of_row(const Args& a) {
  const uint64_t row = blockIdx.y;
  const uint32_t nb = a.cols / 32, scales = kSupers ? nb / kSuperBlocks : nb;
  RowInput in = {(a.input.kind == Input::kNorm ? a.input.x : a.input.a.x) + row * a.cols,
                 kSupers ? a.input.a.supers : a.input.a.blocks};
  in.given.q += row * a.cols, in.given.d += row * scales, in.given.sum += row * nb;
  if (kSupers) in.given.shifts += row * scales;
  return in;
}

// Copies what was quantized before.
template <bool kSupers>
__device__ __forceinline__ void copy_input(const Args& a, const Shared& s, const Quantized& from) {
  const uint32_t nb = a.cols / 32, scales = kSupers ? nb / kSuperBlocks : nb;
  for (uint32_t i = threadIdx.x; i < a.cols / 16; i += blockDim.x) {  // all loads before the first use
    const uint4 q = reinterpret_cast<const uint4*>(from.q)[i];
    const float d = i < scales ? from.d[i] : 0.0f;
    const int32_t sum = i < nb ? from.sum[i] : 0;
    reinterpret_cast<uint4*>(s.a.q)[i] = q;
    if (i < scales) s.a.d[i] = d;
    if (kSupers && i < scales) s.a.shifts[i] = from.shifts[i];
    if (i < nb) s.a.sum[i] = kSupers ? ints_of_halves(sum) : sum;
  }
}

// Fills q, d and sum in shared memory.
template <bool kSupers>
__device__ __forceinline__ void prepare_input(const Args& a, const Shared& s, const RowInput& in,
                                              const float4& first_weight) {
  if (a.input.kind == Input::kGiven) {
    copy_input<kSupers>(a, s, in.given);
  } else if (a.input.kind == Input::kQuantize) {
    const auto value = [&](uint32_t k, bool) { return load4(in.x + k); };
    if constexpr (kSupers) quantize_supers<2>(a, s, value);
    else quantize_all<2>(a, s, value);
  } else if (threadIdx.x / 32 * (kSupers ? kSuperBlock : kSegment) < a.cols) {
    const float* x = a.input.gather ? a.input.x + uint64_t(a.input.gather[blockIdx.y]) * a.cols : in.x;
    const uint32_t own_k = own_values<kSupers>();
    const float4 first = own_k < a.cols ? load4(x + own_k) : float4{};
    const float inverse = inverse_rms4(x, a.cols, a.input.eps);  // by each warp that quantizes
    const auto value = [&](uint32_t k, bool own) {
      return own ? normed4(first, inverse, first_weight) : normed4(load4(x + k), inverse, load4(a.input.weight + k));
    };
    if constexpr (kSupers) quantize_supers<1>(a, s, value);
    else quantize_all<1>(a, s, value);
  }
}

// One row of one segment of a tile: the chain over its blocks, in order. By eight lanes, a row each.
template <TensorType T>
__device__ __forceinline__ void segment(const TileView& v, uint32_t seg, uint32_t nb, const Shared& s, float* part) {
  const uint32_t r = threadIdx.x % kGroupRows, first = seg * kSegmentBlocks, blocks = min(kSegmentBlocks, nb - first);
  float acc = 0.0f;
  const auto add = [&](const WeightBlock<T>& w, uint32_t b, float d, int32_t sum) {
    const uint4* q = reinterpret_cast<const uint4*>(s.a.q + b * 32);
    acc = arith::fma32(w.d * d, float(dot(w, q[0], q[1], sum)), acc);
    if constexpr (kAffine<T>) acc = arith::fma32(w.dmin * d, float(sum), acc);
  };
  const bool whole = v.rows == kGroupRows;
  const uint8_t* group = kStaged && whole ? v.in_shared : v.in_device;
  if (whole && blocks == kSegmentBlocks) {
    RawBlock raw[kSegmentBlocks];
    load_segment<T>(group, nb, seg, r, raw);
    const float4 scales = *reinterpret_cast<const float4*>(s.a.d + first);
    const int4 sums = *reinterpret_cast<const int4*>(s.a.sum + first);
    add(unpack<T>(raw[0], first), first, scales.x, sums.x);
    add(unpack<T>(raw[1], first + 1), first + 1, scales.y, sums.y);
    add(unpack<T>(raw[2], first + 2), first + 2, scales.z, sums.z);
    add(unpack<T>(raw[3], first + 3), first + 3, scales.w, sums.w);
  } else if (r < v.rows) {
#pragma unroll 1
    for (uint32_t b = first; b < first + blocks; ++b) {
      const WeightBlock<T> w =
          whole ? load_block<T, true>(group, kGroupRows, nb, b, r) : load_block<T, false>(group, v.rows, nb, b, r);
      add(w, b, s.a.d[b], s.a.sum[b]);
    }
  }
  part[r] = acc;
}

// One row of a super-block of a tile. By sixteen lanes: eight take its first half, a row each, eight the other.
template <TensorType T>
__device__ __forceinline__ void super_block(const TileView& v, uint32_t super, uint32_t nb, const Shared& s,
                                            float* part) {
  const uint32_t lane = threadIdx.x % 32, r = lane % kGroupRows, half = lane / kGroupRows % 2, seg = super * 2 + half;
  const uint32_t first = seg * kSegmentBlocks;
  SuperSums sums = {};
  const uint32_t shifts = arith::shifts_of_half(s.a.shifts[super], half);
  const auto add = [&](const WeightBlock<T>& w, uint32_t b, int32_t pair) {
    const uint4* q = reinterpret_cast<const uint4*>(s.a.q + b * 32);
    add_block<T>(sums, w, q[0], q[1], shifts >> b % kSegmentBlocks * 8, pair);
  };
  const bool whole = v.rows == kGroupRows;
  const uint8_t* group = kStaged && whole ? v.in_shared : v.in_device;
  const uint32_t scales_row = min(r, v.rows - 1);
  constexpr formats::Planes l = kPlanes<T>;
  const BlockPlace at = place(l, v.rows, nb, first, scales_row);
  // d, and dmin above it.
  const uint8_t* scales_at = group + (l.tail ? at.tail : at.head);
  const uint32_t scales =
      kMinima<T> ? *reinterpret_cast<const uint32_t*>(scales_at) : *reinterpret_cast<const uint16_t*>(scales_at);
  if (whole) {
    RawBlock raw[kSegmentBlocks];
    load_segment<T>(group, nb, seg, r, raw);
    const int4 pairs = *reinterpret_cast<const int4*>(s.a.sum + first);
    add(unpack<T>(raw[0], first), first, pairs.x);
    add(unpack<T>(raw[1], first + 1), first + 1, pairs.y);
    add(unpack<T>(raw[2], first + 2), first + 2, pairs.z);
    add(unpack<T>(raw[3], first + 3), first + 3, pairs.w);
  } else {
#pragma unroll 1
    for (uint32_t b = first; b < first + kSegmentBlocks; ++b)
      add(load_block<T, false>(group, v.rows, nb, b, scales_row), b, s.a.sum[b]);
  }
  const uint32_t sixteen = 0xffffu << (lane & 16);
  sums.products += __shfl_xor_sync(sixteen, sums.products, kGroupRows);
  if constexpr (kMinima<T>) sums.minima += __shfl_xor_sync(sixteen, sums.minima, kGroupRows);
  const float acc =
      finish_super<T>(sums.products, float(sums.minima), half_bits(scales), half_bits(scales >> 16), s.a.d[super]);
  if (half == 0) part[r] = acc;
}

// What finish_round will add to, fetched while the products are computed. So few rows have less than 2^32 results.
__device__ __forceinline__ float residual_of(const ProductArgs& a, const Round& round) {
  const Job& job = a.jobs[round.job];
  const uint32_t n = round.tile * kGroupRows + threadIdx.x;
  return job.add && threadIdx.x < round.tiles * kGroupRows && n < job.n ? job.y[blockIdx.y * job.n + n] : 0.0f;
}

// The same of the bias, which depends on no other kernel.
__device__ __forceinline__ float bias_of(const ProductArgs& a, const Round& round) {
  const Job& job = a.jobs[round.job];
  const uint32_t n = round.tile * kGroupRows + threadIdx.x;
  return job.bias && threadIdx.x < round.tiles * kGroupRows && n < job.n ? job.bias[n] : 0.0f;
}

// The results of a round: eight threads a tile.
template <bool kSupers>
__device__ __forceinline__ void finish_round(const ProductArgs& a, const Round& round, const float* part, float bias,
                                             float residual) {
  const Job& job = a.jobs[round.job];
  const uint32_t i = threadIdx.x, n = round.tile * kGroupRows + i, segments = chains_of(a.cols, kSupers);
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
  if (a.gated) y = arith::gated(a.activation, y, total(1));
  job.y[blockIdx.y * job.n + n] = job.add ? residual + y : y;
}

// The jobs' types: kType, and kOther if that is another one, or any.
template <uint32_t kType, uint32_t kOther, bool kGated>
__global__ void __launch_bounds__(kMaxWarps * 32, 1 /* registers rather than blocks */)
    gemv_kernel(const __grid_constant__ Args a) {
  extern __shared__ __align__(128) uint8_t memory[];
  constexpr bool supers = takes_supers<kType>();
  const Shared s = carve(memory, a, supers);
  const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32, nb = a.cols / 32;
  // So many lanes take a chain; neighbors in a warp take what is `warps` chains apart, so that all warps have work.
  constexpr uint32_t lanes = supers ? 2 * kGroupRows : kGroupRows;
  const uint32_t segments = chains_of(a.cols, supers), own = lane / lanes * warps + warp;
  const uint32_t own_tile = own / segments, own_seg = own % segments;

  pdl_launch_dependents();
  if (threadIdx.x == 0) start_ring(a, s.ring);
  const float4 first_weight = early_weight<supers>(a);
  Round round = find_round(a, blockIdx.x);  // there are no more blocks than rounds
  float bias = bias_of(a, round);
  const RowInput in = input_of_row<supers>(a);
  pdl_wait();
  prepare_input<supers>(a, s, in, first_weight);
  __syncthreads();

  uint32_t stage = 0, parity = 0, turn = 0;
  for (uint32_t at = blockIdx.x;;) {
    float* part = s.part + turn % 2 * s.buffer;
    const float residual = residual_of(a, round);
    wait_full(s.ring, stage, parity);
    // Of a gated unit the second matrix's tiles come behind a.at_once of the first.
    const uint32_t end = kGated ? a.at_once + round.tiles : round.tiles;
    uint32_t tile = own_tile, seg = own_seg;
    while (tile < end) {
      const bool second = kGated && tile >= a.at_once;
      const TileView v = view_tile(a, s.ring, round, stage, second, second ? tile - a.at_once : tile);
      float* to = part + (tile * segments + seg) * kGroupRows;
      if (!kGated || second || tile < round.tiles) {
        const auto run = [&]<TensorType T>() {
          if constexpr (kSupers<T>) super_block<T>(v, seg, nb, s, to);
          else segment<T>(v, seg, nb, s, to);
        };
        if (kType == kOther || v.type == TensorType(kType)) with_type<kType>(v.type, run);
        else with_type<kOther>(v.type, run);
      }
      for (seg += 32 / lanes * warps; seg >= segments; seg -= segments) ++tile;  // cheaper than a division
    }
    __syncthreads();
    if (threadIdx.x == blockDim.x - 32) fetch(a, s.ring, at + a.stages * gridDim.x, stage);  // not by who finishes
    finish_round<supers>(a, round, part, bias, residual);
    if ((at += gridDim.x) >= a.rounds) break;
    round = find_round(a, at);
    bias = bias_of(a, round);
    if (++stage == a.stages) stage = 0, parity ^= 1;
    ++turn;
  }
}

using Kernel = void (*)(Args);

template <uint32_t kType, uint32_t kOther, bool kGated>
Kernel kernel_of() {
  static const bool ready = [] {
    ORCD_CUDA(cudaFuncSetAttribute(gemv_kernel<kType, kOther, kGated>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   int(processor().shared_bytes)));
    return true;
  }();
  (void)ready;
  return gemv_kernel<kType, kOther, kGated>;
}

template <TensorType kType>
Kernel kernel_of(bool gated) {
  constexpr uint32_t type = uint32_t(kType);
  return gated ? kernel_of<type, type, true>() : kernel_of<type, type, false>();
}

// A kernel of its own for the common types and pairs of types, and one for all else.
Kernel choose(const ProductArgs& a) {
  TensorType other = a.jobs[0].type;
  bool any = false;
  for (uint32_t i = 1; i < a.n_jobs; ++i) {
    if (a.jobs[i].type == a.jobs[0].type) continue;
    any |= a.gated || (other != a.jobs[0].type && other != a.jobs[i].type);
    other = a.jobs[i].type;
  }
  const auto is = [&](TensorType first, TensorType second) {
    return !any && a.jobs[0].type == first && other == second;
  };
  using enum TensorType;
  const bool gated = a.gated;
  if (is(kQ4_0, kQ4_0)) return kernel_of<kQ4_0>(gated);
  if (is(kQ5_0, kQ5_0)) return kernel_of<kQ5_0>(gated);
  if (is(kQ8_0, kQ8_0)) return kernel_of<kQ8_0>(gated);
  if (is(kQ4_K, kQ4_K)) return kernel_of<kQ4_K>(gated);
  if (is(kQ5_K, kQ5_K)) return kernel_of<kQ5_K>(gated);
  if (is(kQ6_K, kQ6_K)) return kernel_of<kQ6_K>(gated);
  if (is(kQ5_0, kQ8_0)) return kernel_of<uint32_t(kQ5_0), uint32_t(kQ8_0), false>();
  if (is(kQ4_K, kQ6_K)) return kernel_of<uint32_t(kQ4_K), uint32_t(kQ6_K), false>();
  if (is(kQ5_K, kQ6_K)) return kernel_of<uint32_t(kQ5_K), uint32_t(kQ6_K), false>();
  if (a.supers) return gated ? kernel_of<kAnySuper, kAnySuper, true>() : kernel_of<kAnySuper, kAnySuper, false>();
  return gated ? kernel_of<kAnyType, kAnyType, true>() : kernel_of<kAnyType, kAnyType, false>();
}

}  // namespace

bool gemv_fits(const TensorType* types, uint32_t n_jobs, uint32_t cols, bool gated) {
  const ProductArgs a = smallest_product(types, n_jobs, cols, gated);
  return are_alike(types, n_jobs) && can_be_staged(types, n_jobs, cols) &&
         carve(nullptr, a, a.supers).bytes <= processor().shared_bytes;
}

void gemv(const MatmulJob* jobs, uint32_t n_jobs, const GemvInput& input, uint32_t rows,
          std::optional<Activation> activation, bool pdl, cudaStream_t stream) {
  const bool gated = activation.has_value();
  TensorType types[3];
  uint32_t tiles = 0;
  for (uint32_t i = 0; i < n_jobs; ++i) {
    types[i] = jobs[i].w.type;
    if (i == 0 || !gated) tiles += tiles_of(jobs[i].w.rows);
  }
  Args a = {smallest_product(types, n_jobs, jobs[0].w.cols, gated), input};
  if (gated) a.activation = *activation;
  // All rows' thread blocks shall run at once.
  const uint32_t count = max(1u, processor().count / rows), limit = processor().shared_bytes;

  // So many tiles a round that each processor has one round, where the warps can take them in one go: what a
  // round costs beside the products comes once.
  const uint32_t segments = chains_of(a.cols, a.supers), single_stage = a.stage_bytes;
  const uint32_t in_warp = a.supers ? 2 : 4;  // chains that a warp takes at once
  const uint32_t matrices = gated ? 2 : 1, most = max(1u, in_warp * kMaxWarps / (segments * matrices)),
                 each = (tiles + count - 1) / count;
  a.at_once = tiles <= 2 * count ? 1 : each <= most ? each : min(4u, most);
  while (a.at_once > 1 && a.at_once * single_stage * 2 > limit / 2) --a.at_once;
  a.stage_bytes = single_stage * a.at_once;
  add_jobs(a, jobs);
  const uint32_t grid = min(a.rounds, count * (tiles > 2 * count ? 1 : 2));
  a.stages = min((a.rounds + grid - 1) / grid, kMaxStages);
  while (a.stages > 1 && carve(nullptr, a, a.supers).bytes > limit) --a.stages;

  // For the round's chains, and for quantizing as many pieces as a row has chains.
  const auto spread = [](uint32_t tasks) {
    const uint32_t goes = (tasks + kMaxWarps - 1) / kMaxWarps;
    return (tasks + goes - 1) / goes;
  };
  const uint32_t warps =
      max(4u, max(spread(segments), spread((segments * matrices * a.at_once + in_warp - 1) / in_warp)));
  launch_kernel(choose(a), {dim3(grid, rows), warps * 32, carve(nullptr, a, a.supers).bytes}, pdl, stream, a);
}

}  // namespace orcd::kernels
