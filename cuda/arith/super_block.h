// How the blocks of a super-block of activations share its scale (docs/ARITHMETIC.md, "Activation quantization"): each
// has integers of its own unit, a power of two of which the scale's unit is the least.
#pragma once

#include "arith/hd.h"

namespace orcd::arith {

inline constexpr uint32_t kMostShift = 3;

// By how much the integers of a block are shifted up to be of the super-block's unit: the least shift, 0 to kMostShift,
// for which the block's largest magnitude is within top · 2^(shift − kMostShift). `top`: of the super-block, at least
// 2^-100.
ORCD_HD uint32_t block_shift(float top_of_block, float top) {
  return uint32_t(top_of_block > top * 0.125f) + uint32_t(top_of_block > top * 0.25f) +
         uint32_t(top_of_block > top * 0.5f);
}

// 2^-kMostShift of a scale: the unit; and 2^(kMostShift − shift), by which the inverse of the scale is multiplied for a
// block's integers. Both exact.
inline constexpr float kShiftUnit = 0.125f;
ORCD_HD float block_factor(uint32_t shift) { return float(1u << (kMostShift - shift)); }

// Bit of a word of shifts where block `b` of a super-block has its two.
ORCD_HD uint32_t shift_place(uint32_t b) { return b % 4 * 8 + b / 4 * 4; }

// Blocks 4 · half .. 4 · half + 3, a byte each.
ORCD_HD uint32_t shifts_of_half(uint32_t shifts, uint32_t half) { return shifts >> (half * 4) & 0x03030303u; }

ORCD_HD uint32_t shift_of(uint32_t shifts, uint32_t b) { return shifts >> shift_place(b) & 3u; }

}  // namespace orcd::arith
