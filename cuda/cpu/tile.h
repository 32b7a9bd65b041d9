// Products of packed weight tiles with int8 activations: what matmul.cc knows of the kernels, of which
// there is one set per instruction set. All give the same bits: the block sums are exact integers, and
// a lane's float chain is the one of the contract.
#pragma once

#include <cstdint>

#include "orcd/engine.h"

namespace orcd::cpu {

struct TileArgs {
  const uint8_t* tiles;  // (n_tiles) packed tiles of 16 rows, see pack.h
  uint32_t n_tiles;
  uint32_t cols;
  const int8_t* q;       // (rows, cols)
  const float* d;        // (rows, cols / 32)
  const int32_t* sum;    // (rows, cols / 32)
  const int32_t* half;   // (rows, cols / 32)
  uint32_t rows;
  float* y;              // (rows, y_stride), at the column of the first tile
  uint32_t y_stride;
  bool add;              // y ⊕ result
};

using TileKernel = void (*)(const TileArgs&);

// The kernel for a quantised type.
TileKernel portable_kernel(TensorType type);
TileKernel avx2_kernel(TensorType type);
TileKernel avx512_kernel(TensorType type);

}  // namespace orcd::cpu
