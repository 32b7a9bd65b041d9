#pragma once

#include "formats/format.h"

namespace orcd::formats {

template <>
struct Format<TensorType::kQ5_K> {
  struct Block {
    uint8_t d[2], dmin[2], scales[12], qh[32], qs[128];
  };
  static constexpr uint32_t kValues = 256;
  static constexpr Scales kScales = Scales::kSuper;
  static constexpr int32_t kOffset = 0;

  ORCD_HD void read_stored(const Block& x, uint32_t j, int32_t* w /* (32) */) {
    const uint8_t* qs = x.qs + j / 2 * 32;
    for (uint32_t i = 0; i < 32; ++i) {
      const uint32_t low = j % 2 ? qs[i] >> 4 : qs[i] & 15u;
      w[i] = int32_t(low | (x.qh[i] >> j & 1u) << 4);
    }
  }

  ORCD_HD void read(const Block& x, SuperBlock* out) {
    for (uint32_t j = 0; j < 8; ++j) {
      read_stored(x, j, out->w + 32 * j);
      scale_sub_block(x.scales, j, out);
    }
    out->d = f16_at(x.d);
    out->dmin = f16_at(x.dmin);
  }

  // Values 32·b .. 32·b + 31 of a row.
  ORCD_HD void read(const Block* row, uint32_t b, Block32* out) {
    const Block& x = row[b / 8];
    const uint32_t j = b % 8;
    read_stored(x, j, out->w);
    uint32_t sc, mn;
    read_super_scales(x.scales, j, &sc, &mn);
    out->d[0] = out->d[1] = f16_at(x.d) * float(sc);
    out->m[0] = out->m[1] = -(f16_at(x.dmin) * float(mn));
  }

  static constexpr Field kFields[] = {{0, 4, 2}, {4, 12, 1}, {16, 160, 4}};
  static constexpr Planes kPlanes = {16, 4, 16, 0, true};
  static constexpr Parts kParts = {0, 0};
  ORCD_HD Bits low(uint32_t b, uint32_t v) { return {48 + b % 8 / 2 * 32 + v, b % 2 * 4}; }
  ORCD_HD Bits high(uint32_t b, uint32_t v) { return {16 + v, b % 8}; }

  static constexpr uint64_t kTileHash = 0x22ce253e43416f7a, kPlanesHash = 0x5bb03e23138afa7c;
};

}  // namespace orcd::formats
