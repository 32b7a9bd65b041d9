// Products of packed tiles, for any vector type V (lanes.h) and format F (tile_formats.h).
#pragma once

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
  const int8_t* x = a.q + at * kQuantBlock;
  const float da = a.d[at];
  const auto dot = [](Ints s, typename V::Bytes bytes, const int8_t* four) {
    return F::kWide ? V::dot8(s, bytes, four) : V::dot(s, bytes, four);
  };
  if constexpr (F::kChain == Chain::kSplit) {
    const int32_t first = a.sum_lo16[at];
    Ints i0 = Ints{} - (first << 5), i1 = Ints{} - ((a.sum[at] - first) << 5);
    for (int g = 0; g < 4; ++g) i0 = dot(i0, w.w[g], x + 4 * g);
    for (int g = 4; g < 8; ++g) i1 = dot(i1, w.w[g], x + 4 * g);
    // Exact: |i| < 2^16 and |sc| <= 2^7, so each product and the sum are integers below 2^24.
    const Floats i = V::fma(w.sc0, V::to_float(i0), w.sc1 * V::to_float(i1));
    return V::fma(w.d * da, i, acc);
  } else {
    constexpr int offset = F::template offset_log2<V>();
    Ints i{};
    if constexpr (offset >= 0) i = i - (a.sum[at] << offset);
    for (int g = 0; g < 8; ++g) i = dot(i, w.w[g], x + 4 * g);
    acc = V::fma(w.d * da, V::to_float(i), acc);
    if constexpr (F::kChain == Chain::kAffine) acc = V::fma(w.m * da, Floats{} + float(a.sum[at]), acc);
    return acc;
  }
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

// R rows from `row` on, R small: each block goes from the tile through registers.
template <class V, class F, uint32_t R>
void gemm_small_m(const TileArgs& a, const uint8_t* tile, uint32_t column, uint32_t lane0, uint32_t row) {
  using Floats = typename V::Floats;
  const uint32_t segments = (a.cols + kSegment - 1) / kSegment;
  Floats total[R] = {};
  for (uint32_t segment = 0; segment < segments; ++segment) {
    Floats acc[R] = {};
    block_rows<V, F, R, 0>(a, tile, segment, lane0, row, acc);
    block_rows<V, F, R, 1>(a, tile, segment, lane0, row, acc);
    block_rows<V, F, R, 2>(a, tile, segment, lane0, row, acc);
    block_rows<V, F, R, 3>(a, tile, segment, lane0, row, acc);
    for (uint32_t r = 0; r < R; ++r) total[r] = total[r] + acc[r];
  }
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

// Many rows: each segment is unpacked once, into the first-level cache, for up to kRowBlock of them.
template <class V, class F>
void many_rows(const TileArgs& a, const uint8_t* tile, uint32_t column, uint32_t lane0, uint32_t row, uint32_t count) {
  const uint32_t blocks = a.cols / kQuantBlock;
  typename V::Floats total[kRowBlock] = {};
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
