// Attention of up to four query heads of one KV head, for any vector type V (lanes.h): lanes are keys for
// the scores and values of the head for the output.
#pragma once

#include "arith/constants.h"
#include "arith/exp2.h"
#include "arith/half.h"
#include "cpu/kernels.h"
#include "cpu/kv_cache.h"
#include "cpu/lanes.h"

namespace orcd::cpu {
namespace {

constexpr uint32_t kMaxHeadDim = 256;  // check_shape() holds models to it

// Result of H query heads over one split, or over all splits so far.
template <uint32_t H>
struct State {
  float max[H], sum[H];
  float out[H][kMaxHeadDim];
};

// t[h][j] of all the keys of a split; those behind the last key come out as rubbish. Two vectors of keys
// at once, so that enough chains run beside each other.
template <class V, uint32_t H>
ORCD_LANES void scores(const HeadsArgs& a, const uint16_t* page, uint32_t n, float (*t)[kAttnSplit]) {
  using Floats = typename V::Floats;
  constexpr uint32_t L = V::kLanes, at_once = 2 * L > kKeyBlock ? 2 * L : kKeyBlock, parts = at_once / L;
  static_assert(kAttnSplit % at_once == 0);
  for (uint32_t j = 0; j < n; j += at_once) {
    const uint16_t* keys = page + uint64_t{j} * a.head_dim;
    Floats s[H][parts] = {};
    for (uint32_t d = 0; d < a.head_dim; ++d) {
      Floats k[parts];
      for (uint32_t i = 0; i < parts; ++i) {
        const uint32_t block = i * L / kKeyBlock, in_block = i * L % kKeyBlock;
        const uint16_t* from = keys + (uint64_t{block} * a.head_dim + d) * kKeyBlock + in_block;
        k[i] = V::f16(reinterpret_cast<const uint8_t*>(from));
      }
      for (uint32_t h = 0; h < H; ++h) {
        const Floats q = Floats{} + a.q[h * a.head_dim + d];
        for (uint32_t i = 0; i < parts; ++i) s[h][i] = V::fma(q, k[i], s[h][i]);
      }
    }
    for (uint32_t h = 0; h < H; ++h) {
      for (uint32_t i = 0; i < parts; ++i) {
        const Floats scaled = s[h][i] * a.scale;
        __builtin_memcpy(t[h] + j + i * L, &scaled, sizeof scaled);
      }
    }
  }
}

// Turns scores into weights in place and gives the maximum, m of the contract.
ORCD_LANES float weights(float* t /* (kAttnSplit) */, uint32_t n) {
  float m = t[0];
  for (uint32_t j = 1; j < n; ++j) m = t[j] > m ? t[j] : m;
  m = __builtin_ceilf(m);
  for (uint32_t j = 0; j < kAttnSplit; ++j) t[j] = arith::exp2(t[j] - m);
  return m;
}

// l[h] = Σ_j p[h][j], ascending; the heads' chains run beside each other.
template <uint32_t H>
ORCD_LANES void sums(const float (*p)[kAttnSplit], uint32_t n, float* l /* (H) */) {
  float s[H] = {};
  for (uint32_t j = 0; j < n; ++j) {
    for (uint32_t h = 0; h < H; ++h) s[h] = s[h] + p[h][j];
  }
  for (uint32_t h = 0; h < H; ++h) l[h] = s[h];
}

// out[h][d ..] = Σ_j p[h][j] · v[j][d ..], ascending, for `parts` vectors of values.
template <class V, uint32_t H, uint32_t parts>
ORCD_LANES void weighted_part(const HeadsArgs& a, const uint16_t* values, uint32_t n, const float (*p)[kAttnSplit],
                              uint32_t d, float (*out)[kMaxHeadDim]) {
  using Floats = typename V::Floats;
  Floats o[H][parts] = {};
  for (uint32_t j = 0; j < n; ++j) {
    const uint16_t* value = values + uint64_t{j} * a.head_dim + d;
    Floats v[parts];
    for (uint32_t i = 0; i < parts; ++i) v[i] = V::f16(reinterpret_cast<const uint8_t*>(value + i * V::kLanes));
    for (uint32_t h = 0; h < H; ++h) {
      const Floats pj = Floats{} + p[h][j];
      for (uint32_t i = 0; i < parts; ++i) o[h][i] = V::fma(pj, v[i], o[h][i]);
    }
  }
  for (uint32_t h = 0; h < H; ++h) __builtin_memcpy(out[h] + d, o[h], sizeof o[h]);
}

template <class V, uint32_t H>
ORCD_LANES void weighted_values(const HeadsArgs& a, const uint16_t* values, uint32_t n, const float (*p)[kAttnSplit],
                                float (*out)[kMaxHeadDim]) {
  constexpr uint32_t L = V::kLanes;
  uint32_t d = 0;
  for (; d + 2 * L <= a.head_dim; d += 2 * L) weighted_part<V, H, 2>(a, values, n, p, d, out);
  for (; d + L <= a.head_dim; d += L) weighted_part<V, H, 1>(a, values, n, p, d, out);
  for (; d < a.head_dim; ++d) {
    for (uint32_t h = 0; h < H; ++h) {
      float o = 0.0f;
      for (uint32_t j = 0; j < n; ++j) {
        o = arith::fma32(p[h][j], arith::f16_to_f32(values[uint64_t{j} * a.head_dim + d]), o);
      }
      out[h][d] = o;
    }
  }
}

template <uint32_t H>
ORCD_LANES void combine(State<H>& all, const State<H>& next, uint32_t head_dim) {
  for (uint32_t h = 0; h < H; ++h) {
    const float max = next.max[h] > all.max[h] ? next.max[h] : all.max[h];
    const float a = arith::pow2i(all.max[h] - max), b = arith::pow2i(next.max[h] - max);
    all.sum[h] = arith::fma32(next.sum[h], b, all.sum[h] * a);
    for (uint32_t d = 0; d < head_dim; ++d) all.out[h][d] = arith::fma32(next.out[h][d], b, all.out[h][d] * a);
    all.max[h] = max;
  }
}

template <class V, uint32_t H>
void attend(const HeadsArgs& a) {
  State<H> all, next;
  for (uint32_t first = 0; first < a.n; first += kAttnSplit) {
    const uint32_t count = a.n - first < kAttnSplit ? a.n - first : kAttnSplit;
    State<H>& s = first == 0 ? all : next;
    float t[H][kAttnSplit] = {};
    const uint16_t* keys = a.cache + a.pages[first / kAttnSplit] * a.page_stride;
    scores<V, H>(a, keys, count, t);
    for (uint32_t h = 0; h < H; ++h) s.max[h] = weights(t[h], count);
    sums<H>(t, count, s.sum);
    weighted_values<V, H>(a, keys + uint64_t{kAttnSplit} * a.head_dim, count, t, s.out);
    if (first != 0) combine(all, next, a.head_dim);
  }
  for (uint32_t h = 0; h < H; ++h) {
    for (uint32_t d = 0; d < a.head_dim; ++d) a.out[h * a.head_dim + d] = all.out[h][d] / all.sum[h];
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
