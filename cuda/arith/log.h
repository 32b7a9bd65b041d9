// Natural logarithm, for the Gumbel draw.
#pragma once

#include "arith/hd.h"

namespace orcd::arith {

// log x for x normal and positive, or 0 (-inf), or +inf (+inf). Anything else gives an unspecified
// value that is the same everywhere. Error at most 9e-8 relative to the result.
ORCD_HD float log(float x) {
  const uint32_t sqrt_half = 0x3f3504f3u;
  const uint32_t offset = bits_of(x) - sqrt_half;
  const float e = float(int32_t(offset) >> 23);
  const float f = float_of((offset & 0x007fffffu) + sqrt_half) - 1.0f;  // in [sqrt(1/2), sqrt 2) - 1
  float p = -0x1.383d96p-4f;
  p = fma32(p, f, 0x1.084e00p-3f);
  p = fma32(p, f, -0x1.0f375cp-3f);
  p = fma32(p, f, 0x1.22709cp-3f);
  p = fma32(p, f, -0x1.54274ap-3f);
  p = fma32(p, f, 0x1.99a402p-3f);
  p = fma32(p, f, -0x1.000428p-2f);
  p = fma32(p, f, 0x1.555550p-2f);
  p = fma32(p, f, -0x1.fffff8p-2f);
  const float log_m = fma32(f * f, p, f);
  float r = fma32(e, 0x1.62e430p-1f, log_m);
  r = x == 0.0f ? -infinity() : r;
  return x == infinity() ? x : r;
}

}  // namespace orcd::arith
