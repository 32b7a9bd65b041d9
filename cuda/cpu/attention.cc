#include <algorithm>

#include "arith/constants.h"
#include "arith/exp2.h"
#include "cpu/ops.h"
#include "cpu/simd.h"

namespace orcd::cpu {
namespace {

constexpr uint32_t kMaxHeadDim = 256;  // check_shape() holds models to it
constexpr uint32_t kHeads = 4;         // query heads of one KV head that go together

// Running result of H query heads over the splits so far.
template <uint32_t H>
struct State {
  float max[H], sum[H];
  float out[H][kMaxHeadDim];
};

// t[h][j] of all the keys of a split; those behind the last key come out as rubbish.
template <uint32_t H>
void scores(const uint16_t* keys /* (n / 16, hd, 16) */, uint32_t n, const float* q /* (H, hd) */, uint32_t hd,
            float scale, float (*t)[kAttnSplit]) {
  for (uint32_t j = 0; j < n; j += kKeyBlock) {
    const uint16_t* block = keys + uint64_t{j} * hd;
    Floats8 s[H][2] = {};
    for (uint32_t d = 0; d < hd; ++d) {
      const Floats8 k0 = load8_f16(block + d * kKeyBlock), k1 = load8_f16(block + d * kKeyBlock + kWidth);
      for (uint32_t h = 0; h < H; ++h) {
        const Floats8 qd = Floats8{} + q[h * hd + d];
        s[h][0] = fma8(qd, k0, s[h][0]);
        s[h][1] = fma8(qd, k1, s[h][1]);
      }
    }
    for (uint32_t h = 0; h < H; ++h) {
      store8(t[h] + j, s[h][0] * scale);
      store8(t[h] + j + kWidth, s[h][1] * scale);
    }
  }
}

// Turns scores into weights in place and gives the maximum, m of the contract.
float weights(float* t /* (kAttnSplit) */, uint32_t n) {
  float m = t[0];
  for (uint32_t j = 1; j < n; ++j) m = t[j] > m ? t[j] : m;
  m = __builtin_ceilf(m);
  for (uint32_t j = 0; j < kAttnSplit; ++j) t[j] = arith::exp2(t[j] - m);
  return m;
}

// l[h] = Σ_j p[h][j], ascending; the heads' chains run beside each other.
template <uint32_t H>
void sums(const float (*p)[kAttnSplit], uint32_t n, float* l /* (H) */) {
  float s[H] = {};
  for (uint32_t j = 0; j < n; ++j) {
    for (uint32_t h = 0; h < H; ++h) s[h] = s[h] + p[h][j];
  }
  for (uint32_t h = 0; h < H; ++h) l[h] = s[h];
}

// out[h][d] = Σ_j p[h][j] · v[j][d], ascending
template <uint32_t H>
void weighted_values(const uint16_t* values /* (n, hd) */, uint32_t n, const float (*p)[kAttnSplit], uint32_t hd,
                     float (*out)[kMaxHeadDim]) {
  uint32_t d = 0;
  for (; d + 2 * kWidth <= hd; d += 2 * kWidth) {
    Floats8 o[H][2] = {};
    for (uint32_t j = 0; j < n; ++j) {
      const uint16_t* v = values + uint64_t{j} * hd + d;
      const Floats8 v0 = load8_f16(v), v1 = load8_f16(v + kWidth);
      for (uint32_t h = 0; h < H; ++h) {
        const Floats8 pj = Floats8{} + p[h][j];
        o[h][0] = fma8(pj, v0, o[h][0]);
        o[h][1] = fma8(pj, v1, o[h][1]);
      }
    }
    for (uint32_t h = 0; h < H; ++h) {
      store8(out[h] + d, o[h][0]);
      store8(out[h] + d + kWidth, o[h][1]);
    }
  }
  for (; d < hd; ++d) {
    for (uint32_t h = 0; h < H; ++h) {
      float o = 0.0f;
      for (uint32_t j = 0; j < n; ++j) o = __builtin_fmaf(p[h][j], arith::f16_to_f32(values[uint64_t{j} * hd + d]), o);
      out[h][d] = o;
    }
  }
}

template <uint32_t H>
void combine(State<H>& all, const State<H>& next, uint32_t hd) {
  for (uint32_t h = 0; h < H; ++h) {
    const float max = next.max[h] > all.max[h] ? next.max[h] : all.max[h];
    const float a = arith::pow2i(all.max[h] - max), b = arith::pow2i(next.max[h] - max);
    all.sum[h] = __builtin_fmaf(next.sum[h], b, all.sum[h] * a);
    for (uint32_t d = 0; d < hd; ++d) all.out[h][d] = __builtin_fmaf(next.out[h][d], b, all.out[h][d] * a);
    all.max[h] = max;
  }
}

// H query heads of one KV head over keys 0 .. n - 1.
template <uint32_t H>
void heads(const uint16_t* keys, const uint16_t* values, uint32_t n, const float* q /* (H, hd) */, uint32_t hd,
           float scale, float* out /* (H, hd) */) {
  State<H> all, next;
  for (uint32_t first = 0; first < n; first += kAttnSplit) {
    const uint32_t count = std::min(n - first, kAttnSplit);
    State<H>& s = first == 0 ? all : next;
    float t[H][kAttnSplit] = {};
    scores<H>(keys + uint64_t{first} * hd, count, q, hd, scale, t);
    for (uint32_t h = 0; h < H; ++h) s.max[h] = weights(t[h], count);
    sums<H>(t, count, s.sum);
    weighted_values<H>(values + uint64_t{first} * hd, count, t, hd, s.out);
    if (first != 0) combine(all, next, hd);
  }
  for (uint32_t h = 0; h < H; ++h) {
    for (uint32_t d = 0; d < hd; ++d) out[h * hd + d] = all.out[h][d] / all.sum[h];
  }
}

}  // namespace

void attention(Pool& pool, const ModelShape& s, const Rows& rows, const Sequences& sequences, uint32_t layer,
               const float* q, float* out) {
  const uint32_t hd = s.head_dim, per_kv = s.n_heads / s.n_kv_heads;
  const uint32_t groups = (per_kv + kHeads - 1) / kHeads;  // of up to 4 heads, for each KV head
  const auto scale = static_cast<float>(1.4426950408889634 / __builtin_sqrt(static_cast<double>(hd)));
  const auto one = [&](uint32_t task) {
    const uint32_t row = task / (s.n_kv_heads * groups), kv_head = task / groups % s.n_kv_heads;
    const uint32_t first = task % groups * kHeads, n_heads = std::min(kHeads, per_kv - first);
    const uint64_t at = (uint64_t{row} * s.n_heads + kv_head * per_kv + first) * hd;
    const uint16_t* keys = sequences.keys(rows.slot[row], layer, kv_head);
    const uint16_t* values = sequences.values(rows.slot[row], layer, kv_head);
    const uint32_t n = rows.position[row] + 1;
    switch (n_heads) {
      case 1: return heads<1>(keys, values, n, q + at, hd, scale, out + at);
      case 2: return heads<2>(keys, values, n, q + at, hd, scale, out + at);
      case 3: return heads<3>(keys, values, n, q + at, hd, scale, out + at);
      default: return heads<4>(keys, values, n, q + at, hd, scale, out + at);
    }
  };
  uint64_t positions = 0;
  for (uint32_t r = 0; r < rows.count; ++r) positions += rows.position[r] + 1;
  const uint32_t tasks = rows.count * s.n_kv_heads * groups;
  const double nanoseconds = 300 + positions / rows.count * hd * 0.2;
  share(pool, tasks, nanoseconds, [&](uint32_t first, uint32_t end) {
    for (uint32_t i = first; i < end; ++i) one(i);
  });
}

}  // namespace orcd::cpu
