#include "cpu/pack.h"

#include <cstring>
#include <span>

#include "arith/blocks.h"

namespace orcd::cpu {
namespace {

// A run of a block's bytes that is interleaved in pieces of `unit` bytes: piece i of the 16 rows lies
// together, and starts 16 times as far in as it does in one block.
struct Field {
  uint32_t offset, bytes, unit;
  bool transpose_bits = false;
};

// Bit 4·j + e of the fifth bits belongs to byte e of the group j of four values. Bit j of byte e is
// where a kernel can shift it into place for 16 rows at once.
void transpose_bits(const uint8_t* from, uint8_t* to) {
  const uint32_t bits = arith::u32_at(from);
  for (uint32_t e = 0; e < 4; ++e) {
    to[e] = 0;
    for (uint32_t j = 0; j < 8; ++j) to[e] |= uint8_t((bits >> (4 * j + e) & 1u) << j);
  }
}

void untranspose_bits(const uint8_t* from, uint8_t* to) {
  uint32_t bits = 0;
  for (uint32_t e = 0; e < 4; ++e) {
    for (uint32_t j = 0; j < 8; ++j) bits |= uint32_t(from[e] >> j & 1u) << (4 * j + e);
  }
  std::memcpy(to, &bits, 4);
}

std::span<const Field> fields(TensorType type) {
  static constexpr Field q4_0[] = {{0, 2, 2}, {2, 16, 4}};
  static constexpr Field q4_1[] = {{0, 4, 2}, {4, 16, 4}};
  static constexpr Field q5_0[] = {{0, 2, 2}, {2, 4, 4, true}, {6, 16, 4}};
  static constexpr Field q5_1[] = {{0, 4, 2}, {4, 4, 4, true}, {8, 16, 4}};
  static constexpr Field q8_0[] = {{0, 2, 2}, {2, 32, 4}};
  static constexpr Field q4_k[] = {{0, 4, 2}, {4, 12, 1}, {16, 128, 4}};
  static constexpr Field q5_k[] = {{0, 4, 2}, {4, 12, 1}, {16, 160, 4}};
  static constexpr Field q6_k[] = {{0, 192, 4}, {192, 16, 1}, {208, 2, 2}};
  switch (type) {
    case TensorType::kQ4_0: return q4_0;
    case TensorType::kQ4_1: return q4_1;
    case TensorType::kQ5_0: return q5_0;
    case TensorType::kQ5_1: return q5_1;
    case TensorType::kQ8_0: return q8_0;
    case TensorType::kQ4_K: return q4_k;
    case TensorType::kQ5_K: return q5_k;
    case TensorType::kQ6_K: return q6_k;
    default: return {};
  }
}

// Calls move(piece of the row, piece of the tile, field) for every piece of one row of a tile.
template <class Move>
void each_piece(TensorType type, uint64_t cols, uint32_t lane, const Move& move) {
  const uint64_t block = arith::block_bytes(type), blocks = cols / arith::block_values(type);
  for (uint64_t b = 0; b < blocks; ++b) {
    for (const Field& f : fields(type)) {
      for (uint32_t i = 0; i < f.bytes; i += f.unit) {
        const uint64_t in_tile = b * block * kTileRows + uint64_t{f.offset + i} * kTileRows + lane * f.unit;
        move(b * block + f.offset + i, in_tile, f);
      }
    }
  }
}

bool is_tiled(TensorType type, uint64_t rows, uint64_t row) {
  return arith::is_quantised(type) && row < rows / kTileRows * kTileRows;
}

}  // namespace

void pack_row(TensorType type, uint64_t rows, uint64_t cols, uint64_t row, const uint8_t* raw, uint8_t* matrix) {
  const uint64_t row_bytes = arith::row_bytes(type, cols);
  if (!is_tiled(type, rows, row)) {
    std::memcpy(matrix + row * row_bytes, raw, row_bytes);
    return;
  }
  uint8_t* tile = matrix + row / kTileRows * kTileRows * row_bytes;
  each_piece(type, cols, static_cast<uint32_t>(row % kTileRows), [&](uint64_t in_row, uint64_t in_tile, const Field& f) {
    if (f.transpose_bits) return transpose_bits(raw + in_row, tile + in_tile);
    std::memcpy(tile + in_tile, raw + in_row, f.unit);
  });
}

void unpack_row(TensorType type, uint64_t rows, uint64_t cols, uint64_t row, const uint8_t* matrix, uint8_t* raw) {
  const uint64_t row_bytes = arith::row_bytes(type, cols);
  if (!is_tiled(type, rows, row)) {
    std::memcpy(raw, matrix + row * row_bytes, row_bytes);
    return;
  }
  const uint8_t* tile = matrix + row / kTileRows * kTileRows * row_bytes;
  each_piece(type, cols, static_cast<uint32_t>(row % kTileRows), [&](uint64_t in_row, uint64_t in_tile, const Field& f) {
    if (f.transpose_bits) return untranspose_bits(tile + in_tile, raw + in_row);
    std::memcpy(raw + in_row, tile + in_tile, f.unit);
  });
}

}  // namespace orcd::cpu
