// What is compiled for several instruction sets: products of packed weight tiles with int8 activations,
// and attention. All forms give the same bits: block sums are exact integers, and every lane's float
// chain is the one of the contract.
#pragma once

#include <cstdint>

#include "ops/ops.h"
#include "orcd/engine.h"

namespace orcd::cpu {

struct TileArgs {
  const uint8_t* tiles;  // (n_tiles) packed tiles of 16 rows, see pack.h
  uint32_t n_tiles;
  uint32_t cols;
  Quantized x;  // (rows, cols), as the type wants it
  uint32_t rows;
  float* y;  // (rows, y_stride), at the column of the first tile
  uint32_t y_stride;
  bool add;           // y ⊕ result
  const float* bias;  // (16 · n_tiles), at the column of the first tile, or null: result ⊕ bias first
};

using TileKernel = void (*)(const TileArgs&);

inline constexpr uint32_t kMaxHeads = 4;  // query heads of one KV head that attend together

// Up to kMaxHeads query heads of one KV head, over keys first .. n - 1.
struct HeadsArgs {
  const uint8_t* cache;   // (pages, page_stride) of one KV head, as kv_cache.h has it
  uint64_t page_stride;   // bytes
  const uint32_t* pages;  // (n / 64 rounded up) of the sequence; behind key n - 1 the last may hold anything
  uint32_t first, n;
  const float* q;  // (heads, head_dim)
  uint32_t heads;
  uint32_t head_dim;
  float scale;         // arith::score_scale()
  float soft_cap;      // 0: none
  const float* sinks;  // (heads) or null
  float* out;          // (heads, head_dim)
};

using HeadsKernel = void (*)(const HeadsArgs&);

struct Kernels {
  TileKernel (*tile)(TensorType);  // for a quantized type
  HeadsKernel heads;
};

Kernels portable_kernels();
Kernels avx2_kernels();
Kernels avx512_kernels();

}  // namespace orcd::cpu
