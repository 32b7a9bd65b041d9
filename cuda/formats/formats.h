// All types of tensors: the list of block formats, and what is asked about a type that is known only at run time.
#pragma once

#include <cstdint>

#include "formats/format.h"
#include "formats/iq4_nl.h"
#include "formats/iq4_xs.h"
#include "formats/mxfp4.h"
#include "formats/q2_k.h"
#include "formats/q3_k.h"
#include "formats/q4_0.h"
#include "formats/q4_1.h"
#include "formats/q4_k.h"
#include "formats/q5_0.h"
#include "formats/q5_1.h"
#include "formats/q5_k.h"
#include "formats/q6_k.h"
#include "formats/q8_0.h"

namespace orcd::formats {

inline constexpr TensorType kAllTypes[] = {
    TensorType::kF32,    TensorType::kF16,    TensorType::kQ4_0, TensorType::kQ4_1,
    TensorType::kQ5_0,   TensorType::kQ5_1,   TensorType::kQ8_0, TensorType::kQ2_K,
    TensorType::kQ3_K,   TensorType::kQ4_K,   TensorType::kQ5_K, TensorType::kQ6_K,
    TensorType::kIQ4_NL, TensorType::kIQ4_XS, TensorType::kBF16, TensorType::kMXFP4};

// f.template operator()<T>() for the block format T that is `type`; nothing for a float type or one that is unknown.
template <class F>
ORCD_HD void with_format(TensorType type, F&& f) {
  switch (type) {
    case TensorType::kQ4_0: return f.template operator()<TensorType::kQ4_0>();
    case TensorType::kQ4_1: return f.template operator()<TensorType::kQ4_1>();
    case TensorType::kQ5_0: return f.template operator()<TensorType::kQ5_0>();
    case TensorType::kQ5_1: return f.template operator()<TensorType::kQ5_1>();
    case TensorType::kQ8_0: return f.template operator()<TensorType::kQ8_0>();
    case TensorType::kQ2_K: return f.template operator()<TensorType::kQ2_K>();
    case TensorType::kQ3_K: return f.template operator()<TensorType::kQ3_K>();
    case TensorType::kQ4_K: return f.template operator()<TensorType::kQ4_K>();
    case TensorType::kQ5_K: return f.template operator()<TensorType::kQ5_K>();
    case TensorType::kQ6_K: return f.template operator()<TensorType::kQ6_K>();
    case TensorType::kIQ4_NL: return f.template operator()<TensorType::kIQ4_NL>();
    case TensorType::kIQ4_XS: return f.template operator()<TensorType::kIQ4_XS>();
    case TensorType::kMXFP4: return f.template operator()<TensorType::kMXFP4>();
    default: return;
  }
}

// Values in a block; 1 for the float types, 0 for a type this engine does not know.
ORCD_HD uint32_t block_values(TensorType type) {
  if (type == TensorType::kF32 || type == TensorType::kF16 || type == TensorType::kBF16) return 1;
  uint32_t values = 0;
  with_format(type, [&]<TensorType T>() { values = Format<T>::kValues; });
  return values;
}

ORCD_HD uint32_t block_bytes(TensorType type) {
  uint32_t bytes = type == TensorType::kF32 ? 4 : type == TensorType::kF16 || type == TensorType::kBF16 ? 2 : 0;
  with_format(type, [&]<TensorType T>() { bytes = sizeof(typename Format<T>::Block); });
  return bytes;
}

ORCD_HD bool is_quantized(TensorType type) { return block_values(type) > 1; }

// Whether its products read activations with a scale for 256 values.
ORCD_HD bool has_super_blocks(TensorType type) { return block_values(type) == kSuperBlock; }

// Whether its weights have an addend beside a product.
ORCD_HD bool is_affine(TensorType type) {
  bool affine = false;
  with_format(type, [&]<TensorType T>() { affine = is_affine(Format<T>::kScales); });
  return affine;
}

// Bytes of a row of `cols` values, a multiple of the block.
ORCD_HD uint64_t row_bytes(TensorType type, uint64_t cols) { return cols / block_values(type) * block_bytes(type); }

// Values 32·b .. 32·b + 31 of a quantized row stored as in the file.
ORCD_HD Block32 read_block32(TensorType type, const uint8_t* row, uint32_t b) {
  Block32 out;
  out.m[0] = out.m[1] = 0.0f;
  with_format(type, [&]<TensorType T>() {
    Format<T>::read(reinterpret_cast<const typename Format<T>::Block*>(row), b, &out);
    out.affine = is_affine(Format<T>::kScales);
  });
  return out;
}

// Super-block `b` of a row of a type that has such, stored as in the file.
ORCD_HD SuperBlock read_super_block(TensorType type, const uint8_t* row, uint32_t b) {
  SuperBlock out;
  with_format(type, [&]<TensorType T>() {
    using F = Format<T>;
    if constexpr (has_super_blocks(F::kScales)) F::read(reinterpret_cast<const typename F::Block*>(row)[b], &out);
  });
  return out;
}

// Values first .. first + n of a row stored as in the file; n and first multiples of 32 unless the
// type is a float.
ORCD_HD void dequantize(TensorType type, const uint8_t* row, uint32_t first, uint32_t n, float* out) {
  switch (type) {
    case TensorType::kF32:
      for (uint32_t i = 0; i < n; ++i) out[i] = arith::float_of(u32_at(row + 4 * uint64_t(first + i)));
      return;
    case TensorType::kF16:
      for (uint32_t i = 0; i < n; ++i) out[i] = f16_at(row + 2 * uint64_t(first + i));
      return;
    case TensorType::kBF16:
      for (uint32_t i = 0; i < n; ++i) {
        const uint8_t* p = row + 2 * uint64_t(first + i);
        out[i] = arith::bf16_to_f32(uint16_t(p[0] | p[1] << 8));
      }
      return;
    default: break;
  }
  for (uint32_t b = 0; b < n / 32; ++b) {
    const Block32 block = read_block32(type, row, first / 32 + b);
    for (uint32_t i = 0; i < 32; ++i) {
      const float product = block.d[i / kHalfBlock] * float(block.w[i]);
      out[32 * b + i] = block.affine ? product + block.m[i / kHalfBlock] : product;
    }
  }
}

}  // namespace orcd::formats
