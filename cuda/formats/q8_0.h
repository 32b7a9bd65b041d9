#pragma once

#include "formats/format.h"

namespace orcd::formats {

template <>
struct Format<TensorType::kQ8_0> {
  struct Block {
    uint8_t d[2];
    int8_t qs[32];
  };
  static constexpr uint32_t kValues = 32;
  static constexpr Scales kScales = Scales::kPlain;
  static constexpr int32_t kOffset = 0;

  // Values 32·b .. 32·b + 31 of a row.
  ORCD_HD void read(const Block* row, uint32_t b, Block32* out) {
    for (uint32_t i = 0; i < 32; ++i) out->w[i] = row[b].qs[i];
    out->d[0] = out->d[1] = f16_at(row[b].d);
  }

  static constexpr Field kFields[] = {{0, 2, 2}, {2, 32, 4}};
  static constexpr Planes kPlanes = {32, 0, 2, 0, false};
  static constexpr Parts kParts = {0, 0};
  // Whole bytes: copied as they are.
  ORCD_HD Bits low(uint32_t, uint32_t v) { return {2 + v, 0}; }
  ORCD_HD Bits high(uint32_t, uint32_t) { return {}; }

  static constexpr uint64_t kTileHash = 0xff2e1f0e739c9d4a, kPlanesHash = 0x277cd093f0aed6fe;
};

}  // namespace orcd::formats
