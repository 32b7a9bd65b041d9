// Standard Gumbel noise from one random word.
#pragma once

#include "arith/log.h"

namespace orcd::arith {

// -log(-log(1 - v)) for v = (x + 1/2) / 2^32. Small v take the series of -log(1 - v): 1 - v would lose
// their digits, and with them the largest noises. At 2^-8 both are off by some 1e-5 at most.
ORCD_HD float gumbel(uint32_t x) {
  const float v = fma32(float(x), 0x1p-32f, 0x1p-33f);  // (0, 1]
  const float series = fma32(v * 0.5f, v, v);
  const float direct = -log(1.0f - v);
  const float e = v < 0x1p-8f ? series : direct;
  return -log(e);
}

}  // namespace orcd::arith
