// The numbers of attention (docs/ARITHMETIC.md, "Attention"): heads as integers, and weights as fixed-point numbers.
#pragma once

#include "arith/constants.h"
#include "arith/exp2.h"
#include "arith/hd.h"
#include "arith/tanh.h"

namespace orcd::arith {

inline constexpr float kKeyMost = 2047.0f;   // of queries and keys: 12 bits
inline constexpr float kValueMost = 127.0f;  // of values: 8 bits

// How a head is made integers.
struct HeadScale {
  float d, inverse;  // both 0: all are 0
};

// Largest |x| as bits: for numbers the order of their bits, with infinities and NaNs above all of them.
ORCD_HD uint32_t max_magnitude(const float* x /* (n) */, uint32_t n) {
  uint32_t top = 0;
  for (uint32_t i = 0; i < n; ++i) {
    const uint32_t magnitude = bits_of(x[i]) & 0x7fffffffu;
    top = magnitude > top ? magnitude : top;
  }
  return top;
}

// `top`: the largest magnitude of the head, as bits. At 2^50 it ends, so that no score is infinite.
ORCD_HD HeadScale head_scale(uint32_t top, float most) {
  if (top < bits_of(0x1p-100f) || top >= bits_of(0x1p+50f)) return {0.0f, 0.0f};
  const float d = float_of(top) / most;
  return {d, 1.0f / d};
}

// rint(x · s.inverse): adding 1.5 · 2^23 rounds to the nearest integer, ties to even, and leaves it in the low bits.
// x may be no number where the scale is 0.
ORCD_HD int32_t head_integer(float x, const HeadScale& s) {
  return s.d == 0.0f ? 0 : int32_t(bits_of(x * s.inverse + 0x1.8p+23f)) - 0x4b400000;
}

// 2^x for x <= 0; from -64 down it is 2^-64.
ORCD_HD float exp2_below(float x) { return exp2_in_range(x > -64.0f ? x : -64.0f); }

// A key's weight p, 0 .. 1, in the sum of the weights: a multiple of 2^-21.
ORCD_HD int32_t sum_weight(float p) { return int32_t(bits_of(fma32(p, 0x1p+21f, 0x1.8p+23f))) - 0x4b400000; }
inline constexpr float kSumUnit = 0x1p-21f;

// What a split's weights of values are multiples of: 2^-14 of the least power of two that is not below the largest of
// its values' scales, which is 0 or at least 2^-107.
struct WeightUnit {
  float unit, inverse;
};
ORCD_HD WeightUnit weight_unit(float largest) {
  const uint32_t exponent = largest == 0.0f ? 127 : (bits_of(largest) + 0x7fffffu) >> 23;
  return {float_of((exponent - 14) << 23), float_of((268 - exponent) << 23)};
}

// rint(p · d / unit) in the low 16 bits, at most 2^14; above them is rubbish.
ORCD_HD uint32_t value_weight(float p, float d, const WeightUnit& u) {
  return bits_of(fma32(p * d, u.inverse, 0x1.8p+23f));
}

// What a product of integers and their scales is multiplied by to be a score: a power of two's exponent, or, for a soft
// cap, one of e. Rounded once.
// `scale`: 0 for 1 / sqrt(head_dim).
inline float score_scale(uint32_t head_dim, double scale, bool capped) {
  const double unit = capped ? 1.0 : 1.4426950408889634;
  return static_cast<float>(scale != 0.0 ? unit * scale : unit / __builtin_sqrt(static_cast<double>(head_dim)));
}

ORCD_HD float capped_score(float x, float cap, float inverse) { return soft_cap(x, cap, inverse) * kLog2E; }

// The first key that a row sees; `window` 0: all up to its own.
ORCD_HD uint32_t first_seen(uint32_t position, uint32_t window) {
  return window != 0 && position >= window ? position - window + 1 : 0;
}

// A head's sink as a run that has no values: its maximum and the sum of its weights.
struct SinkPart {
  float m, l;
};
ORCD_HD SinkPart sink_part(float b) {
  constexpr float kMost = 0x1p+100f;
  const float within = b < -kMost ? -kMost : b < kMost ? b : kMost;
  const float t = within * kLog2E;
#if defined(__CUDA_ARCH__)
  const float m = ceilf(t);
#else
  const float m = __builtin_ceilf(t);
#endif
  return {m, float(sum_weight(exp2_below(t - m)))};
}

}  // namespace orcd::arith
