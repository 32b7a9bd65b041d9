// Gated units: what gate and up become together.
#pragma once

#include "arith/exp2.h"
#include "arith/tanh.h"
#include "orcd/engine.h"

namespace orcd::arith {

ORCD_HD float gated(Activation activation, float gate, float up) {
  if (activation == Activation::kClampedSwiGlu) {
    constexpr float kLimit = 7.0f, kSteepness = 1.702f;
    const float x = gate < kLimit ? gate : kLimit;
    const float y = up < -kLimit ? -kLimit : up < kLimit ? up : kLimit;
    return (x * sigmoid(x * kSteepness)) * (y + 1.0f);
  }
  const float open = activation == Activation::kGeGlu ? gelu(gate) : gate * sigmoid(gate);
  return open * up;
}

}  // namespace orcd::arith
