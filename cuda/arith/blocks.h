// The block formats of the file, and one common reading of them: 32 integer weights with a scale and,
// for the affine types, an addend. weight = d · w (⊕ m); the chain of a product uses d and m alike.
#pragma once

#include <cstdint>

#include "arith/half.h"
#include "orcd/engine.h"

namespace orcd::arith {

// Little-endian, packed, and of sizes that align to nothing: read by bytes.
struct BlockQ4_0 {
  uint8_t d[2], qs[16];
};  // w = q - 8
struct BlockQ4_1 {
  uint8_t d[2], m[2], qs[16];
};
struct BlockQ5_0 {
  uint8_t d[2], qh[4], qs[16];
};  // w = q - 16
struct BlockQ5_1 {
  uint8_t d[2], m[2], qh[4], qs[16];
};
struct BlockQ8_0 {
  uint8_t d[2];
  int8_t qs[32];
};
struct BlockQ4_K {
  uint8_t d[2], dmin[2], scales[12], qs[128];
};
struct BlockQ5_K {
  uint8_t d[2], dmin[2], scales[12], qh[32], qs[128];
};
struct BlockQ6_K {
  uint8_t ql[128], qh[64];
  int8_t scales[16];
  uint8_t d[2];
};  // w = sc · (q - 32)

static_assert(sizeof(BlockQ4_0) == 18 && sizeof(BlockQ4_1) == 20 && sizeof(BlockQ5_0) == 22);
static_assert(sizeof(BlockQ5_1) == 24 && sizeof(BlockQ8_0) == 34 && sizeof(BlockQ4_K) == 144);
static_assert(sizeof(BlockQ5_K) == 176 && sizeof(BlockQ6_K) == 210);

// Values in a block; 1 for the float types, 0 for a type this engine does not know.
ORCD_HD uint32_t block_values(TensorType type) {
  switch (type) {
    case TensorType::kF32:
    case TensorType::kF16:
    case TensorType::kBF16: return 1;
    case TensorType::kQ4_0:
    case TensorType::kQ4_1:
    case TensorType::kQ5_0:
    case TensorType::kQ5_1:
    case TensorType::kQ8_0: return 32;
    case TensorType::kQ4_K:
    case TensorType::kQ5_K:
    case TensorType::kQ6_K: return 256;
  }
  return 0;
}

ORCD_HD uint32_t block_bytes(TensorType type) {
  switch (type) {
    case TensorType::kF32: return 4;
    case TensorType::kF16:
    case TensorType::kBF16: return 2;
    case TensorType::kQ4_0: return sizeof(BlockQ4_0);
    case TensorType::kQ4_1: return sizeof(BlockQ4_1);
    case TensorType::kQ5_0: return sizeof(BlockQ5_0);
    case TensorType::kQ5_1: return sizeof(BlockQ5_1);
    case TensorType::kQ8_0: return sizeof(BlockQ8_0);
    case TensorType::kQ4_K: return sizeof(BlockQ4_K);
    case TensorType::kQ5_K: return sizeof(BlockQ5_K);
    case TensorType::kQ6_K: return sizeof(BlockQ6_K);
  }
  return 0;
}

ORCD_HD bool is_quantised(TensorType type) { return block_values(type) > 1; }

// Bytes of a row of `cols` values, a multiple of the block.
ORCD_HD uint64_t row_bytes(TensorType type, uint64_t cols) { return cols / block_values(type) * block_bytes(type); }

struct Block32 {
  int32_t w[32];
  float d;
  float m;  // 0 unless affine
  bool affine;
};

ORCD_HD float f16_at(const uint8_t* p) { return f16_to_f32(uint16_t(p[0] | p[1] << 8)); }

// 6-bit scale and minimum of sub-block j of 8.
ORCD_HD void k_scale_min(const uint8_t* scales, uint32_t j, uint32_t* sc, uint32_t* mn) {
  if (j < 4) {
    *sc = scales[j] & 63u;
    *mn = scales[j + 4] & 63u;
  } else {
    *sc = (scales[j + 4] & 15u) | uint32_t(scales[j - 4] >> 6) << 4;
    *mn = uint32_t(scales[j + 4] >> 4) | uint32_t(scales[j] >> 6) << 4;
  }
}

// Low nibbles are values 0 .. 15, high ones 16 .. 31; `high` holds a fifth bit each.
ORCD_HD void read_nibbles(const uint8_t* qs, uint32_t high, int32_t offset, Block32* out) {
  for (uint32_t i = 0; i < 16; ++i) {
    out->w[i] = int32_t((qs[i] & 15u) | (high >> i & 1u) << 4) - offset;
    out->w[i + 16] = int32_t(uint32_t(qs[i] >> 4) | (high >> (i + 16) & 1u) << 4) - offset;
  }
}

ORCD_HD uint32_t u32_at(const uint8_t* p) {
  return p[0] | uint32_t(p[1]) << 8 | uint32_t(p[2]) << 16 | uint32_t(p[3]) << 24;
}

// Values 32·b .. 32·b + 31 of a quantised row stored as in the file.
ORCD_HD Block32 read_block32(TensorType type, const uint8_t* row, uint32_t b) {
  Block32 out;
  out.m = 0.0f;
  out.affine = false;
  switch (type) {
    case TensorType::kQ4_0: {
      const auto& x = reinterpret_cast<const BlockQ4_0*>(row)[b];
      read_nibbles(x.qs, 0, 8, &out);
      out.d = f16_at(x.d);
      break;
    }
    case TensorType::kQ4_1: {
      const auto& x = reinterpret_cast<const BlockQ4_1*>(row)[b];
      read_nibbles(x.qs, 0, 0, &out);
      out.d = f16_at(x.d);
      out.m = f16_at(x.m);
      out.affine = true;
      break;
    }
    case TensorType::kQ5_0: {
      const auto& x = reinterpret_cast<const BlockQ5_0*>(row)[b];
      read_nibbles(x.qs, u32_at(x.qh), 16, &out);
      out.d = f16_at(x.d);
      break;
    }
    case TensorType::kQ5_1: {
      const auto& x = reinterpret_cast<const BlockQ5_1*>(row)[b];
      read_nibbles(x.qs, u32_at(x.qh), 0, &out);
      out.d = f16_at(x.d);
      out.m = f16_at(x.m);
      out.affine = true;
      break;
    }
    case TensorType::kQ8_0: {
      const auto& x = reinterpret_cast<const BlockQ8_0*>(row)[b];
      for (uint32_t i = 0; i < 32; ++i) out.w[i] = x.qs[i];
      out.d = f16_at(x.d);
      break;
    }
    case TensorType::kQ4_K:
    case TensorType::kQ5_K: {
      const uint32_t j = b % 8;
      const bool five = type == TensorType::kQ5_K;
      const uint8_t* block = row + uint64_t(b / 8) * block_bytes(type);
      const auto& x5 = *reinterpret_cast<const BlockQ5_K*>(block);
      const uint8_t* qs = (five ? x5.qs : reinterpret_cast<const BlockQ4_K*>(block)->qs) + j / 2 * 32;
      for (uint32_t i = 0; i < 32; ++i) {
        const uint32_t low = j % 2 ? qs[i] >> 4 : qs[i] & 15u;
        out.w[i] = int32_t(five ? low | (x5.qh[i] >> j & 1u) << 4 : low);
      }
      uint32_t sc, mn;
      k_scale_min(x5.scales, j, &sc, &mn);  // d, dmin and scales lie alike in both
      out.d = f16_at(x5.d) * float(sc);
      out.m = -(f16_at(x5.dmin) * float(mn));
      out.affine = true;
      break;
    }
    default: {  // Q6_K
      const auto& x = reinterpret_cast<const BlockQ6_K*>(row)[b / 8];
      const uint32_t half = b % 8 / 4, c = b % 4;
      const uint8_t* ql = x.ql + 64 * half + 32 * (c & 1);
      const uint8_t* qh = x.qh + 32 * half;
      for (uint32_t i = 0; i < 32; ++i) {
        const uint32_t low = c & 2 ? ql[i] >> 4 : ql[i] & 15u;
        const int32_t q = int32_t(low | (qh[i] >> (2 * c) & 3u) << 4) - 32;
        out.w[i] = q * x.scales[8 * half + 2 * c + i / 16];
      }
      out.d = f16_at(x.d);
    }
  }
  return out;
}

// Values first .. first + n of a row stored as in the file; n and first multiples of 32 unless the
// type is a float.
ORCD_HD void dequantise(TensorType type, const uint8_t* row, uint32_t first, uint32_t n, float* out) {
  switch (type) {
    case TensorType::kF32:
      for (uint32_t i = 0; i < n; ++i) out[i] = float_of(u32_at(row + 4 * uint64_t(first + i)));
      return;
    case TensorType::kF16:
      for (uint32_t i = 0; i < n; ++i) out[i] = f16_at(row + 2 * uint64_t(first + i));
      return;
    case TensorType::kBF16:
      for (uint32_t i = 0; i < n; ++i) {
        const uint8_t* p = row + 2 * uint64_t(first + i);
        out[i] = bf16_to_f32(uint16_t(p[0] | p[1] << 8));
      }
      return;
    default: break;
  }
  for (uint32_t b = 0; b < n / 32; ++b) {
    const Block32 block = read_block32(type, row, first / 32 + b);
    for (uint32_t i = 0; i < 32; ++i) {
      const float product = block.d * float(block.w[i]);
      out[32 * b + i] = block.affine ? product + block.m : product;
    }
  }
}

}  // namespace orcd::arith
