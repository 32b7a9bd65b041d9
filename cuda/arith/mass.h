// How much a token weighs beside the most likely one: in fixed point, so that sums of it are the same in any order.
#pragma once

#include "arith/exp2.h"
#include "arith/hd.h"
#include "arith/log.h"

namespace orcd::arith {

// e^(t - top), 1 where both are equal (infinite ones, too).
ORCD_HD float weight(float t, float top) { return t == top ? 1.0f : exp2((t - top) * kLog2E); }

// A weight in 32 binary digits after the point.
ORCD_HD uint64_t fixed(float weight) { return static_cast<uint64_t>(weight * 0x1p32f); }

ORCD_HD uint64_t mass(float t, float top) { return fixed(weight(t, top)); }

// Natural logarithm of the share that e^(logit - top) has of `total`, the sum of all masses. Tokens below 2^-32 of the
// most likely one weigh nothing in it: at most 3.6e-5 too much for a vocabulary of 152 000.
ORCD_HD float logprob(float logit, float top, uint64_t total) {
  return (logit - top) - log(static_cast<float>(total) * 0x1p-32f);
}

}  // namespace orcd::arith
