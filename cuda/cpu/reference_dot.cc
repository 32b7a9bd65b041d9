#include "arith/constants.h"
#include "cpu/ops.h"
#include "formats/formats.h"

namespace orcd::cpu {

float reference_dot(TensorType type, const uint8_t* raw, const Activations& a, uint64_t row) {
  const uint32_t blocks = a.cols / kQuantBlock;
  float y = 0.0f, acc = 0.0f;
  for (uint32_t b = 0; b < blocks; ++b) {
    const formats::Block32 w = formats::read_block32(type, raw, b);
    const uint64_t at = row * blocks + b;
    int32_t i = 0;
    for (uint32_t k = 0; k < kQuantBlock; ++k) i += w.w[k] * a.q[at * kQuantBlock + k];
    acc = __builtin_fmaf(w.d * a.d[at], static_cast<float>(i), acc);
    if (w.affine) acc = __builtin_fmaf(w.m * a.d[at], static_cast<float>(a.sum[at]), acc);
    if (b % kSegmentBlocks == kSegmentBlocks - 1 || b + 1 == blocks) {
      y = y + acc;
      acc = 0.0f;
    }
  }
  return y;
}

}  // namespace orcd::cpu
