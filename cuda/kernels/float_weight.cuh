// Values of float weights.
#pragma once

#include "arith/half.h"
#include "ops/ops.h"

namespace orcd::kernels {

__device__ __forceinline__ float float_weight(const Tensor& w, uint64_t i) {
  if (w.type == TensorType::kF32) return reinterpret_cast<const float*>(w.data)[i];
  const uint16_t bits = reinterpret_cast<const uint16_t*>(w.data)[i];
  return w.type == TensorType::kF16 ? arith::f16_to_f32(bits) : arith::bf16_to_f32(bits);
}

}  // namespace orcd::kernels
