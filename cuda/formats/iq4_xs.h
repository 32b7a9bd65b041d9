#pragma once

#include "formats/format.h"

namespace orcd::formats {

template <>
struct Format<TensorType::kIQ4_XS> {
  struct Block {
    uint8_t d[2], scales_h[2], scales_l[4], qs[128];
  };
  static constexpr uint32_t kValues = 256;
  static constexpr Scales kScales = Scales::kSigned;
  static constexpr int32_t kOffset = 0;
  static constexpr Table kTable = kUneven;

  // Scale of sub-block j of 8: 6 bits, less 32.
  ORCD_HD int32_t scale_of(const Block& x, uint32_t j) {
    const uint32_t low = x.scales_l[j / 2] >> (j % 2 * 4) & 15u, high = x.scales_h[j / 4] >> (j % 4 * 2) & 3u;
    return int32_t(low | high << 4) - 32;
  }

  ORCD_HD void read(const Block& x, SuperBlock* out) {
    constexpr Table table = kTable;
    for (uint32_t j = 0; j < 8; ++j) {
      read_table(table, x.qs + 16 * j, out->w + 32 * j);
      for (uint32_t h = 0; h < 2; ++h) scale_half(j, h, scale_of(x, j), 0, out);
    }
    out->d = f16_at(x.d);
    out->dmin = 0.0f;
  }

  // Values 32·b .. 32·b + 31 of a row.
  ORCD_HD void read(const Block* row, uint32_t b, Block32* out) {
    constexpr Table table = kTable;
    const Block& x = row[b / 8];
    read_table(table, x.qs + b % 8 * 16, out->w);
    out->d[0] = out->d[1] = f16_at(x.d) * float(scale_of(x, b % 8));
  }

  static constexpr Field kFields[] = {{0, 2, 2}, {2, 6, 1}, {8, 128, 4}};
  static constexpr Planes kPlanes = {16, 0, 8, 0, true};
  static constexpr Parts kParts = {0, 0};
  ORCD_HD Bits low(uint32_t b, uint32_t v) { return {8 + b % 8 * 16 + v % 16, v / 16 * 4}; }
  ORCD_HD Bits high(uint32_t, uint32_t) { return {}; }

  static constexpr uint64_t kTileHash = 0xa9c8c29dd4787753, kPlanesHash = 0x264a0cd4b02b5fe9;
};

}  // namespace orcd::formats
