#include "arith/constants.h"
#include "arith/super_block.h"
#include "cpu/ops.h"
#include "formats/formats.h"

namespace orcd::cpu {
namespace {

float dot_of_blocks(TensorType type, const uint8_t* raw, const Activations& a, uint64_t row) {
  const uint32_t blocks = a.cols / kQuantBlock;
  float y = 0.0f, acc = 0.0f;
  for (uint32_t b = 0; b < blocks; ++b) {
    const formats::Block32 w = formats::read_block32(type, raw, b);
    const uint64_t at = row * blocks + b;
    int32_t i = 0;
    for (uint32_t k = 0; k < kQuantBlock; ++k) i += w.w[k] * a.blocks.q[at * kQuantBlock + k];
    acc = __builtin_fmaf(w.d[0] * a.blocks.d[at], static_cast<float>(i), acc);
    if (w.affine) acc = __builtin_fmaf(w.m[0] * a.blocks.d[at], static_cast<float>(a.blocks.sum[at]), acc);
    if (b % kSegmentBlocks == kSegmentBlocks - 1 || b + 1 == blocks) {
      y = y + acc;
      acc = 0.0f;
    }
  }
  return y;
}

float dot_of_super_blocks(TensorType type, const uint8_t* raw, const Activations& a, uint64_t row) {
  const uint32_t blocks = a.cols / kSuperBlock;
  const bool affine = formats::is_affine(type);
  float y = 0.0f;
  for (uint32_t b = 0; b < blocks; ++b) {
    const formats::SuperBlock w = formats::read_super_block(type, raw, b);
    const uint64_t at = row * blocks + b;
    const int8_t* q = a.supers.q + at * kSuperBlock;
    int32_t products = 0, minima = 0;
    for (uint32_t k = 0; k < kSuperBlock; ++k) {
      const uint32_t block = k / kQuantBlock;
      const int32_t value = q[k] * (1 << arith::shift_of(a.supers.shifts[at], block));
      products += w.w[k] * value;
      minima += w.mn[k / formats::kHalfBlock] * value;
    }
    float t = w.d * static_cast<float>(products);
    if (affine) t = __builtin_fmaf(-w.dmin, static_cast<float>(minima), t);
    y = y + a.supers.d[at] * t;
  }
  return y;
}

}  // namespace

float reference_dot(TensorType type, const uint8_t* raw, const Activations& a, uint64_t row) {
  return formats::has_super_blocks(type) ? dot_of_super_blocks(type, raw, a, row) : dot_of_blocks(type, raw, a, row);
}

}  // namespace orcd::cpu
