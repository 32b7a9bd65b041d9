#pragma once

#include "formats/format.h"

namespace orcd::formats {

template <>
struct Format<TensorType::kQ3_K> {
  struct Block {
    uint8_t hmask[32], qs[64], scales[12], d[2];
  };
  static constexpr uint32_t kValues = 256;
  static constexpr Scales kScales = Scales::kSplit;
  static constexpr int32_t kOffset = 4;  // w = sc · (q - 4)

  ORCD_HD void read_stored(const Block& x, uint32_t j, int32_t* w /* (32), less the offset */) {
    const uint8_t* qs = x.qs + j / 4 * 32;
    for (uint32_t i = 0; i < 32; ++i) {
      const uint32_t low = qs[i] >> (j % 4 * 2) & 3u;
      w[i] = int32_t(low | (x.hmask[i] >> j & 1u) << 2) - kOffset;
    }
  }

  // Scale of half i of 16: 6 bits, less 32. Four of them are in the nibbles of the first eight bytes, two in the rest.
  ORCD_HD int32_t scale_of(const Block& x, uint32_t i) {
    const uint32_t low = x.scales[i % 8] >> (i / 8 * 4) & 15u, high = x.scales[8 + i % 4] >> (i / 4 * 2) & 3u;
    return int32_t(low | high << 4) - 32;
  }

  ORCD_HD void read(const Block& x, SuperBlock* out) {
    for (uint32_t j = 0; j < 8; ++j) {
      read_stored(x, j, out->w + 32 * j);
      for (uint32_t h = 0; h < 2; ++h) scale_half(j, h, scale_of(x, 2 * j + h), 0, out);
    }
    out->d = f16_at(x.d);
    out->dmin = 0.0f;
  }

  // Values 32·b .. 32·b + 31 of a row.
  ORCD_HD void read(const Block* row, uint32_t b, Block32* out) {
    const Block& x = row[b / 8];
    read_stored(x, b % 8, out->w);
    for (uint32_t h = 0; h < 2; ++h) out->d[h] = f16_at(x.d) * float(scale_of(x, b % 8 * 2 + h));
  }

  static constexpr Field kFields[] = {{0, 96, 4}, {96, 12, 1}, {108, 2, 2}};
  static constexpr Planes kPlanes = {0, 8, 12, 2, true, 4};
  static constexpr Parts kParts = {96, 108};
  ORCD_HD Bits low(uint32_t, uint32_t) { return {}; }
  ORCD_HD Bits high(uint32_t b, uint32_t v) { return {32 + b % 8 / 4 * 32 + v, b % 4 * 2}; }
  ORCD_HD Bits third(uint32_t b, uint32_t v) { return {v, b % 8}; }

  static constexpr uint64_t kTileHash = 0x7f287a9783e37266, kPlanesHash = 0xac91aa452ab27f00;
};

}  // namespace orcd::formats
