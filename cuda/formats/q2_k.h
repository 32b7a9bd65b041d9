#pragma once

#include "formats/format.h"

namespace orcd::formats {

template <>
struct Format<TensorType::kQ2_K> {
  struct Block {
    uint8_t scales[16], qs[64], d[2], dmin[2];
  };
  static constexpr uint32_t kValues = 256;
  static constexpr Scales kScales = Scales::kSplitAffine;
  static constexpr int32_t kOffset = 0;

  ORCD_HD void read_stored(const Block& x, uint32_t j, int32_t* w /* (32) */) {
    const uint8_t* qs = x.qs + j / 4 * 32;
    for (uint32_t i = 0; i < 32; ++i) w[i] = qs[i] >> (j % 4 * 2) & 3;
  }

  // A byte has the scale of a half, and above it the minimum.
  ORCD_HD void read(const Block& x, SuperBlock* out) {
    for (uint32_t j = 0; j < 8; ++j) {
      read_stored(x, j, out->w + 32 * j);
      for (uint32_t h = 0; h < 2; ++h) scale_half(j, h, x.scales[2 * j + h] & 15, x.scales[2 * j + h] >> 4, out);
    }
    out->d = f16_at(x.d);
    out->dmin = f16_at(x.dmin);
  }

  // Values 32·b .. 32·b + 31 of a row.
  ORCD_HD void read(const Block* row, uint32_t b, Block32* out) {
    const Block& x = row[b / 8];
    read_stored(x, b % 8, out->w);
    for (uint32_t h = 0; h < 2; ++h) {
      const uint32_t both = x.scales[b % 8 * 2 + h];
      out->d[h] = f16_at(x.d) * float(both & 15u);
      out->m[h] = -(f16_at(x.dmin) * float(both >> 4));
    }
  }

  static constexpr Field kFields[] = {{0, 16, 1}, {16, 64, 4}, {80, 4, 2}};
  static constexpr Planes kPlanes = {0, 8, 16, 4, true};
  static constexpr Parts kParts = {0, 80};
  ORCD_HD Bits low(uint32_t, uint32_t) { return {}; }
  ORCD_HD Bits high(uint32_t b, uint32_t v) { return {16 + b % 8 / 4 * 32 + v, b % 4 * 2}; }

  static constexpr uint64_t kTileHash = 0x0111734e5b3ee25e, kPlanesHash = 0xa4e9e3de5184df29;
};

}  // namespace orcd::formats
