// How quantized matrices lie in the image: 16 rows form a tile, and within a tile each block of the 16
// rows is interleaved, so that one vector load takes the same values of 16 rows into 16 lanes. A
// permutation of the file's bits, nothing added or lost. Rows behind the last whole tile, and matrices
// of floats, lie as in the file.
#pragma once

#include <cstdint>

#include "orcd/engine.h"

namespace orcd::cpu {

inline constexpr uint32_t kTileRows = 16;

// Of this layout: another one has another version.
uint32_t layout_version();

// Writes row `row` of a matrix of `rows` rows, given as in the file, to its place in `matrix`.
void pack_row(TensorType type, uint64_t rows, uint64_t cols, uint64_t row, const uint8_t* raw /* (row_bytes) */,
              uint8_t* matrix);

// The inverse.
void unpack_row(TensorType type, uint64_t rows, uint64_t cols, uint64_t row, const uint8_t* matrix,
                uint8_t* raw /* (row_bytes) */);

}  // namespace orcd::cpu
