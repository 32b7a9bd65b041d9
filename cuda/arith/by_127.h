// Division by 127, the largest quantized magnitude, without a division.
#pragma once

#include "arith/hd.h"

namespace orcd::arith {

// x / 127, rounded as a division is, for 2^-100 <= x < infinity: the product with the rounded inverse,
// corrected once by its exact remainder.
ORCD_HD float by_127(float x) {
  const float inverse = 0x1.020408p-7f, near = x * inverse;
  return fma32(fma32(-127.0f, near, x), inverse, near);
}

}  // namespace orcd::arith
