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
  kPlain,        // d: weight = d · q
  kAffine,       // d, m: d · q + m
  kSuper,        // d, dmin, and 6-bit scales and minima of eight sub-blocks: (d · sc) · q - dmin · mn
  kSplit,        // d, and signed scales of sixteen halves of sub-blocks: d · (sc · q)
  kSplitAffine,  // d, dmin, and 4-bit scales and minima of the halves: (d · sc) · q - dmin · mn
  kSigned,       // d, and signed scales of eight sub-blocks: d · (sc · q)
};

constexpr bool is_affine(Scales s) { return s == Scales::kAffine || s == Scales::kSuper || s == Scales::kSplitAffine; }

// Whether activations that meet such weights have one scale for 256 values.
constexpr bool has_super_blocks(Scales s) { return s != Scales::kPlain && s != Scales::kAffine; }

// Whether the two halves of a block of 32 have scales of their own.
constexpr bool has_halves(Scales s) { return s == Scales::kSplit || s == Scales::kSplitAffine; }

inline constexpr uint32_t kHalfBlock = kQuantBlock / 2;

// 32 integer weights with a scale and, for the affine types, an addend, of each half: what lookups read of every format,
// and products of those without super-blocks, whose halves have the same. weight = d · w (⊕ m); the chain of a product
// uses d and m alike.
struct Block32 {
  int32_t w[32];
  float d[2];
  float m[2];  // 0 unless affine
  bool affine;
};

// A super-block as products read it: weight = d · w - dmin · mn of its half of a sub-block.
struct SuperBlock {
  int32_t w[kSuperBlock];  // stored value times its scale
  int32_t mn[kSuperBlock / kHalfBlock];
  float d, dmin;
};

// A run of a block's bytes that the processor's image interleaves in pieces of `unit` bytes: piece i of the 16 rows of
// a tile lies together, and starts 16 times as far in as it does in one block.
struct Field {
  uint32_t offset, bytes, unit;
  bool transpose_bits = false;  // fifth bits, see cpu/pack.cc
};

// The GPU's image: bytes of each plane (kernels/layout.h). low, high, third per block of 32; head, tail per block, or
// per super-block of 256.
struct Planes {
  uint32_t low, high, head, tail;
  bool super;
  uint32_t third = 0;
};

// Where the parts of those planes lie in a block of the file.
struct Parts {
  uint32_t head, tail;
};

// Where some bits of a value lie in a block of the file.
struct Bits {
  uint32_t byte, shift;
};

// The integers that nibbles stand for where these are no numbers themselves, four to a word.
struct Table {
  uint32_t words[4];
};

constexpr Table table_of(const int (&values)[16]) {
  Table t = {};
  for (uint32_t i = 0; i < 16; ++i) t.words[i / 4] |= (uint32_t(values[i]) & 255u) << (i % 4 * 8);
  return t;
}

// IQ4_NL's and IQ4_XS's.
inline constexpr Table kUneven = table_of({-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113});

template <class F>
concept HasTable = requires { F::kTable; };

// Whether a block's scale is a power of two of which the file has the exponent, a byte.
template <class F>
inline constexpr bool kHasPower = F::kPlanes.head == 1;

// 2^(e - 128), of the two least exponents a denormal number.
ORCD_HD float power_of(uint32_t e) { return arith::float_of(e < 2 ? 0x00200000u << e : (e - 1) << 23); }

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

// The same with a table instead of an offset.
ORCD_HD void read_table(const Table& table, const uint8_t* qs, int32_t* w /* (32) */) {
  const auto value = [&](uint32_t q) { return int32_t(int8_t(table.words[q / 4] >> (q % 4 * 8))); };
  for (uint32_t i = 0; i < 16; ++i) {
    w[i] = value(qs[i] & 15u);
    w[i + 16] = value(uint32_t(qs[i] >> 4));
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

// Scale and minimum of half h of sub-block j, whose 32 values were read to out->w.
ORCD_HD void scale_half(uint32_t j, uint32_t h, int32_t sc, int32_t mn, SuperBlock* out) {
  const uint32_t half = 2 * j + h;
  for (uint32_t i = 0; i < kHalfBlock; ++i) out->w[half * kHalfBlock + i] *= sc;
  out->mn[half] = mn;
}

// Sub-block j of a super-block with 6-bit scales and minima, likewise.
ORCD_HD void scale_sub_block(const uint8_t* scales, uint32_t j, SuperBlock* out) {
  uint32_t sc, mn;
  read_super_scales(scales, j, &sc, &mn);
  for (uint32_t h = 0; h < 2; ++h) scale_half(j, h, int32_t(sc), int32_t(mn), out);
}

template <TensorType>
struct Format;  // Blocks are little-endian, packed, and of sizes that align to nothing: read by bytes.

}  // namespace orcd::formats
