// Quantized activations in the order in which int8 matrix units take them, for products on few rows.
// Rows come in groups of eight. Of a segment of 128 values a group's rows lie together:
//
//   q     (segment, group, 2, lane, 16 B)  lane 4g + t: row g, of two blocks values 4t .. 4t + 3 and 16 + 4t ..
//   d, …  (segment, group, 8, 4)           row, block
//
// so that a warp's loads are whole lines. What belongs to rows or blocks that are not there is never used.
#pragma once

#include <cstdint>

#include "arith/constants.h"
#include "arith/hd.h"

namespace orcd::kernels {

struct TiledActivations {
  uint32_t groups = 0;          // of eight rows
  int8_t* q = nullptr;          // null: none
  float* d = nullptr;           // scale of each block
  int32_t* sum = nullptr;       // Σ q of each block
  int32_t* sum_lo16 = nullptr;  // Σ q of its first 16 values
};

// Bytes of a segment of a group in q.
inline constexpr uint32_t kTiledSegment = 8 * kSegment;

ORCD_HD uint32_t tiled_segments(uint32_t cols) { return (cols + kSegment - 1) / kSegment; }

// Place in q of the four values from `k`, a multiple of 4.
ORCD_HD uint32_t tiled_word(const TiledActivations& a, uint32_t row, uint32_t k) {
  const uint32_t block = k / 32 % kSegmentBlocks, lane = row % 8 * 4 + k % 16 / 4;
  return (k / kSegment * a.groups + row / 8) * kTiledSegment + block / 2 * 512 + lane * 16 + block % 2 * 8 +
         k % 32 / 16 * 4;
}

// Place in d, sum and sum_lo16.
ORCD_HD uint32_t tiled_block(const TiledActivations& a, uint32_t row, uint32_t block) {
  return ((block / kSegmentBlocks * a.groups + row / 8) * 8 + row % 8) * kSegmentBlocks + block % kSegmentBlocks;
}

}  // namespace orcd::kernels
