#include "arith/attend.h"
#include "arith/constants.h"
#include "arith/hd.h"
#include "cpu/ops.h"

namespace orcd::cpu {
namespace {

constexpr uint32_t kSmallest = 0x0d800000u;  // bits of 2^-100
constexpr uint32_t kInfinity = 0x7f800000u;

float quantize_block(const float* x /* (32) */, int8_t* q /* (32) */, int32_t* sum, int32_t* sum_lo16) {
  const uint32_t magnitude = arith::max_magnitude(x, kQuantBlock);
  const bool usable = magnitude >= kSmallest && magnitude < kInfinity;
  if (!usable) {
    __builtin_memset(q, 0, kQuantBlock);
    *sum = *sum_lo16 = 0;
    return 0.0f;
  }
  const float d = arith::float_of(magnitude) / 127.0f;
  const float r = 1.0f / d;
  int32_t rounded[kQuantBlock];
  // Adding 1.5 · 2^23 rounds to the nearest integer, ties to even, and leaves it in the low bits.
  for (uint32_t i = 0; i < kQuantBlock; ++i) {
    rounded[i] = int32_t(arith::bits_of(x[i] * r + 0x1.8p+23f)) - 0x4b400000;
  }
  int32_t low = 0, high = 0;
  for (uint32_t i = 0; i < kQuantBlock / 2; ++i) low += rounded[i];
  for (uint32_t i = kQuantBlock / 2; i < kQuantBlock; ++i) high += rounded[i];
  for (uint32_t i = 0; i < kQuantBlock; ++i) q[i] = static_cast<int8_t>(rounded[i]);
  *sum_lo16 = low;
  *sum = low + high;
  return d;
}

}  // namespace

void quantize_row(const Activations& a, uint32_t row) {
  if (!a.q) return;
  const uint32_t blocks = a.cols / kQuantBlock;
  for (uint32_t b = 0; b < blocks; ++b) {
    const uint64_t at = uint64_t{row} * blocks + b;
    a.d[at] = quantize_block(a.x + at * kQuantBlock, a.q + at * kQuantBlock, a.sum + at, a.sum_lo16 + at);
  }
}

void quantize(Pool& pool, const Activations& a, uint32_t rows) {
  share(pool, rows, a.cols * 0.3, [&](uint32_t first, uint32_t end) {
    for (uint32_t r = first; r < end; ++r) quantize_row(a, r);
  });
}

}  // namespace orcd::cpu
