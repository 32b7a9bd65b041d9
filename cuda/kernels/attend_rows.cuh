// What the kernels for attention of single rows share. All query heads of a KV head are the rows of the matrix units'
// fragments. A group of four warps works on a split: each finds the scores of 16 keys, then, once the weights of all 64
// are there, the sums for a quarter of the head's values.
#pragma once

#include "arith/exp2.h"
#include "kernels/attend.cuh"
#include "kernels/launch.h"
#include "kernels/rope.cuh"

namespace orcd::kernels {

inline constexpr uint32_t kWarps = 4;  // of a group
static_assert(kAttnSplit == kWarps * 16);
static_assert(kMostHeadsPerKv == 16);  // rows of a fragment

// Waits for all threads that work on a split.
struct BlockBarrier {
  __device__ __forceinline__ void operator()() const { __syncthreads(); }
};
struct GroupBarrier {
  uint32_t group;

  __device__ __forceinline__ void operator()() const {
    asm volatile("bar.sync %0, %1;" ::"r"(group + 1), "n"(kWarps * 32) : "memory");  // 0 is the block's
  }
};

// Which keys of a split count.
struct Seen {
  uint32_t first, n;
};

// What a row's attention goes over: splits 0 .. splits - 1, of which it sees those from first_split on. Runs are counted
// from the first one that it sees.
struct RowSplits {
  uint32_t first_key, splits, runs;

  __device__ __forceinline__ uint32_t first_split() const { return first_key / kAttnSplit; }
  __device__ __forceinline__ uint32_t first_run() const { return first_split() / kAttnRun; }
  __device__ __forceinline__ uint32_t start_of(uint32_t run) const {
    return max((first_run() + run) * kAttnRun, first_split());
  }
  __device__ __forceinline__ uint32_t end_of(uint32_t run) const {
    return min((first_run() + run + 1) * kAttnRun, splits);
  }
  __device__ __forceinline__ Seen seen(uint32_t split, uint32_t position) const {
    return {split == first_split() ? first_key % kAttnSplit : 0,
            split + 1 == splits ? position % kAttnSplit + 1 : kAttnSplit};
  }
};
__device__ __forceinline__ RowSplits splits_of(uint32_t position, uint32_t window) {
  RowSplits r = {arith::first_seen(position, window), position / kAttnSplit + 1, 0};
  r.runs = (r.splits - 1) / kAttnRun + 1 - r.first_run();
  return r;
}

// A warp's part of a split on its way: keys 16w .. 16w + 15, and values 8w' .. of all keys for its octets w'.
template <uint32_t kWidth>
struct SplitData {
  uint4 high[kWidth / 32];
  uint2 low[kWidth / 32];
  uint4 value[kWidth / 32];
  float2 key_scale[2], value_scale[2];  // of this lane's keys
};

template <uint32_t kWidth>
__device__ __forceinline__ void load_keys(SplitData<kWidth>& x, const uint8_t* page) {
  constexpr KvPage at = {kWidth};
  constexpr uint32_t kBlocks = kWidth / 32;
  const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32 % kWarps;
#pragma unroll
  for (uint32_t b = 0; b < kBlocks; ++b) {
    x.high[b] = *reinterpret_cast<const uint4*>(page + ((warp * kBlocks + b) * 32 + lane) * 16);
    x.low[b] =
        *reinterpret_cast<const uint2*>(page + at.low() + ((warp / 2 * kBlocks + b) * 32 + lane) * 16 + warp % 2 * 8);
  }
#pragma unroll
  for (uint32_t o = 0; o < 2; ++o)
    x.key_scale[o] = *reinterpret_cast<const float2*>(page + at.key_scales() + (16 * warp + 8 * o + lane % 4 * 2) * 4);
}

template <uint32_t kWidth>
__device__ __forceinline__ void load_values(SplitData<kWidth>& x, const uint8_t* page) {
  constexpr KvPage at = {kWidth};
  constexpr uint32_t kBlocks = kWidth / 32;
  const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32 % kWarps;
#pragma unroll
  for (uint32_t b = 0; b < kBlocks; ++b)
    x.value[b] = *reinterpret_cast<const uint4*>(page + at.values() + ((warp * kBlocks + b) * 32 + lane) * 16);
#pragma unroll
  for (uint32_t o = 0; o < 2; ++o)
    x.value_scale[o] =
        *reinterpret_cast<const float2*>(page + at.value_scales() + (16 * warp + 8 * o + lane % 4 * 2) * 4);
}

// Into the L2 cache, by the whole thread block.
template <uint32_t kBytes>
__device__ __forceinline__ void prefetch(const uint8_t* from) {
  constexpr uint32_t kLine = 128;
  for (uint32_t at = threadIdx.x * kLine; at < kBytes; at += blockDim.x * kLine)
    asm volatile("prefetch.global.L2 [%0];" ::"l"(from + at));
}

template <uint32_t kWidth>
__device__ __forceinline__ void load_split(SplitData<kWidth>& x, const uint8_t* page) {
  load_keys<kWidth>(x, page);
  load_values<kWidth>(x, page);
}

// A row's queries as integers.
template <uint32_t kDim, int kRows>
struct QueryBytes {
  static constexpr uint32_t kStride =
      padded_head(kDim) + 16;  // of a head's bytes: fragment loads off each other's banks
  alignas(16) uint8_t high[8 * kRows][kStride], low[8 * kRows][kStride];
  float scale[8 * kRows];
};

// Makes a row's heads integers, by the kBlockWarps warps of the thread block: those of q into shared memory, those of k and
// v into the page `append_to`, if there is one. kNorms: whether there are norms; without them the loads of several heads
// are under way at once.
template <bool kNorms, uint32_t kBlockWarps, uint32_t kDim, int kRows>
__device__ __forceinline__ void take_heads(QueryBytes<kDim, kRows>& s, const DecodeAttention& a, uint32_t row,
                                           uint32_t position, uint32_t kv_head, uint32_t heads, const float2* angle,
                                           uint8_t* append_to) {
  constexpr uint32_t kBlocks = padded_head(kDim) / 32;
  const Heads& h = a.heads;
  const uint32_t lane = threadIdx.x % 32;
  const float* q = a.q + (uint64_t(row) * h.n_heads + kv_head * heads) * kDim;
  const float* k = a.k + (uint64_t(row) * h.n_kv_heads + kv_head) * kDim;
  const float* v = a.v + (uint64_t(row) * h.n_kv_heads + kv_head) * kDim;
  const uint32_t tasks = heads + (append_to ? 2 : 0);
#pragma unroll(kNorms ? 1 : 3)
  for (uint32_t task = threadIdx.x / 32; task < tasks; task += kBlockWarps) {
    const bool is_q = task < heads, is_v = task == heads + 1;
    const float* from = is_q ? q + task * kDim : is_v ? v : k;
    const float* norm = !kNorms || is_v ? nullptr : is_q ? a.q_norm : a.k_norm;
    const float inverse = norm ? inverse_rms(from, kDim, a.eps) : 0.0f;
    const auto before = [&](uint32_t d) { return norm ? (from[d] * inverse) * norm[d] : from[d]; };
    float x[kBlocks];
    uint32_t top = 0;
#pragma unroll
    for (uint32_t i = 0; i < kBlocks; ++i) {
      const uint32_t d = 32 * i + lane;
      const bool live = in_head<kDim>(d);
      const Pair pair = pair_of(h.style, kDim, d);
      x[i] = live ? before(d) : 0.0f;
      if (a.rotate && !is_v && live) x[i] = rotate(x[i], before(pair.partner), angle[i], pair.first);
      top = max(top, arith::bits_of(x[i]) & 0x7fffffffu);
    }
    const arith::HeadScale scale =
        arith::head_scale(__reduce_max_sync(kFull, top), is_v ? arith::kValueMost : arith::kKeyMost);
#pragma unroll
    for (uint32_t i = 0; i < kBlocks; ++i) {
      const uint32_t d = 32 * i + lane;
      if (is_q) {
        const int32_t integer = arith::head_integer(x[i], scale);
        s.high[task][d] = uint8_t(integer >> 4);
        s.low[task][d] = uint8_t(integer & 15);
      } else if (is_v) {
        store_value(append_to, kDim, position % kAttnSplit, d, x[i], scale);
      } else {
        store_key(append_to, kDim, position % kAttnSplit, d, x[i], scale);
      }
    }
    if (is_q && lane == 0) s.scale[task] = scale.d * h.scale;
  }
}

// With a row's heads, whatever is to be done with them before.
template <uint32_t kBlockWarps, uint32_t kDim, int kRows>
__device__ __forceinline__ void take_inputs(QueryBytes<kDim, kRows>& s, const DecodeAttention& a, uint32_t row,
                                            uint32_t position, uint32_t kv_head, const float2* angle,
                                            uint8_t* append_to) {
  const uint32_t heads = a.heads.n_heads / a.heads.n_kv_heads;
  if (a.q_norm || a.k_norm) take_heads<true, kBlockWarps>(s, a, row, position, kv_head, heads, angle, append_to);
  else take_heads<false, kBlockWarps>(s, a, row, position, kv_head, heads, angle, append_to);
}

// Of this lane's values of a head.
template <uint32_t kDim>
__device__ __forceinline__ void load_angles(const DecodeAttention& a, uint32_t position,
                                            float2 (&angle)[padded_head(kDim) / 32]) {
  const uint32_t lane = threadIdx.x % 32;
#pragma unroll
  for (uint32_t i = 0; i < padded_head(kDim) / 32; ++i)
    if (a.rotate && in_head<kDim>(32 * i + lane))
      angle[i] = angle_of(a.heads, position, pair_of(a.heads.style, kDim, 32 * i + lane));
}

// Where the results of a row's runs are left: (heads, runs, kDim + 2).
template <uint32_t kDim>
__device__ __forceinline__ float* partial_of(const DecodeAttention& a, uint32_t row, uint32_t kv_head, uint32_t runs) {
  // Places are written together with positions.
  const uint32_t n_heads = a.heads.n_heads, heads = n_heads / a.heads.n_kv_heads;
  return a.partial + (uint64_t(__ldcg(a.place + row)) * n_heads + kv_head * heads * runs) * (kDim + 2);
}

// Those of a KV head's query heads, or null.
template <bool kGeneral>
__device__ __forceinline__ const float* sinks_of(const DecodeAttention& a, uint32_t kv_head) {
  return kGeneral && a.params.sinks ? a.params.sinks + kv_head * (a.heads.n_heads / a.heads.n_kv_heads) : nullptr;
}

// What the warps of a group tell each other of a split.
template <int kRows>
struct SplitShared {
  float top[kWarps][8 * kRows];                              // of the scores of a warp's keys
  float largest[kWarps];                                     // of their values' scales
  int32_t sum[kWarps][8 * kRows];                            // of their weights
  uint32_t high[kWarps][kRows][32], low[kWarps][kRows][32];  // their weights
};

// A split before its values: what a lane's rows have of it.
template <int kRows>
struct SplitWeights {
  float m[kRows], l[kRows], unit;
  uint32_t high[2][4], low[2][4];  // by half of the keys
};

// Scores and weights of a split, by its group. add_dots(dots): the products of the warp's keys with the queries.
// after_scores(): called when the keys are used up. `cap`: 0 for none.
template <int kRows, uint32_t kWidth, class Barrier, class AddDots, class AfterScores>
__device__ __forceinline__ SplitWeights<kRows> weigh_split(SplitShared<kRows>& s, const SplitData<kWidth>& x,
                                                           const float* q_scale, float cap, const Seen& seen,
                                                           const Barrier& barrier, AddDots add_dots,
                                                           AfterScores after_scores) {
  const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32 % kWarps, g = lane / 4, t = lane % 4;
  const auto sees = [&](uint32_t o, int i) {
    const uint32_t key = 16 * warp + 8 * o + 2 * t + i % 2;
    return key >= seen.first && key < seen.n;
  };
  const auto one_of = [](const float2& two, int i) { return i % 2 ? two.y : two.x; };

  Dots dots[2];
  add_dots(dots);
  float score[2][2 * kRows], top[kRows], largest = 0.0f;
#pragma unroll
  for (int row = 0; row < kRows; ++row) top[row] = -arith::infinity();
#pragma unroll
  for (uint32_t o = 0; o < 2; ++o)
#pragma unroll
    for (int i = 0; i < 2 * kRows; ++i) {
      score[o][i] = dots[o][i] * (q_scale[i / 2] * one_of(x.key_scale[o], i));
      if (cap != 0.0f) score[o][i] = arith::capped_score(score[o][i], cap, __fdiv_rn(1.0f, cap));
      if (sees(o, i)) top[i / 2] = fmaxf(top[i / 2], score[o][i]);
      if (i < 2 && sees(o, i)) largest = fmaxf(largest, one_of(x.value_scale[o], i));
    }
  after_scores();
#pragma unroll
  for (int row = 0; row < kRows; ++row) {
    top[row] = row_max(top[row]);
    if (t == 0) s.top[warp][g + 8 * row] = top[row];
  }
  largest = row_max(largest);
  if (lane == 0) s.largest[warp] = largest;
  barrier();

  SplitWeights<kRows> part;
  const arith::WeightUnit unit =
      arith::weight_unit(fmaxf(fmaxf(s.largest[0], s.largest[1]), fmaxf(s.largest[2], s.largest[3])));
  part.unit = unit.unit;
#pragma unroll
  for (int row = 0; row < kRows; ++row) {
    const uint32_t at = g + 8 * row;
    part.m[row] = ceilf(fmaxf(fmaxf(s.top[0][at], s.top[1][at]), fmaxf(s.top[2][at], s.top[3][at])));
    uint32_t w[4];
    int32_t sum = 0;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const uint32_t o = j / 2;
      const float p = arith::exp2_below(score[o][2 * row + j % 2] - part.m[row]);
      const uint32_t weight = arith::value_weight(p, one_of(x.value_scale[o], j), unit);
      sum += sees(o, j) ? arith::sum_weight(p) : 0;
      w[j] = sees(o, j) ? weight : 0;
    }
    const WeightWords words = weight_words(w);
    s.high[warp][row][lane] = words.high;
    s.low[warp][row][lane] = words.low;
    sum = row_sum(sum);
    if (t == 0) s.sum[warp][at] = sum;
  }
  barrier();

#pragma unroll
  for (int row = 0; row < kRows; ++row) {
    const uint32_t at = g + 8 * row;
    part.l[row] = float(s.sum[0][at] + s.sum[1][at] + s.sum[2][at] + s.sum[3][at]);
  }
#pragma unroll
  for (uint32_t half = 0; half < 2; ++half)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = i % 2;
      const bool there = row < kRows;
      part.high[half][i] = there ? s.high[2 * half + i / 2][there ? row : 0][lane] : 0;
      part.low[half][i] = there ? s.low[2 * half + i / 2][there ? row : 0][lane] : 0;
    }
  return part;
}

// give(octet, i, sum): Σ weight · value, of the warp's octets of values the two of this lane's rows.
template <int kRows, uint32_t kWidth, class Give>
__device__ __forceinline__ void sum_values(const SplitData<kWidth>& x, const SplitWeights<kRows>& w, Give give) {
#pragma unroll
  for (uint32_t octet = 0; octet < kWidth / 32; ++octet) {
    int32_t of_high[4] = {}, of_low[4] = {};
    const uint4& v = x.value[octet];
    mma_us(of_high, w.high[0], v.x, v.y);
    mma_us(of_low, w.low[0], v.x, v.y);
    mma_us(of_high, w.high[1], v.z, v.w);
    mma_us(of_low, w.low[1], v.z, v.w);
#pragma unroll
    for (int i = 0; i < 2 * kRows; ++i) give(octet, i, float(of_high[i] * 256 + of_low[i]));
  }
}

// Value `at` of a KV head's query heads, their runs combined, which lie in device memory.
template <uint32_t kDim>
__device__ __forceinline__ float combine_runs(const float* partials /* (heads, runs, kDim + 2) */, uint32_t runs,
                                              uint32_t at, const float* sinks /* (heads) or null */) {
  const uint32_t head = at / kDim, d = at % kDim;
  const float* partial = partials + uint64_t(head * runs) * (kDim + 2);
  constexpr uint32_t kAtOnce = 8;  // loads in flight
  Sums<1> all = {};
  float O = 0;
  for (uint32_t base = 0; base < runs; base += kAtOnce) {
    float o[kAtOnce], m[kAtOnce], l[kAtOnce];
#pragma unroll
    for (uint32_t i = 0; i < kAtOnce; ++i) {
      const float* run = partial + uint64_t(min(base + i, runs - 1)) * (kDim + 2);
      o[i] = __ldcg(run + d);
      m[i] = __ldcg(run + kDim);
      l[i] = __ldcg(run + kDim + 1);
    }
#pragma unroll
    for (uint32_t i = 0; i < kAtOnce; ++i) {
      if (base + i >= runs) break;
      if (base + i == 0) {
        all = {{m[0]}, {l[0]}};
        O = o[0];
        continue;
      }
      const bool joins = true;
      const Factors<1> f = join(all, m + i, l + i, &joins);
      O = arith::fma32(o[i], f.b[0], O * f.a[0]);
    }
  }
  if (sinks) O = after_sink(O, join_sink(all.m[0], all.l[0], sinks[head]));
  return O * __fdiv_rn(1.0f, all.l[0] * arith::kSumUnit);
}

// Whether this thread block is the last of the row's and KV head's `blocks` to leave its runs' results. By all of them.
__device__ __forceinline__ bool arrives_last(const DecodeAttention& a, uint32_t count_index, uint32_t kv_head,
                                             uint32_t blocks, bool& last /* shared */) {
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    uint32_t* arrived = a.arrived + count_index * a.heads.n_heads + kv_head;
    last = atomicAdd(arrived, 1) + 1 == blocks;
    if (last) *arrived = 0;
  }
  __syncthreads();
  if (!last) return false;
  __threadfence();
  return true;
}

// A row's value `at`, of a whole warp's each.
template <uint32_t kDim>
__device__ __forceinline__ void store_attended(const DecodeAttention& a, uint32_t row, uint32_t at, float y) {
  a.out.x[uint64_t(row) * a.heads.n_heads * kDim + at] = y;
  if (kDim == padded_head(kDim) && a.out.blocks.q)  // then these are whole warps
    store_block(a.out, row, at / 32, quantize_block(y));
}

}  // namespace orcd::kernels
