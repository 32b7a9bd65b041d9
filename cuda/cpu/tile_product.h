// Products of packed tiles, for any vector type V (lanes.h) and format F (tile_formats.h).
#pragma once

#include <utility>

#include "arith/super_block.h"
#include "cpu/kernels.h"
#include "cpu/tile_formats.h"

namespace orcd::cpu {
namespace {

// Rows that share the weights in registers. Four hide the latency of the dot products.
constexpr uint32_t kGroup = 4;

// Rows whose sums stay in the first-level cache while a tile is gone through.
constexpr uint32_t kRowBlock = 64;

// Adds block `b` of row `r` to the chain.
template <class V, class F>
ORCD_LANES typename V::Floats chain(const Block<V>& w, const TileArgs& a, uint64_t r, uint32_t b,
                                    typename V::Floats acc) {
  using Ints = typename V::Ints;
  using Floats = typename V::Floats;
  const uint64_t at = r * (a.cols / kQuantBlock) + b;
  const int8_t* x = a.x.q + at * kQuantBlock;
  const float da = a.x.d[at];
  const auto dot = [](Ints s, typename V::Bytes bytes, const int8_t* four) {
    return F::kWide ? V::dot8(s, bytes, four) : V::dot(s, bytes, four);
  };
  constexpr int offset = F::template offset_log2<V>();
  Ints i{};
  if constexpr (offset >= 0) i = i - (a.x.sum[at] << offset);
  for (int g = 0; g < 8; ++g) i = dot(i, w.w[g], x + 4 * g);
  acc = V::fma(w.d * da, V::to_float(i), acc);
  if constexpr (F::kChain == Chain::kAffine) acc = V::fma(w.m * da, Floats{} + float(a.x.sum[at]), acc);
  return acc;
}

// Whether the sums of activations matter: for minima, or for an offset.
template <class V, class F>
inline constexpr bool kReadsPairs = F::kMinima || F::template offset_log2<V>() >= 0;

// The integers of a super-block, of R rows.
template <class V, uint32_t R>
struct SuperSums {
  typename V::Ints products[R] = {};
  typename V::Ints pairs[R] = {};  // of Σ q: with the minima, or with the scales, for the offset
};

// Adds block `b` of super-block `super` of R rows.
template <class V, class F, uint32_t R>
ORCD_LANES void add_block(const SubBlock<V>& w, const TileArgs& a, uint64_t row, uint32_t super, uint32_t b,
                          SuperSums<V, R>& sums) {
  const uint64_t blocks = a.cols / kQuantBlock, block = super * kSuperBlocks + b;
  for (uint32_t r = 0; r < R; ++r) {
    const uint64_t at = (row + r) * blocks + block;
    const int8_t* x = a.x.q + at * kQuantBlock;
    const uint32_t shift = arith::shift_of(a.x.shifts[at / kSuperBlocks], b);
    const typename V::Ints first = V::shifted(w.sc[0], shift);  // cheaper than to shift what it gives
    typename V::Ints& products = sums.products[r];
    if constexpr (F::kHalves) {
      const typename V::Ints second = V::shifted(w.sc[1], shift);
      products = V::template scaled_dot<F::kBits, 4>(products, w.w, x, first);
      products = V::template scaled_dot<F::kBits, 4>(products, w.w + 4, x + 16, second);
    } else if constexpr (F::kBits == 8) {
      products = V::template scaled_dot8<8>(products, w.w, x, first);
    } else {
      products = V::template scaled_dot<F::kBits, 8>(products, w.w, x, first);
    }
    if constexpr (kReadsPairs<V, F>) sums.pairs[r] = V::pairs(sums.pairs[r], typename V::Bytes(w.pair), a.x.sum[at]);
  }
}

// Adds what a super-block gives to the totals of R rows.
template <class V, class F, uint32_t R>
ORCD_LANES void finish_super(const SuperScales<V>& w, const TileArgs& a, uint64_t row, uint32_t super,
                             const SuperSums<V, R>& sums, typename V::Floats* total /* (R) */) {
  for (uint32_t r = 0; r < R; ++r) {
    typename V::Ints i = sums.products[r];
    if constexpr (!F::kMinima && kReadsPairs<V, F>) i = i - (sums.pairs[r] << F::template offset_log2<V>());
    typename V::Floats t = w.d * V::to_float(i);
    if constexpr (F::kMinima) t = V::fma(w.less, V::to_float(sums.pairs[r]), t);
    total[r] = total[r] + t * a.x.d[(row + r) * (a.cols / kSuperBlock) + super];
  }
}

// Block B of a super-block, times R rows.
template <class V, class F, uint32_t R, int B>
ORCD_LANES void super_block_rows(const TileArgs& a, const uint8_t* block, uint32_t super, uint32_t lane0, uint32_t row,
                                 SuperSums<V, R>& sums) {
  SubBlock<V> w;
  F::template unpack<V, B>(block, lane0, w);
  add_block<V, F, R>(w, a, row, super, B, sums);
}

template <class V>
ORCD_LANES void store(const TileArgs& a, uint64_t row, uint32_t column, typename V::Floats value) {
  float* y = a.y + row * a.y_stride + column;
  typename V::Floats old{};
  if (a.bias) {
    typename V::Floats bias;
    __builtin_memcpy(&bias, a.bias + column, sizeof bias);
    value = value + bias;
  }
  if (a.add) __builtin_memcpy(&old, y, sizeof old);
  if (a.add) value = old + value;
  __builtin_memcpy(y, &value, sizeof value);
}

// Block B of a segment, times R rows.
template <class V, class F, uint32_t R, int B>
ORCD_LANES void block_rows(const TileArgs& a, const uint8_t* tile, uint32_t segment, uint32_t lane0, uint32_t row,
                           typename V::Floats* acc /* (R) */) {
  const uint32_t b = segment * kSegmentBlocks + B;
  if (b >= a.cols / kQuantBlock) return;
  Block<V> w;
  F::template unpack<V, B>(tile, segment, lane0, w);
  for (uint32_t r = 0; r < R; ++r) acc[r] = chain<V, F>(w, a, row + r, b, acc[r]);
}

// The chains of R rows over all super-blocks.
template <class V, class F, uint32_t R>
ORCD_LANES void super_chain(const TileArgs& a, const uint8_t* tile, uint32_t lane0, uint32_t row,
                            typename V::Floats* total /* (R) */) {
  for (uint32_t s = 0; s < a.cols / kSuperBlock; ++s) {
    const uint8_t* block = tile + uint64_t{s} * F::kBytes;
    SuperSums<V, R> sums;
    [&]<int... B>(std::integer_sequence<int, B...>) {
      (super_block_rows<V, F, R, B>(a, block, s, lane0, row, sums), ...);
    }(std::make_integer_sequence<int, kSuperBlocks>());
    finish_super<V, F, R>(F::template scales<V>(block, lane0), a, row, s, sums, total);
  }
}

// The same by segments.
template <class V, class F, uint32_t R>
ORCD_LANES void segment_chain(const TileArgs& a, const uint8_t* tile, uint32_t lane0, uint32_t row,
                              typename V::Floats* total /* (R) */) {
  using Floats = typename V::Floats;
  const uint32_t segments = (a.cols + kSegment - 1) / kSegment;
  for (uint32_t segment = 0; segment < segments; ++segment) {
    Floats acc[R] = {};
    block_rows<V, F, R, 0>(a, tile, segment, lane0, row, acc);
    block_rows<V, F, R, 1>(a, tile, segment, lane0, row, acc);
    block_rows<V, F, R, 2>(a, tile, segment, lane0, row, acc);
    block_rows<V, F, R, 3>(a, tile, segment, lane0, row, acc);
    for (uint32_t r = 0; r < R; ++r) total[r] = total[r] + acc[r];
  }
}

// R rows from `row` on, R small: each block goes from the tile through registers.
template <class V, class F, uint32_t R>
void gemm_small_m(const TileArgs& a, const uint8_t* tile, uint32_t column, uint32_t lane0, uint32_t row) {
  typename V::Floats total[R] = {};
  if constexpr (F::kChain == Chain::kSuper) super_chain<V, F, R>(a, tile, lane0, row, total);
  else segment_chain<V, F, R>(a, tile, lane0, row, total);
  for (uint32_t r = 0; r < R; ++r) store<V>(a, row + r, column + lane0, total[r]);
}

// One segment, unpacked, times R rows; total: (rows of the block) running sums.
template <class V, class F, uint32_t R>
ORCD_LANES void segment_rows(const TileArgs& a, const Block<V>* w, uint32_t n, uint32_t b0, uint32_t row,
                             typename V::Floats* total) {
  typename V::Floats acc[R] = {};
  for (uint32_t b = 0; b < n; ++b) {
    for (uint32_t r = 0; r < R; ++r) acc[r] = chain<V, F>(w[b], a, row + r, b0 + b, acc[r]);
  }
  for (uint32_t r = 0; r < R; ++r) total[r] = total[r] + acc[r];
}

// The same of a super-block.
template <class V, class F, uint32_t R>
ORCD_LANES void super_rows(const TileArgs& a, const SubBlock<V>* w, const SuperScales<V>& scales, uint32_t super,
                           uint32_t row, typename V::Floats* total) {
  SuperSums<V, R> sums;
  for (uint32_t b = 0; b < kSuperBlocks; ++b) add_block<V, F, R>(w[b], a, row, super, b, sums);
  finish_super<V, F, R>(scales, a, row, super, sums, total);
}

// The chains of `count` rows over all super-blocks, each of which is unpacked once, into the first-level cache.
template <class V, class F>
ORCD_LANES void many_super_rows(const TileArgs& a, const uint8_t* tile, uint32_t lane0, uint32_t row, uint32_t count,
                                typename V::Floats* total) {
  SubBlock<V> w[kSuperBlocks];
  for (uint32_t s = 0; s < a.cols / kSuperBlock; ++s) {
    const uint8_t* block = tile + uint64_t{s} * F::kBytes;
    [&]<int... B>(std::integer_sequence<int, B...>) {
      (F::template unpack<V, B>(block, lane0, w[B]), ...);
    }(std::make_integer_sequence<int, kSuperBlocks>());
    const SuperScales<V> scales = F::template scales<V>(block, lane0);
    uint32_t r = 0;
    for (; r + kGroup <= count; r += kGroup) super_rows<V, F, kGroup>(a, w, scales, s, row + r, total + r);
    for (; r < count; ++r) super_rows<V, F, 1>(a, w, scales, s, row + r, total + r);
  }
}

// The same by segments.
template <class V, class F>
ORCD_LANES void many_segment_rows(const TileArgs& a, const uint8_t* tile, uint32_t lane0, uint32_t row, uint32_t count,
                                  typename V::Floats* total) {
  const uint32_t blocks = a.cols / kQuantBlock;
  Block<V> w[kSegmentBlocks];
  for (uint32_t b0 = 0; b0 < blocks; b0 += kSegmentBlocks) {
    const uint32_t segment = b0 / kSegmentBlocks;
    const uint32_t n = blocks - b0 < kSegmentBlocks ? blocks - b0 : kSegmentBlocks;
    F::template unpack<V, 0>(tile, segment, lane0, w[0]);
    if (n > 1) F::template unpack<V, 1>(tile, segment, lane0, w[1]);
    if (n > 2) F::template unpack<V, 2>(tile, segment, lane0, w[2]);
    if (n > 3) F::template unpack<V, 3>(tile, segment, lane0, w[3]);
    uint32_t r = 0;
    for (; r + kGroup <= count; r += kGroup) segment_rows<V, F, kGroup>(a, w, n, b0, row + r, total + r);
    for (; r < count; ++r) segment_rows<V, F, 1>(a, w, n, b0, row + r, total + r);
  }
}

// Many rows, up to kRowBlock.
template <class V, class F>
void many_rows(const TileArgs& a, const uint8_t* tile, uint32_t column, uint32_t lane0, uint32_t row, uint32_t count) {
  typename V::Floats total[kRowBlock] = {};
  if constexpr (F::kChain == Chain::kSuper) many_super_rows<V, F>(a, tile, lane0, row, count, total);
  else many_segment_rows<V, F>(a, tile, lane0, row, count, total);
  for (uint32_t r = 0; r < count; ++r) store<V>(a, row + r, column + lane0, total[r]);
}

template <class V, class F>
void tile_product(const TileArgs& a) {
  const uint64_t tile_bytes = uint64_t{F::kBytes} * (a.cols / F::kValues);
  for (uint32_t t = 0; t < a.n_tiles; ++t) {
    const uint8_t* tile = a.tiles + t * tile_bytes;
    for (uint32_t lane0 = 0; lane0 < kTileRows; lane0 += V::kLanes) {
      const uint32_t column = t * kTileRows;
      for (uint32_t row = 0; row < a.rows; row += kRowBlock) {
        const uint32_t count = a.rows - row < kRowBlock ? a.rows - row : kRowBlock;
        switch (count) {
          case 1: gemm_small_m<V, F, 1>(a, tile, column, lane0, row); break;
          case 2: gemm_small_m<V, F, 2>(a, tile, column, lane0, row); break;
          case 3: gemm_small_m<V, F, 3>(a, tile, column, lane0, row); break;
          case 4: gemm_small_m<V, F, 4>(a, tile, column, lane0, row); break;
          default: many_rows<V, F>(a, tile, column, lane0, row, count);
        }
      }
    }
  }
}

template <class V>
TileKernel tile_kernel(TensorType type) {
  TileKernel kernel = nullptr;
  formats::with_format(type, [&]<TensorType T>() { kernel = tile_product<V, Unpack<T>>; });
  return kernel;
}

}  // namespace
}  // namespace orcd::cpu
