#pragma once

#include "formats/format.h"

namespace orcd::formats {

template <>
struct Format<TensorType::kQ6_K> {
  struct Block {
    uint8_t ql[128], qh[64];
    int8_t scales[16];
    uint8_t d[2];
  };
  static constexpr uint32_t kValues = 256;
  static constexpr Scales kScales = Scales::kSplit;
  static constexpr int32_t kOffset = 32;  // w = sc · (q - 32)

  ORCD_HD void read_stored(const Block& x, uint32_t j, int32_t* w /* (32), less the offset */) {
    const uint32_t half = j / 4, c = j % 4;
    const uint8_t* ql = x.ql + 64 * half + 32 * (c & 1);
    const uint8_t* qh = x.qh + 32 * half;
    for (uint32_t i = 0; i < 32; ++i) {
      const uint32_t low = c & 2 ? ql[i] >> 4 : ql[i] & 15u;
      w[i] = int32_t(low | (qh[i] >> (2 * c) & 3u) << 4) - kOffset;
    }
  }

  ORCD_HD void read(const Block& x, SuperBlock* out) {
    for (uint32_t j = 0; j < 8; ++j) {
      read_stored(x, j, out->w + 32 * j);
      for (uint32_t h = 0; h < 2; ++h) scale_half(j, h, x.scales[2 * j + h], 0, out);
    }
    out->d = f16_at(x.d);
    out->dmin = 0.0f;
  }

  // Values 32·b .. 32·b + 31 of a row.
  ORCD_HD void read(const Block* row, uint32_t b, Block32* out) {
    const Block& x = row[b / 8];
    read_stored(x, b % 8, out->w);
    for (uint32_t h = 0; h < 2; ++h) out->d[h] = f16_at(x.d) * float(x.scales[b % 8 * 2 + h]);
  }

  static constexpr Field kFields[] = {{0, 192, 4}, {192, 16, 1}, {208, 2, 2}};
  static constexpr Planes kPlanes = {16, 8, 16, 2, true};
  static constexpr Parts kParts = {192, 208};
  ORCD_HD Bits low(uint32_t b, uint32_t v) {
    const uint32_t half = b % 8 / 4, c = b % 4;
    return {64 * half + 32 * (c & 1) + v, c & 2 ? 4u : 0u};
  }
  ORCD_HD Bits high(uint32_t b, uint32_t v) { return {128 + b % 8 / 4 * 32 + v, b % 4 * 2}; }

  static constexpr uint64_t kTileHash = 0x1625b8dfa616ec55, kPlanesHash = 0x4218974d0afefbd9;
};

}  // namespace orcd::formats
