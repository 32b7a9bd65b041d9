// Parts of what all experts have.
#pragma once

#include "arith/constants.h"
#include "formats/formats.h"
#include "ops/ops.h"

namespace orcd {

inline Quantized from_row(Quantized a, uint64_t row, uint32_t cols, uint32_t width) {
  if (!a.q) return a;
  a.q += row * cols;
  a.d += row * (cols / width);
  a.sum += row * (cols / kQuantBlock);
  if (a.shifts) a.shifts += row * (cols / width);
  a.tiles = nullptr;  // laid out by all rows together
  return a;
}

// The rows from `row` on.
inline Activations from_row(Activations a, uint64_t row) {
  a.x += row * a.cols;
  a.blocks = from_row(a.blocks, row, a.cols, kQuantBlock);
  a.supers = from_row(a.supers, row, a.cols, kSuperBlock);
  return a;
}

// The product with expert `e`'s part of all experts' rows.
inline MatmulArgs of_expert(const Tensor& all, const float* biases, float* y, uint32_t experts, uint32_t e) {
  const uint32_t rows = all.rows / experts;
  Tensor w = all;
  w.rows = rows;
  w.data += uint64_t{e} * rows * formats::row_bytes(all.type, all.cols);
  return {w, y, false, biases ? biases + uint64_t{e} * rows : nullptr};
}

}  // namespace orcd
