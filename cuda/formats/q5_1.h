#pragma once

#include "formats/format.h"

namespace orcd::formats {

template <>
struct Format<TensorType::kQ5_1> {
  struct Block {
    uint8_t d[2], m[2], qh[4], qs[16];
  };
  static constexpr uint32_t kValues = 32;
  static constexpr Scales kScales = Scales::kAffine;
  static constexpr int32_t kOffset = 0;

  // Values 32·b .. 32·b + 31 of a row.
  ORCD_HD void read(const Block* row, uint32_t b, Block32* out) {
    read_nibbles(row[b].qs, u32_at(row[b].qh), kOffset, out);
    out->d[0] = out->d[1] = f16_at(row[b].d);
    out->m[0] = out->m[1] = f16_at(row[b].m);
  }

  static constexpr Field kFields[] = {{0, 4, 2}, {4, 4, 4, true}, {8, 16, 4}};
  static constexpr Planes kPlanes = {16, 4, 4, 0, false};
  static constexpr Parts kParts = {0, 0};
  ORCD_HD Bits low(uint32_t, uint32_t v) { return {8 + v % 16, v / 16 * 4}; }
  ORCD_HD Bits high(uint32_t, uint32_t v) { return {4 + v / 8, v % 8}; }

  static constexpr uint64_t kTileHash = 0xb7845c31c61350f1, kPlanesHash = 0xaeb948005b721e81;
};

}  // namespace orcd::formats
