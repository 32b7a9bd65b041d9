// How activations lie that the matrix units of warpgroups read (kernels/matmul_warpgroup.cu): ready to be copied to
// shared memory in three pieces for each super-block of K. Of a step of `rows` rows, in groups of eight, with cols /
// 256 super-blocks:
//
//   planes   (super-block, plane, group, half, row of 8, 128 B)   value v = q << shift in two parts, v = 8 · high + low with
//            0 <= low < 8: plane 0 has `high` as int8, plane 1 `low`, plane 2 32 · low as uint8. Pieces of 16 bytes of a row
//            are swapped as the matrix unit's 128-byte swizzle has it.
//   numbers  (super-block, group, 288 B)   of each row the sums of its eight blocks, as Quantized::sum has them, then of
//            each row the scale.
#pragma once

#include "arith/hd.h"
#include "ops/ops.h"

namespace orcd {

inline constexpr uint32_t kTileRows = 8;  // of a group
inline constexpr uint32_t kTilePlanes = 3;
inline constexpr uint32_t kPlaneBytes = kTileRows * kSuperBlock;  // of a group in a super-block
inline constexpr uint32_t kTileSums = kTileRows * kSuperBlocks;   // words
inline constexpr uint32_t kNumbersBytes = (kTileSums + kTileRows) * 4;

// Bytes of all that for steps of up to so many rows. The numbers lie behind all planes of the step.
ORCD_HD uint64_t tiles_bytes(uint64_t rows, uint32_t cols) {
  return (rows + kTileRows - 1) / kTileRows * (cols / kSuperBlock) * (kTilePlanes * kPlaneBytes + kNumbersBytes);
}

ORCD_HD uint64_t tile_groups(uint32_t rows) { return (rows + kTileRows - 1) / kTileRows; }

// Where a group's rows begin, in bytes.
ORCD_HD uint64_t plane_place(uint32_t rows, uint32_t super, uint32_t plane, uint32_t group) {
  return ((uint64_t{super} * kTilePlanes + plane) * tile_groups(rows) + group) * kPlaneBytes;
}

ORCD_HD uint64_t numbers_place(uint32_t rows, uint32_t cols, uint32_t super, uint32_t group) {
  return plane_place(rows, cols / kSuperBlock, 0, 0) + (super * tile_groups(rows) + group) * kNumbersBytes;
}

// Word of four values, 4 · word and on, of a row in one plane of its group: bytes.
ORCD_HD uint32_t plane_word(uint32_t row, uint32_t word) {
  return word / 32 * (kPlaneBytes / 2) + row * 128 + ((word % 32 / 4) ^ row) * 16 + word % 4 * 4;
}

// Where a block's sum lies among a row's: two rows four apart don't meet in a bank.
ORCD_HD uint32_t sum_place(uint32_t row, uint32_t block) { return block ^ (row & 4u); }
ORCD_HD uint32_t sum_word(uint32_t row, uint32_t block) { return row * kSuperBlocks + sum_place(row, block); }

// Of four values their bytes in the first two planes; those of the third are 32 times as much as the second's.
struct ValueParts {
  uint32_t high, low;
};

ORCD_HD ValueParts parts_of(uint32_t q, uint32_t shift) {
  ValueParts out = {0, 0};
  for (uint32_t i = 0; i < 4; ++i) {
    const int32_t v = int32_t(int8_t(q >> (8 * i))) * int32_t(1u << shift);
    out.high |= (uint32_t(v >> 3) & 255u) << (8 * i);
    out.low |= (uint32_t(v) & 7u) << (8 * i);
  }
  return out;
}

}  // namespace orcd
