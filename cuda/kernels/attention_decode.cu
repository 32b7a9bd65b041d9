// Attention of single rows, each with all query heads of a KV head at once: they are the rows of the matrix units'
// fragments. A block of four warps takes every gridDim.x-th run of splits. Of a split each warp finds the scores of 16
// keys, then, once the weights of all 64 are there, the sums for a quarter of the head's values. Runs are combined in
// ascending order by the block that arrives last.
#include "arith/exp2.h"
#include "device/check.h"
#include "kernels/attend.cuh"
#include "kernels/launch.h"
#include "kernels/pdl.h"
#include "kernels/rope.cuh"

namespace orcd::kernels {
namespace {

constexpr uint32_t kWarps = 4;
constexpr uint32_t kThreads = kWarps * 32;
static_assert(kAttnSplit == kWarps * 16);
static_assert(kMostHeadsPerKv == 16);  // rows of a fragment

// Which keys of a split count.
struct Seen {
  uint32_t first, n;
};

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
  const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
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
  const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
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
  for (uint32_t at = threadIdx.x * kLine; at < kBytes; at += kThreads * kLine)
    asm volatile("prefetch.global.L2 [%0];" ::"l"(from + at));
}

template <uint32_t kWidth>
__device__ __forceinline__ void load_split(SplitData<kWidth>& x, const uint8_t* page) {
  load_keys<kWidth>(x, page);
  load_values<kWidth>(x, page);
}

// Whether registers hold two splits, and the queries. Of wider heads a split's keys and values are replaced by the next
// ones' as they are used up, and queries stay in shared memory.
template <uint32_t kWidth>
inline constexpr bool kHoldsTwo = kWidth <= 128;

template <uint32_t kDim, int kRows>
struct Shared {
  static constexpr uint32_t kStride =
      padded_head(kDim) + 16;  // of a head's bytes: fragment loads off each other's banks
  alignas(16) uint8_t high[8 * kRows][kStride], low[8 * kRows][kStride];
  float q_scale[8 * kRows];
  float top[kWarps][8 * kRows];    // of the scores of a warp's keys
  float largest[kWarps];           // of their values' scales
  int32_t sum[kWarps][8 * kRows];  // of their weights
  uint32_t weight_high[kWarps][kRows][32], weight_low[kWarps][kRows][32];
  float y[8 * kRows * kDim];
  float* partial;  // (heads, runs, kDim + 2) rather than in registers
  bool last;
};

// Makes a row's heads integers: those of q into shared memory, with `appends` k and v into the page. A warp has every
// fourth of them. kNorms: whether there are norms; without them the loads of several heads are under way at once.
template <bool kNorms, uint32_t kDim, int kRows>
__device__ __forceinline__ void take_inputs(Shared<kDim, kRows>& s, const DecodeAttention& a, uint32_t row,
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
  for (uint32_t task = threadIdx.x / 32; task < tasks; task += kWarps) {
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
    if (is_q && lane == 0) s.q_scale[task] = scale.d * h.scale;
  }
}

// A lane's results: of each octet of the warp's values the two of its lane, by row.
template <uint32_t kWidth, int kRows>
struct Result {
  Sums<kRows> sums;
  float o[kWidth / 32][kRows][2];
};

// One split; joins `r`. By the whole block. `cap`: 0 for none. `next`: the page that x is to
// have from then on, or null; without kHoldsTwo.
template <uint32_t kDim, int kRows>
__device__ __forceinline__ void attend_split(Shared<kDim, kRows>& s, SplitData<padded_head(kDim)>& x,
                                             const QueryFragments<padded_head(kDim)>& q, const float* q_scale,
                                             float cap, const Seen& seen, bool begins, const uint8_t* next,
                                             Result<padded_head(kDim), kRows>& r) {
  constexpr uint32_t kWidth = padded_head(kDim), kBlocks = kWidth / 32;
  const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
  const auto sees = [&](uint32_t o, int i) {
    const uint32_t key = 16 * warp + 8 * o + 2 * t + i % 2;
    return key >= seen.first && key < seen.n;
  };
  const auto one_of = [](const float2& two, int i) { return i % 2 ? two.y : two.x; };

  Dots dots[2];
#pragma unroll
  for (uint32_t b = 0; b < kBlocks; ++b) {
    if constexpr (kHoldsTwo<kWidth>) {
      dots[0].add(q.high[b], q.low[b], x.high[b].x, x.high[b].y, x.low[b].x);
      dots[1].add(q.high[b], q.low[b], x.high[b].z, x.high[b].w, x.low[b].y);
    } else {
      QueryFragments<32> block;
      load_queries<32, kRows == 2>(block, s.high[0] + 32 * b, s.low[0] + 32 * b, Shared<kDim, kRows>::kStride);
      dots[0].add(block.high[0], block.low[0], x.high[b].x, x.high[b].y, x.low[b].x);
      dots[1].add(block.high[0], block.low[0], x.high[b].z, x.high[b].w, x.low[b].y);
    }
  }
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
  if (!kHoldsTwo<kWidth> && next) load_keys<kWidth>(x, next);
#pragma unroll
  for (int row = 0; row < kRows; ++row) {
    top[row] = row_max(top[row]);
    if (t == 0) s.top[warp][g + 8 * row] = top[row];
  }
  largest = row_max(largest);
  if (lane == 0) s.largest[warp] = largest;
  __syncthreads();

  const arith::WeightUnit unit =
      arith::weight_unit(fmaxf(fmaxf(s.largest[0], s.largest[1]), fmaxf(s.largest[2], s.largest[3])));
  float m[kRows];
#pragma unroll
  for (int row = 0; row < kRows; ++row) {
    const uint32_t at = g + 8 * row;
    m[row] = ceilf(fmaxf(fmaxf(s.top[0][at], s.top[1][at]), fmaxf(s.top[2][at], s.top[3][at])));
    uint32_t w[4];
    int32_t sum = 0;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const uint32_t o = j / 2;
      const float p = arith::exp2_below(score[o][2 * row + j % 2] - m[row]);
      const uint32_t weight = arith::value_weight(p, one_of(x.value_scale[o], j), unit);
      sum += sees(o, j) ? arith::sum_weight(p) : 0;
      w[j] = sees(o, j) ? weight : 0;
    }
    const WeightWords words = weight_words(w);
    s.weight_high[warp][row][lane] = words.high;
    s.weight_low[warp][row][lane] = words.low;
    sum = row_sum(sum);
    if (t == 0) s.sum[warp][at] = sum;
  }
  __syncthreads();

  float l[kRows];
  bool joins[kRows];
#pragma unroll
  for (int row = 0; row < kRows; ++row) {
    const uint32_t at = g + 8 * row;
    l[row] = float(s.sum[0][at] + s.sum[1][at] + s.sum[2][at] + s.sum[3][at]);
    joins[row] = true;
  }
  Factors<kRows> f = {};
  if (begins) {
#pragma unroll
    for (int row = 0; row < kRows; ++row) r.sums.m[row] = m[row], r.sums.l[row] = l[row];
  } else {
    f = join(r.sums, m, l, joins);
  }
  uint32_t high[2][4] = {}, low[2][4] = {};
#pragma unroll
  for (uint32_t half = 0; half < 2; ++half)
#pragma unroll
    for (int row = 0; row < kRows; ++row)
#pragma unroll
      for (uint32_t word = 0; word < 2; ++word) {
        high[half][2 * word + row] = s.weight_high[2 * half + word][row][lane];
        low[half][2 * word + row] = s.weight_low[2 * half + word][row][lane];
      }
#pragma unroll
  for (uint32_t octet = 0; octet < kBlocks; ++octet) {
    int32_t of_high[4] = {}, of_low[4] = {};
    const uint4& v = x.value[octet];
    mma_us(of_high, high[0], v.x, v.y);
    mma_us(of_low, low[0], v.x, v.y);
    mma_us(of_high, high[1], v.z, v.w);
    mma_us(of_low, low[1], v.z, v.w);
#pragma unroll
    for (int i = 0; i < 2 * kRows; ++i) {
      const float sum = float(of_high[i] * 256 + of_low[i]);
      float& o = r.o[octet][i / 2][i % 2];
      o = begins ? sum * unit.unit : arith::fma32(sum, f.b[i / 2] * unit.unit, o * f.a[i / 2]);
    }
  }
  if (!kHoldsTwo<kWidth> && next) load_values<kWidth>(x, next);
}

// Combines the runs of a row's heads, which lie in device memory: each thread goes through its values' chains.
template <uint32_t kDim>
__device__ __forceinline__ float combine_runs(const float* partial /* (runs, kDim + 2) */, uint32_t runs, uint32_t d,
                                              const float* sink /* (1) or null */) {
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
  if (sink) O = after_sink(O, join_sink(all.m[0], all.l[0], *sink));
  return O * __fdiv_rn(1.0f, all.l[0] * arith::kSumUnit);
}

// kGeneral: with what AttentionParams may have; without, they are plain.
template <uint32_t kDim, int kRows, bool kGeneral>
__global__ void __launch_bounds__(kThreads) attention_decode_kernel(const __grid_constant__ DecodeAttention a) {
  __shared__ Shared<kDim, kRows> s;
  pdl_launch_dependents();
  constexpr uint32_t kWidth = padded_head(kDim), kBlocks = kWidth / 32;
  const Heads& h = a.heads;
  const uint32_t kv_head = blockIdx.y, count_index = blockIdx.z, heads = h.n_heads / h.n_kv_heads;
  const uint32_t row = a.row ? a.row[count_index] : a.first + count_index;
  // Written by the step's first kernel, for which no kernel behind embed has waited itself.
  const uint32_t position = __ldcg(a.position + row), slot = __ldcg(a.slot + row);
  // Runs are counted from the first one that the row sees.
  const uint32_t first_key = kGeneral ? arith::first_seen(position, a.params.window) : 0;
  const uint32_t first_split = first_key / kAttnSplit, first_run = first_split / kAttnRun;
  const uint32_t splits = position / kAttnSplit + 1, runs = (splits - 1) / kAttnRun + 1 - first_run;
  const uint32_t blocks = min(runs, gridDim.x);
  if (blockIdx.x >= blocks) return;
  const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
  const auto page = [&](uint32_t split) { return head_at(h, a.kv, page_of(a.kv, slot, split * kAttnSplit), kv_head); };

  // What earlier steps left in the cache depends on no kernel of this one: fetch before waiting. The newest split is
  // still to be completed.
  const auto start_of = [&](uint32_t run) {
    return kGeneral ? max((first_run + run) * kAttnRun, first_split) : run * kAttnRun;
  };
  uint32_t run = blockIdx.x, split = start_of(run);
  const bool early = a.rotate && split + 1 < splits;
  SplitData<kWidth> data;
  if (early) load_split<kWidth>(data, page(split));
  // Those that come next are brought nearer; weights have driven them out since the last step.
  if (a.rotate)
    for (uint32_t next = split + 1; next < min(splits, (split / kAttnRun + 1) * kAttnRun); ++next)
      prefetch<KvPage{kWidth}.bytes()>(page(next));
  float2 angle[kBlocks] = {};
#pragma unroll
  for (uint32_t i = 0; i < kBlocks; ++i)
    if (a.rotate && in_head<kDim>(32 * i + lane))
      angle[i] = angle_of(h, position, pair_of(h.style, kDim, 32 * i + lane));
  // The block that has the newest split appends to it; nobody else reads it in this step.
  uint8_t* append_to = a.rotate && (runs - 1) % blocks == blockIdx.x ? page(splits - 1) : nullptr;
  pdl_wait();
  if (!a.rotate) load_split<kWidth>(data, page(split));
  if (a.q_norm || a.k_norm) take_inputs<true>(s, a, row, position, kv_head, heads, angle, append_to);
  else take_inputs<false>(s, a, row, position, kv_head, heads, angle, append_to);
  if (runs > 1 && threadIdx.x == 0)  // places are written together with positions
    s.partial = a.partial + (uint64_t(__ldcg(a.place + row)) * h.n_heads + kv_head * heads * runs) * (kDim + 2);
  __syncthreads();
  if (a.rotate && !early) load_split<kWidth>(data, page(split));
  QueryFragments<kWidth> queries;
  if constexpr (kHoldsTwo<kWidth>)
    load_queries<kWidth, kRows == 2>(queries, s.high[0], s.low[0], Shared<kDim, kRows>::kStride);
  float q_scale[kRows];
#pragma unroll
  for (int i = 0; i < kRows; ++i) q_scale[i] = s.q_scale[g + 8 * i];

  Result<kWidth, kRows> r;
#pragma unroll 1
  while (run < runs) {
    const bool ends = split + 1 == splits || split % kAttnRun == kAttnRun - 1;
    const uint32_t next_run = ends ? run + blocks : run, next = ends ? start_of(next_run) : split + 1;
    const uint8_t* replaces = nullptr;
    SplitData<kWidth> ahead;
    if constexpr (kHoldsTwo<kWidth>) {
      if (next_run < runs) load_split<kWidth>(ahead, page(next));
    } else {
      if (next_run < runs) replaces = page(next);
    }
    const Seen seen = {kGeneral && split == first_split ? first_key % kAttnSplit : 0,
                       split + 1 == splits ? position % kAttnSplit + 1 : kAttnSplit};
    const bool begins = split % kAttnRun == 0 || (kGeneral && split == first_split);
    attend_split<kDim, kRows>(s, data, queries, q_scale, kGeneral ? a.params.soft_cap : 0.0f, seen, begins, replaces,
                              r);
    if (ends && runs > 1) {
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        const uint32_t head = g + 8 * i;
        if (head >= heads) continue;
        float* to = s.partial + uint64_t(head * runs + run) * (kDim + 2);
#pragma unroll
        for (uint32_t o = 0; o < kBlocks; ++o)
          if (in_head<kDim>((warp * kBlocks + o) * 8))
            *reinterpret_cast<float2*>(to + (warp * kBlocks + o) * 8 + 2 * t) = {r.o[o][i][0], r.o[o][i][1]};
        if (warp == 0 && t == 0) *reinterpret_cast<float2*>(to + kDim) = {r.sums.m[i], r.sums.l[i]};
      }
    }
    if constexpr (kHoldsTwo<kWidth>) data = ahead;
    run = next_run;
    split = next;
  }

  const float* sinks = kGeneral && a.params.sinks ? a.params.sinks + kv_head * heads : nullptr;
  if (runs > 1) {
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
      uint32_t* arrived = a.arrived + count_index * h.n_heads + kv_head;
      s.last = atomicAdd(arrived, 1) + 1 == blocks;
      if (s.last) *arrived = 0;
    }
    __syncthreads();
    if (!s.last) return;
    __threadfence();
  } else {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      if (sinks && g + 8 * i < heads) {
        const Factors<1> f = join_sink(r.sums.m[i], r.sums.l[i], sinks[g + 8 * i]);
#pragma unroll
        for (uint32_t o = 0; o < kBlocks; ++o)
#pragma unroll
          for (float& value : r.o[o][i]) value = after_sink(value, f);
      }
      const float inverse = __fdiv_rn(1.0f, r.sums.l[i] * arith::kSumUnit);
#pragma unroll
      for (uint32_t o = 0; o < kBlocks; ++o) {
        if (!in_head<kDim>((warp * kBlocks + o) * 8)) continue;
        float* to = s.y + (g + 8 * i) * kDim + (warp * kBlocks + o) * 8 + 2 * t;
        to[0] = r.o[o][i][0] * inverse;
        to[1] = r.o[o][i][1] * inverse;
      }
    }
    __syncthreads();
  }
  for (uint32_t i = threadIdx.x; i < heads * kDim; i += kThreads) {
    const float y = runs > 1 ? combine_runs<kDim>(s.partial + uint64_t(i / kDim * runs) * (kDim + 2), runs, i % kDim,
                                                  sinks ? sinks + i / kDim : nullptr)
                             : s.y[i];
    const uint32_t at = kv_head * heads * kDim + i;
    a.out.x[uint64_t(row) * h.n_heads * kDim + at] = y;
    if (kDim == kWidth && a.out.blocks.q)  // then these are whole warps
      store_block(a.out, row, at / 32, quantize_block(y));
  }
}

template <uint32_t kDim, bool kGeneral>
void launch_form(const DecodeAttention& a, uint32_t count, bool pdl, cudaStream_t stream) {
  // Enough blocks to fill the device for a long context of few sequences; those without a run leave at once,
  // yet each must have been there before the next kernel may begin.
  const uint32_t filling = 4 * processor().count / (a.heads.n_kv_heads * max(count, 1u));
  const dim3 blocks(min(a.runs, max(1u, filling)), a.heads.n_kv_heads, count);
  if (a.heads.n_heads / a.heads.n_kv_heads <= 8)
    launch_kernel(attention_decode_kernel<kDim, 1, kGeneral>, {blocks, kThreads}, pdl, stream, a);
  else launch_kernel(attention_decode_kernel<kDim, 2, kGeneral>, {blocks, kThreads}, pdl, stream, a);
}

template <uint32_t kDim>
void launch(const DecodeAttention& a, uint32_t count, bool pdl, cudaStream_t stream) {
  if (a.params.plain()) launch_form<kDim, false>(a, count, pdl, stream);
  else launch_form<kDim, true>(a, count, pdl, stream);
}

}  // namespace

void attention_decode(const DecodeAttention& a, uint32_t count, bool pdl, cudaStream_t stream) {
  switch (a.heads.head_dim) {
    case 32: return launch<32>(a, count, pdl, stream);
    case 64: return launch<64>(a, count, pdl, stream);
    case 80: return launch<80>(a, count, pdl, stream);
    case 96: return launch<96>(a, count, pdl, stream);
    case 128: return launch<128>(a, count, pdl, stream);
    case 256: return launch<256>(a, count, pdl, stream);
    default: no_such_head(a.heads.head_dim);
  }
}

}  // namespace orcd::kernels
