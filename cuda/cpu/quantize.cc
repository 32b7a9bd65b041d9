#include "arith/attend.h"
#include "arith/constants.h"
#include "arith/hd.h"
#include "arith/super_block.h"
#include "cpu/ops.h"

namespace orcd::cpu {
namespace {

constexpr uint32_t kSmallest = 0x0d800000u;  // bits of 2^-100
constexpr uint32_t kInfinity = 0x7f800000u;
constexpr uint32_t kHalf = kQuantBlock / 2;

// Integers of 32 values: x · r, rounded to the nearest one, ties to even.
void round_block(const float* x /* (32) */, float r, int8_t* q /* (32) */) {
  // Adding 1.5 · 2^23 rounds so, and leaves the integer in the low bits.
  for (uint32_t i = 0; i < kQuantBlock; ++i) {
    q[i] = static_cast<int8_t>(int32_t(arith::bits_of(x[i] * r + 0x1.8p+23f)) - 0x4b400000);
  }
}

// The scale of values of which the largest magnitude has these bits; 0: all integers are 0.
float scale_of(uint32_t magnitude) {
  return magnitude >= kSmallest && magnitude < kInfinity ? arith::float_of(magnitude) / 127.0f : 0.0f;
}

int32_t sum_of_half(const int8_t* q /* (16) */) {
  int32_t sum = 0;
  for (uint32_t i = 0; i < kHalf; ++i) sum += q[i];
  return sum;
}

void quantize_blocks(const Quantized& out, const float* x, uint32_t cols, uint64_t row) {
  for (uint32_t b = 0; b < cols / kQuantBlock; ++b, x += kQuantBlock) {
    const uint64_t at = row * (cols / kQuantBlock) + b;
    int8_t* q = out.q + at * kQuantBlock;
    const float d = scale_of(arith::max_magnitude(x, kQuantBlock));
    if (d == 0.0f) __builtin_memset(q, 0, kQuantBlock);
    else round_block(x, 1.0f / d, q);
    out.d[at] = d;
    out.sum[at] = sum_of_half(q) + sum_of_half(q + kHalf);
  }
}

void quantize_supers(const Quantized& out, const float* x, uint32_t cols, uint64_t row) {
  for (uint32_t b = 0; b < cols / kSuperBlock; ++b, x += kSuperBlock) {
    const uint64_t at = row * (cols / kSuperBlock) + b;
    int8_t* q = out.q + at * kSuperBlock;
    int32_t* sum = out.sum + at * kSuperBlocks;
    uint32_t tops[kSuperBlocks], top = 0;
    for (uint32_t j = 0; j < kSuperBlocks; ++j) {
      tops[j] = arith::max_magnitude(x + j * kQuantBlock, kQuantBlock);
      top = tops[j] > top ? tops[j] : top;
    }
    const float d = scale_of(top), r = 1.0f / d;
    out.d[at] = d * arith::kShiftUnit;
    out.shifts[at] = 0;
    if (d == 0.0f) {
      __builtin_memset(q, 0, kSuperBlock);
      __builtin_memset(sum, 0, kSuperBlocks * sizeof *sum);
      continue;
    }
    for (uint32_t j = 0; j < kSuperBlocks; ++j, q += kQuantBlock) {
      const uint32_t shift = arith::block_shift(arith::float_of(tops[j]), arith::float_of(top));
      round_block(x + j * kQuantBlock, r * arith::block_factor(shift), q);
      const auto up = [&](int32_t of_half) { return of_half * (1 << shift); };
      sum[j] =
          static_cast<int32_t>(uint32_t(uint16_t(up(sum_of_half(q)))) | uint32_t(up(sum_of_half(q + kHalf))) << 16);
      out.shifts[at] |= shift << arith::shift_place(j);
    }
  }
}

}  // namespace

void quantize_row(const Activations& a, uint32_t row) {
  const float* x = a.x + uint64_t{row} * a.cols;
  if (a.blocks.q) quantize_blocks(a.blocks, x, a.cols, row);
  if (a.supers.q) quantize_supers(a.supers, x, a.cols, row);
}

void quantize(Pool& pool, const Activations& a, uint32_t rows) {
  share(pool, rows, a.cols * 0.3, [&](uint32_t first, uint32_t end) {
    for (uint32_t r = first; r < end; ++r) quantize_row(a, r);
  });
}

}  // namespace orcd::cpu
