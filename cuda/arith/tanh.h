// tanh, and GELU in its form with tanh. Branch-free but for selects.
#pragma once

#include "arith/exp2.h"

namespace orcd::arith {

// -1 .. 1, NaN for NaN. Relative error at most 2.5e-7. Below 0.5625 by a polynomial in x², interpolated at Chebyshev's
// nodes (4.6e-9 off); above by 1 - 2 / (e^(2|x|) + 1).
ORCD_HD float tanh(float x) {
  const float a = float_of(bits_of(x) & 0x7fffffffu), u = a * a;
  float p = -0x1.aba8f0p-8f;
  p = fma32(p, u, 0x1.5c60f8p-6f);
  p = fma32(p, u, -0x1.b9902cp-5f);
  p = fma32(p, u, 0x1.110fb4p-3f);
  p = fma32(p, u, -0x1.555554p-2f);
  const float near = fma32(a, p * u, a);
  const float far = 1.0f - 2.0f / (exp2(a * (2.0f * kLog2E)) + 1.0f);
  const float r = a < 0.5625f ? near : far;
  return float_of(bits_of(r) | (bits_of(x) & 0x80000000u));
}

// x · sigmoid(2·√(2/π)·(x + 0.044715·x³)), which is 0.5·x·(1 + tanh(√(2/π)·(x + 0.044715·x³))) without its
// cancellation. Finite for finite x; NaN for -inf and NaN. Absolute error at most 3e-7 of max(|x|, 1).
ORCD_HD float gelu(float x) {
  const float linear = 0x1.988454p+0f, cubic = 0x1.2444f2p-4f;  // 2·√(2/π), and 0.044715 of that
  return x * sigmoid(x * fma32(cubic, x * x, linear));
}

// cap · tanh(x / cap), for a cap whose reciprocal was rounded once.
ORCD_HD float soft_cap(float x, float cap, float inverse) { return cap * tanh(x * inverse); }

}  // namespace orcd::arith
