// How quantized matrices lie in the GPU's weights image: the file's bits, re-ordered so that a warp's
// loads are whole lines. Same size as in the file, group by group.
//
// Rows come in groups of 8 (the last one may have fewer); a group is contiguous. With R rows in it and
// nb = cols / 32 blocks in a row, its planes lie one behind the other:
//
//   low   (nb, R, 16 B)            low nibbles, word i: values 4i .. 4i+3 low, 16+4i .. high
//         (nb, 2, R, 16 B)         Q8_0: the values themselves
//   high  (segment, R, blocks) u32 Q5_*: bit 8c + i is the fifth bit of value 4i + c
//         (nb, R, 8 B)             Q2_K, Q3_K, Q6_K: word h, bits 8c + 2j: two bits of value 16h + 4j + c
//   third (segment, R, blocks) u32 Q3_K: bit 8c + i is the third bit of value 4i + c
//   head  (segment, R, blocks)     d, or d and m, of each block: f16. MXFP4: its exponent, a byte
//         (super-block, R, 16 B)   Q4_K, Q5_K: d, dmin, 12 bytes of scales. Q2_K, Q6_K: 16 scales
//         (super-block, R, 12 B)   Q3_K: 16 scales
//         (super-block, R, 8 B)    IQ4_XS: d, 6 bytes of scales
//   tail  (super-block, R) f16     Q3_K, Q6_K: d. Q2_K: d, dmin
//
// Groups of eight rows begin at multiples of 16 bytes, but for MXFP4 with rows of an odd number of blocks.
//
// Eight lanes that work on one block, a row each, read 128 bytes in a row, and all of them the same activations.
// What a row has of a segment beside the nibbles lies together: one load brings it for four blocks.
#pragma once

#include <cstdint>

#include "arith/constants.h"
#include "formats/formats.h"

namespace orcd::kernels {

inline constexpr uint32_t kGroupRows = 8;

// Where the parts of block b of row r lie in a group of `rows` rows. A group is far below 4 GiB.
struct BlockPlace {
  uint32_t low;  // second half of Q8_0: rows * 16 further
  uint32_t high, third, head, tail;
};

ORCD_HD BlockPlace place(const formats::Planes& l, uint32_t rows, uint32_t nb, uint32_t b, uint32_t r) {
  const uint32_t segment = b / kSegmentBlocks, j = b % kSegmentBlocks;
  const uint32_t left = nb - segment * kSegmentBlocks;
  const uint32_t in_segment = left < kSegmentBlocks ? left : kSegmentBlocks;
  const uint32_t per_block = segment * kSegmentBlocks * rows + r * in_segment + j;
  const uint32_t per_super = b / 8 * rows + r;
  const uint32_t low_end = nb * rows * l.low;
  const uint32_t high_end = low_end + nb * rows * l.high, third_end = high_end + nb * rows * l.third;
  BlockPlace p;
  p.low = (b * rows * (l.low / 16) + r) * 16;
  p.high = low_end + (l.high == 8 ? (b * rows + r) * 8 : per_block * 4);
  p.third = high_end + per_block * 4;
  p.head = third_end + (l.super ? per_super : per_block) * l.head;
  p.tail = third_end + nb / 8 * rows * l.head + per_super * l.tail;
  return p;
}

}  // namespace orcd::kernels
