// Attention of up to four query heads of one KV head, for any vector type V (lanes.h): lanes are keys for
// the scores and values of the head for the output.
#pragma once

#include "arith/attend.h"
#include "arith/constants.h"
#include "cpu/kernels.h"
#include "cpu/kv_cache.h"
#include "cpu/lanes.h"

namespace orcd::cpu {
namespace {

constexpr uint32_t kMaxHeadDim = 256;  // check_shape() holds models to it

// Query heads as integers, two to a word.
template <uint32_t H>
struct Queries {
  int32_t pairs[H][kMaxHeadDim / 2];
  float scale[H];  // with the scale of the scores
};

// What a split's keys weigh.
template <uint32_t H>
struct Weights {
  alignas(64) float t[H][kAttnSplit];        // scores
  alignas(64) int16_t value[H][kAttnSplit];  // weights of the values, as multiples of the split's unit
};

// Result of H query heads over one split, or over all splits so far.
template <uint32_t H>
struct State {
  float max[H] = {}, sum[H] = {};
  float out[H][kMaxHeadDim];
};

template <uint32_t H>
ORCD_LANES void quantize_queries(const HeadsArgs& a, Queries<H>& q) {
  for (uint32_t h = 0; h < H; ++h) {
    const float* x = a.q + h * a.head_dim;
    const arith::HeadScale s = arith::head_scale(arith::max_magnitude(x, a.head_dim), arith::kKeyMost);
    for (uint32_t d = 0; d < a.head_dim; d += 2)
      q.pairs[h][d / 2] = int32_t((uint32_t(arith::head_integer(x[d], s)) & 0xffffu) |
                                  uint32_t(arith::head_integer(x[d + 1], s)) << 16);
    q.scale[h] = s.d * a.scale;
  }
}

// t[h][j] of keys first .. n - 1 of a split, and rubbish around them. Two vectors of keys at once, so that enough
// chains run beside each other.
template <class V, uint32_t H>
ORCD_LANES void scores(const HeadsArgs& a, const Queries<H>& q, const uint8_t* page, uint32_t first, uint32_t n,
                       Weights<H>& w) {
  using Ints = typename V::Ints;
  using Floats = typename V::Floats;
  constexpr uint32_t L = V::kLanes, at_once = 2 * L > kKeyBlock ? 2 * L : kKeyBlock, parts = at_once / L;
  static_assert(kAttnSplit % at_once == 0);
  const HeadPage at = {a.head_dim};
  for (uint32_t j = first / at_once * at_once; j < n; j += at_once) {
    Ints s[H][parts] = {};
    const uint8_t* keys[parts];
    for (uint32_t i = 0; i < parts; ++i) keys[i] = page + at.key(j + i * L, 0);
    for (uint32_t d = 0; d < a.head_dim / 2; ++d) {
      for (uint32_t i = 0; i < parts; ++i) {
        const auto k = V::load(keys[i] + d * kKeyBlock * 4);
        for (uint32_t h = 0; h < H; ++h) s[h][i] = V::pairs(s[h][i], k, q.pairs[h][d]);
      }
    }
    for (uint32_t i = 0; i < parts; ++i) {
      const Floats scale = V::floats(reinterpret_cast<const float*>(page + at.key_scale(j + i * L)));
      for (uint32_t h = 0; h < H; ++h) {
        const Floats t = V::to_float(s[h][i]) * (scale * q.scale[h]);
        __builtin_memcpy(w.t[h] + j + i * L, &t, sizeof t);
      }
    }
  }
}

template <uint32_t H>
ORCD_LANES void cap_scores(float cap, Weights<H>& w) {
  const float inverse = 1.0f / cap;
  for (uint32_t h = 0; h < H; ++h)
    for (uint32_t j = 0; j < kAttnSplit; ++j) w.t[h][j] = arith::capped_score(w.t[h][j], cap, inverse);
}

// Turns a head's scores of keys first .. n - 1 into weights; gives the maximum, m of the contract, and the sum of the
// weights.
ORCD_LANES float weights(float* t /* (kAttnSplit) */, const float* scales /* (kAttnSplit) */, uint32_t first,
                         uint32_t n, const arith::WeightUnit& unit, int16_t* value /* (kAttnSplit) */, float* total) {
  float m = t[first];
  for (uint32_t j = first + 1; j < n; ++j) m = t[j] > m ? t[j] : m;
  m = __builtin_ceilf(m);
  int32_t sum = 0;
  for (uint32_t j = 0; j < kAttnSplit; ++j) {
    const float p = arith::exp2_below(t[j] - m);
    const bool seen = j >= first && j < n;
    sum += seen ? arith::sum_weight(p) : 0;
    value[j] = int16_t(seen ? arith::value_weight(p, scales[j], unit) : 0);
  }
  *total = float(sum);
  return m;
}

// out[h][d ..] = scale · Σ_j W[h][j] · v[j][d ..] over keys first .. n - 1, for `parts` vectors of values. The key
// before an odd first one weighs nothing.
template <class V, uint32_t H, uint32_t parts>
ORCD_LANES void weighted_part(const HeadsArgs& a, const int8_t* values, uint32_t first, uint32_t n, const Weights<H>& w,
                              float scale, uint32_t d, float (*out)[kMaxHeadDim]) {
  using Ints = typename V::Ints;
  Ints o[H][parts] = {};
  for (uint32_t j = first / 2 * 2; j < n; j += 2) {
    const int8_t* value = values + (uint64_t{j / 2} * a.head_dim + d) * 2;
    int32_t two[H];
    for (uint32_t h = 0; h < H; ++h) __builtin_memcpy(two + h, w.value[h] + j, sizeof two[h]);
    for (uint32_t i = 0; i < parts; ++i) {
      const auto v = V::widen(value + i * V::kLanes * 2);
      for (uint32_t h = 0; h < H; ++h) o[h][i] = V::pairs(o[h][i], v, two[h]);
    }
  }
  for (uint32_t h = 0; h < H; ++h) {
    for (uint32_t i = 0; i < parts; ++i) {
      const auto scaled = V::to_float(o[h][i]) * scale;
      __builtin_memcpy(out[h] + d + i * V::kLanes, &scaled, sizeof scaled);
    }
  }
}

template <class V, uint32_t H>
ORCD_LANES void weighted_values(const HeadsArgs& a, const int8_t* values, uint32_t first, uint32_t n,
                                const Weights<H>& w, float scale, float (*out)[kMaxHeadDim]) {
  constexpr uint32_t L = V::kLanes;
  uint32_t d = 0;
  for (; d + 2 * L <= a.head_dim; d += 2 * L) weighted_part<V, H, 2>(a, values, first, n, w, scale, d, out);
  for (; d + L <= a.head_dim; d += L) weighted_part<V, H, 1>(a, values, first, n, w, scale, d, out);
  for (; d < a.head_dim; ++d) {
    for (uint32_t h = 0; h < H; ++h) {
      int32_t o = 0;
      for (uint32_t j = first; j < n; ++j) o += w.value[h][j] * values[(uint64_t{j / 2} * a.head_dim + d) * 2 + j % 2];
      out[h][d] = float(o) * scale;
    }
  }
}

// `unit`: what the values of `next` are multiples of.
template <uint32_t H>
ORCD_LANES void combine(State<H>& all, const State<H>& next, float unit, uint32_t head_dim) {
  for (uint32_t h = 0; h < H; ++h) {
    const float max = next.max[h] > all.max[h] ? next.max[h] : all.max[h];
    const float a = arith::pow2i(all.max[h] - max), b = arith::pow2i(next.max[h] - max);
    all.sum[h] = arith::fma32(next.sum[h], b, all.sum[h] * a);
    const float c = b * unit;
    for (uint32_t d = 0; d < head_dim; ++d) all.out[h][d] = arith::fma32(next.out[h][d], c, all.out[h][d] * a);
    all.max[h] = max;
  }
}

// One split, of which keys first .. n - 1 are seen. Gives the unit of s.out, which is 1 if `scaled`.
template <class V, uint32_t H>
ORCD_LANES float attend_split(const HeadsArgs& a, const Queries<H>& q, const uint8_t* page, uint32_t first, uint32_t n,
                              bool scaled, State<H>& s) {
  const HeadPage at = {a.head_dim};
  Weights<H> w = {};
  scores<V, H>(a, q, page, first, n, w);
  if (a.soft_cap != 0.0f) cap_scores(a.soft_cap, w);
  const auto* scales = reinterpret_cast<const float*>(page + at.value_scale(0));
  float largest = 0.0f;
  for (uint32_t j = first; j < n; ++j) largest = scales[j] > largest ? scales[j] : largest;
  const arith::WeightUnit unit = arith::weight_unit(largest);
  for (uint32_t h = 0; h < H; ++h) s.max[h] = weights(w.t[h], scales, first, n, unit, w.value[h], s.sum + h);
  weighted_values<V, H>(a, reinterpret_cast<const int8_t*>(page + at.value(0, 0)), first, n, w,
                        scaled ? unit.unit : 1.0f, s.out);
  return scaled ? 1.0f : unit.unit;
}

// One more run, which has weight and no values.
template <uint32_t H>
ORCD_LANES void add_sinks(const HeadsArgs& a, State<H>& all) {
  State<H> sinks;
  for (uint32_t h = 0; h < H; ++h) {
    const arith::SinkPart part = arith::sink_part(a.sinks[h]);
    sinks.max[h] = part.m;
    sinks.sum[h] = part.l;
    for (uint32_t d = 0; d < a.head_dim; ++d) sinks.out[h][d] = 0.0f;
  }
  combine(all, sinks, 1.0f, a.head_dim);
}

template <class V, uint32_t H>
void attend(const HeadsArgs& a) {
  Queries<H> q;
  State<H> all, run, next;
  quantize_queries<H>(a, q);
  const uint32_t first_split = a.first / kAttnSplit;
  for (uint32_t split = first_split; split * kAttnSplit < a.n; ++split) {
    const uint32_t start = split * kAttnSplit, unseen = split == first_split ? a.first - start : 0;
    const uint32_t count = a.n - start < kAttnSplit ? a.n - start : kAttnSplit;
    const bool begins = split == first_split || split % kAttnRun == 0;
    const bool ends = split % kAttnRun == kAttnRun - 1 || start + count == a.n;
    const uint8_t* page = a.cache + a.pages[split] * a.page_stride;
    State<H>& part = begins ? run : next;
    // Nearly all splits are seen from their first key on: for these the compiler leaves that bound out.
    const float unit = unseen == 0 ? attend_split<V, H>(a, q, page, 0, count, begins, part)
                                   : attend_split<V, H>(a, q, page, unseen, count, begins, part);
    if (!begins) combine(run, next, unit, a.head_dim);
    if (!ends) continue;
    if (split / kAttnRun == first_split / kAttnRun) all = run;
    else combine(all, run, 1.0f, a.head_dim);
  }
  if (a.sinks) add_sinks(a, all);
  for (uint32_t h = 0; h < H; ++h) {
    const float inverse = 1.0f / (all.sum[h] * arith::kSumUnit);
    for (uint32_t d = 0; d < a.head_dim; ++d) a.out[h * a.head_dim + d] = all.out[h][d] * inverse;
  }
}

template <class V>
void attend_heads(const HeadsArgs& a) {
  switch (a.heads) {
    case 1: return attend<V, 1>(a);
    case 2: return attend<V, 2>(a);
    case 3: return attend<V, 3>(a);
    default: return attend<V, 4>(a);
  }
}

}  // namespace
}  // namespace orcd::cpu
