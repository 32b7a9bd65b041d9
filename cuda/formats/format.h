// What a block format is: how the file stores it, what the contract reads in it, and how the images of both backends
// lay it out. Each format is one file of this folder, Format<its type>, and a line of the list in formats.h.
#pragma once

#include <cstdint>

#include "arith/constants.h"
#include "arith/half.h"
#include "cuda-worker/src/ffi/types.rs.h"

namespace orcd::formats {

// What a block has beside its integers.
enum class Scales : uint32_t {
  kPlain,   // d: weight = d · q
  kAffine,  // d, m: d · q + m
  kSuper,   // d, dmin, and 6-bit scales and minima of eight sub-blocks: (d · sc) · q - dmin · mn
  kSplit,   // d, and int8 scales of sixteen halves of sub-blocks: d · (sc · q)
};

constexpr bool is_affine(Scales s) { return s == Scales::kAffine || s == Scales::kSuper; }

// Whether activations that meet such weights have one scale for 256 values.
constexpr bool has_super_blocks(Scales s) { return s == Scales::kSuper || s == Scales::kSplit; }

// 32 integer weights with a scale and, for the affine types, an addend: what lookups read of every format, and products
// of those without super-blocks. weight = d · w (⊕ m); the chain of a product uses d and m alike.
struct Block32 {
  int32_t w[32];
  float d;
  float m;  // 0 unless affine
  bool affine;
};

// A super-block as products read it: weight = d · w - dmin · mn of its sub-block of 32.
struct SuperBlock {
  int32_t w[kSuperBlock];  // stored value times its sub-block's scale
  int32_t mn[kSuperBlock / kQuantBlock];
  float d, dmin;
};

// A run of a block's bytes that the processor's image interleaves in pieces of `unit` bytes: piece i of the 16 rows of
// a tile lies together, and starts 16 times as far in as it does in one block.
struct Field {
  uint32_t offset, bytes, unit;
  bool transpose_bits = false;  // fifth bits, see cpu/pack.cc
};

// The GPU's image: bytes of each plane (kernels/layout.h). low, high per block of 32; head, tail per block, or per
// super-block of 256.
struct Planes {
  uint32_t low, high, head, tail;
  bool super;
};

// Where the parts of those planes lie in a block of the file.
struct Parts {
  uint32_t head, tail;
};

// Where some bits of a value lie in a block of the file.
struct Bits {
  uint32_t byte, shift;
};

ORCD_HD float f16_at(const uint8_t* p) { return arith::f16_to_f32(uint16_t(p[0] | p[1] << 8)); }

ORCD_HD uint32_t u32_at(const uint8_t* p) {
  return p[0] | uint32_t(p[1]) << 8 | uint32_t(p[2]) << 16 | uint32_t(p[3]) << 24;
}

// Low nibbles are values 0 .. 15, high ones 16 .. 31; `high` holds a fifth bit each.
ORCD_HD void read_nibbles(const uint8_t* qs, uint32_t high, int32_t offset, Block32* out) {
  for (uint32_t i = 0; i < 16; ++i) {
    out->w[i] = int32_t((qs[i] & 15u) | (high >> i & 1u) << 4) - offset;
    out->w[i + 16] = int32_t(uint32_t(qs[i] >> 4) | (high >> (i + 16) & 1u) << 4) - offset;
  }
}

// 6-bit scale and minimum of sub-block j of 8.
ORCD_HD void read_super_scales(const uint8_t* scales, uint32_t j, uint32_t* sc, uint32_t* mn) {
  if (j < 4) {
    *sc = scales[j] & 63u;
    *mn = scales[j + 4] & 63u;
  } else {
    *sc = (scales[j + 4] & 15u) | uint32_t(scales[j - 4] >> 6) << 4;
    *mn = uint32_t(scales[j + 4] >> 4) | uint32_t(scales[j] >> 6) << 4;
  }
}

// Sub-block j of a super-block with 6-bit scales, whose 32 values were read to out->w.
ORCD_HD void scale_sub_block(const uint8_t* scales, uint32_t j, SuperBlock* out) {
  uint32_t sc, mn;
  read_super_scales(scales, j, &sc, &mn);
  for (uint32_t i = 0; i < kQuantBlock; ++i) out->w[j * kQuantBlock + i] *= int32_t(sc);
  out->mn[j] = int32_t(mn);
}

template <TensorType>
struct Format;  // Blocks are little-endian, packed, and of sizes that align to nothing: read by bytes.

}  // namespace orcd::formats
