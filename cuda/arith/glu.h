// Gated units: what gate and up become together.
#pragma once

#include "arith/exp2.h"
#include "arith/tanh.h"
#include "orcd/engine.h"

namespace orcd::arith {

ORCD_HD float gated(Activation activation, float gate, float up) {
  const float open = activation == Activation::kGeGlu ? gelu(gate) : gate * sigmoid(gate);
  return open * up;
}

}  // namespace orcd::arith
