// Which experts a row takes, and with which weights (docs/ARITHMETIC.md, "Experts").
#pragma once

#include "arith/constants.h"
#include "arith/exp2.h"
#include "arith/hd.h"

namespace orcd::arith {

// Whether expert i of logit `a` goes before expert j of logit `b`. -0 and +0 are equal.
ORCD_HD bool goes_before(float a, uint32_t i, float b, uint32_t j) { return a > b || (a == b && i < j); }

ORCD_HD bool is_finite(float x) { return (bits_of(x) & 0x7f800000u) != 0x7f800000u; }

// Of a chosen expert, before its share of all: 1 for the first.
ORCD_HD float expert_mass(float logit, float first) { return exp2((logit - first) * kLog2E); }

// Its share of the sum of all masses, which goes over ranks ascending, times the model's factor.
ORCD_HD float share_of(float mass, float sum, float scale) { return mass / sum * scale; }

}  // namespace orcd::arith
