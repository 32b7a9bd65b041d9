#pragma once

#include "formats/format.h"

namespace orcd::formats {

template <>
struct Format<TensorType::kMXFP4> {
  struct Block {
    uint8_t e, qs[16];
  };
  static constexpr uint32_t kValues = 32;
  static constexpr Scales kScales = Scales::kPlain;
  static constexpr int32_t kOffset = 0;
  // Floats of four bits (sign, two of exponent, one of mantissa), doubled: the scale is halved for that.
  static constexpr Table kTable = table_of({0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12});

  // Values 32·b .. 32·b + 31 of a row.
  ORCD_HD void read(const Block* row, uint32_t b, Block32* out) {
    constexpr Table table = kTable;
    read_table(table, row[b].qs, out->w);
    out->d[0] = out->d[1] = power_of(row[b].e);
  }

  static constexpr Field kFields[] = {{0, 1, 1}, {1, 16, 4}};
  static constexpr Planes kPlanes = {16, 0, 1, 0, false};
  static constexpr Parts kParts = {0, 0};
  ORCD_HD Bits low(uint32_t, uint32_t v) { return {1 + v % 16, v / 16 * 4}; }
  ORCD_HD Bits high(uint32_t, uint32_t) { return {}; }

  static constexpr uint64_t kTileHash = 0x82a44b7ee9f7b58e, kPlanesHash = 0x00e2481d9768779a;
};

}  // namespace orcd::formats
