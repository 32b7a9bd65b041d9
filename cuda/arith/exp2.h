// exp2, powers of two, sigmoid. Branch-free but for selects, so that compilers vectorise the callers.
#pragma once

#include "arith/hd.h"

namespace orcd::arith {

inline constexpr float kLog2E = 0x1.715476p+0f;

// 2^x for -126 <= x < 128. Relative error at most 8e-8.
ORCD_HD float exp2_in_range(float x) {
  const float magic = 0x1.8p+23f;  // adding it rounds to an integer, to nearest even
  const float shifted = x + magic;
  const uint32_t n = bits_of(shifted) - bits_of(magic);
  const float f = x - (shifted - magic);  // exact, in [-1/2, 1/2]
  float p = 0x1.41fbbap-13f;
  p = fma32(p, f, 0x1.5f3e54p-10f);
  p = fma32(p, f, 0x1.3b2d4cp-7f);
  p = fma32(p, f, 0x1.c6aee8p-5f);
  p = fma32(p, f, 0x1.ebfbdcp-3f);
  p = fma32(p, f, 0x1.62e430p-1f);
  p = fma32(p, f, 1.0f);
  // The exponent is added as an integer: 2^n alone is no float for n = 128, the result always is.
  return float_of(bits_of(p) + (n << 23));
}

// 2^x. 0 below -126, +inf from 128 on, NaN for NaN. Relative error at most 8e-8.
ORCD_HD float exp2(float x) {
  float r = exp2_in_range(x >= -126.0f && x < 128.0f ? x : 0.0f);
  r = x < -126.0f ? 0.0f : r;
  r = x >= 128.0f ? infinity() : r;
  return x != x ? x : r;
}

// 2^k for an integral k in -126 .. 127, 0 below.
ORCD_HD float pow2i(float k) {
  const float in_range = k >= -126.0f ? k : 0.0f;
  const float r = float_of(uint32_t(int32_t(in_range) + 127) << 23);
  return k >= -126.0f ? r : 0.0f;
}

// 1 / (1 + 2^(-x·log2 e)). Absolute error at most 1e-7; relative 4e-6 down to results of 1e-30, where
// the rounding of x·log2 e shows.
ORCD_HD float sigmoid(float x) { return 1.0f / (1.0f + exp2(-x * kLog2E)); }

}  // namespace orcd::arith
