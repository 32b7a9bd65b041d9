#include <cstring>

#include "arith/attend.h"
#include "cpu/ops.h"
#include "engine/rope.h"

namespace orcd::cpu {
namespace {

void add_bias(float* y /* (n) */, const float* bias /* (n) or null */, uint32_t n) {
  if (!bias) return;
  for (uint32_t i = 0; i < n; ++i) y[i] = y[i] + bias[i];
}

// Rotates the first values of one head in place.
void rotate(float* x /* (2 * pairs) and more */, const float* cos /* (pairs) */, const float* sin /* (pairs) */,
            uint32_t pairs, RopeStyle style) {
  const bool neox = style == RopeStyle::kNeox;
  for (uint32_t i = 0; i < pairs; ++i) {
    float& a = x[neox ? i : 2 * i];
    float& b = x[neox ? i + pairs : 2 * i + 1];
    const float x0 = a, x1 = b;
    a = __builtin_fmaf(x0, cos[i], -(x1 * sin[i]));
    b = __builtin_fmaf(x0, sin[i], x1 * cos[i]);
  }
}

// Appends one head of a key and its value.
void append(uint8_t* page, uint32_t token, uint32_t head_dim, const float* k /* (head_dim) */, const float* v) {
  const HeadPage at = {head_dim};
  const arith::HeadScale key = arith::head_scale(arith::max_magnitude(k, head_dim), arith::kKeyMost);
  const arith::HeadScale value = arith::head_scale(arith::max_magnitude(v, head_dim), arith::kValueMost);
  for (uint32_t d = 0; d < head_dim; ++d) {
    const auto integer = static_cast<int16_t>(arith::head_integer(k[d], key));
    std::memcpy(page + at.key(token, d), &integer, sizeof integer);
    page[at.value(token, d)] = static_cast<uint8_t>(arith::head_integer(v[d], value));
  }
  std::memcpy(page + at.key_scale(token), &key.d, sizeof key.d);
  std::memcpy(page + at.value_scale(token), &value.d, sizeof value.d);
}

}  // namespace

Rotation::Rotation(const RopeSpec& spec, const float* divisors)
    : pairs(spec.pairs),
      style(spec.style),
      magnitude(rope_magnitude(spec)),
      frequency(rope_frequencies(spec, divisors)) {}

void rotation_rows(Rotation& r, const Rows& rows) {
  r.cos.resize(uint64_t{rows.count} * r.pairs);
  r.sin.resize(r.cos.size());
  for (uint32_t row = 0; row < rows.count; ++row) {
    for (uint32_t i = 0; i < r.pairs; ++i) {
      const arith::CosSin c = arith::cos_sin(rows.position[row] * r.frequency[i], r.magnitude);
      r.cos[uint64_t{row} * r.pairs + i] = c.cos;
      r.sin[uint64_t{row} * r.pairs + i] = c.sin;
    }
  }
}

void rope_kv(Pool& pool, const ModelShape& s, const Rotation& rotation, const Rows& rows,
             const SequenceStore& sequences, const KvCache& kv, uint32_t layer, const AttentionInputs& in) {
  const uint32_t hd = s.head_dim, q_width = s.n_heads * hd, kv_width = s.n_kv_heads * hd;
  const auto one_row = [&](uint32_t r) {
    float* q = in.q + uint64_t{r} * q_width;
    float* k = in.k + uint64_t{r} * kv_width;
    float* v = in.v + uint64_t{r} * kv_width;
    add_bias(q, in.q_bias, q_width);
    add_bias(k, in.k_bias, kv_width);
    add_bias(v, in.v_bias, kv_width);
    const float* cos = rotation.cos.data() + uint64_t{r} * rotation.pairs;
    const float* sin = rotation.sin.data() + uint64_t{r} * rotation.pairs;
    const auto turn = [&](float* head, const float* norm) {
      if (norm) rmsnorm_row(head, norm, hd, s.rms_eps, head);
      rotate(head, cos, sin, rotation.pairs, rotation.style);
    };
    for (uint32_t h = 0; h < s.n_heads; ++h) turn(q + h * hd, in.q_norm);
    for (uint32_t h = 0; h < s.n_kv_heads; ++h) turn(k + h * hd, in.k_norm);
    if (s.query_scale != 0) {
      const float scale = query_scale(s, rows.position[r]);
      for (uint32_t i = 0; i < q_width; ++i) q[i] = q[i] * scale;
    }
    const uint32_t page = sequences.pages(rows.slot[r])[rows.position[r] / kPageTokens];
    for (uint32_t h = 0; h < s.n_kv_heads; ++h)
      append(kv.head(page, layer, h), rows.position[r] % kPageTokens, hd, k + h * hd, v + h * hd);
  };
  share(pool, rows.count, (q_width + 4.0 * kv_width) * 0.8, [&](uint32_t first, uint32_t end) {
    for (uint32_t r = first; r < end; ++r) one_row(r);
  });
}

}  // namespace orcd::cpu
