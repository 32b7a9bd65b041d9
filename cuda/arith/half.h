// binary16 and bfloat16 to and from binary32, by integer operations: exact widening, and rounding to
// nearest even. The same bits as F16C and as CUDA's __half conversions for everything but NaN payloads.
#pragma once

#include "arith/hd.h"

namespace orcd::arith {

ORCD_HD float f16_to_f32(uint16_t h) {
  const uint32_t sign = uint32_t(h & 0x8000u) << 16;
  const uint32_t magnitude = h & 0x7fffu;
  if (magnitude >= 0x7c00u) return float_of(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
  if (magnitude >= 0x0400u) return float_of(sign | ((magnitude << 13) + 0x38000000u));
  // Subnormal: magnitude · 2^-24, a product of two exact numbers with an exact result.
  return float_of(sign | bits_of(float(magnitude) * 5.9604644775390625e-8f));
}

ORCD_HD uint16_t f32_to_f16(float x) {
  const uint32_t bits = bits_of(x);
  const uint16_t sign = uint16_t(bits >> 16 & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return uint16_t(sign | 0x7e00u);
  if (magnitude >= 0x477ff000u) return uint16_t(sign | 0x7c00u);  // 65520 and more round to infinity
  if (magnitude < 0x38800000u) {
    // Subnormal result: adding 0.5 leaves |x| in units of 2^-24, rounded by the addition.
    return uint16_t(sign | (bits_of(float_of(magnitude) + 0.5f) - 0x3f000000u));
  }
  const uint32_t odd = magnitude >> 13 & 1u;
  return uint16_t(sign | ((magnitude - 0x38000000u + 0xfffu + odd) >> 13));
}

ORCD_HD float bf16_to_f32(uint16_t h) { return float_of(uint32_t(h) << 16); }

}  // namespace orcd::arith
