#include "cpu/pack.h"

#include <cstring>
#include <span>

#include "arith/blocks.h"
#include "engine/layout_version.h"

namespace orcd::cpu {
namespace {

// A run of a block's bytes that is interleaved in pieces of `unit` bytes: piece i of the 16 rows lies
// together, and starts 16 times as far in as it does in one block.
struct Field {
  uint32_t offset, bytes, unit;
  bool transpose_bits = false;
};

// Bit 4·j + e of the fifth bits belongs to value e of the group j of four. In the tile it is bit j of
// byte e, from where a kernel can shift it into place for 16 rows at once.
void transpose_bits(const uint8_t* from, uint8_t* to) {
  const uint32_t bits = arith::u32_at(from);
  for (uint32_t e = 0; e < 4; ++e) {
    uint32_t x = bits >> e & 0x11111111u;         // bit 4·j → j, by halving the gaps
    x = (x | x >> 3) & 0x03030303u;
    x = (x | x >> 6) & 0x000f000fu;
    to[e] = static_cast<uint8_t>(x | x >> 12);
  }
}

void untranspose_bits(const uint8_t* from, uint8_t* to) {
  uint32_t bits = 0;
  for (uint32_t e = 0; e < 4; ++e) {
    uint32_t x = from[e];                         // bit j → 4·j
    x = (x | x << 12) & 0x000f000fu;
    x = (x | x << 6) & 0x03030303u;
    x = (x | x << 3) & 0x11111111u;
    bits |= x << e;
  }
  std::memcpy(to, &bits, sizeof bits);
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

// Copies the pieces of field `f` of one block, from row to tile or back. kUnit = f.unit.
template <bool kPack, uint32_t kUnit>
void copy_pieces(const Field& f, uint8_t* row_block, uint8_t* tile_block, uint32_t lane) {
  for (uint32_t i = 0; i < f.bytes; i += kUnit) {
    uint8_t* in_row = row_block + f.offset + i;
    uint8_t* in_tile = tile_block + (f.offset + i) * kTileRows + lane * kUnit;
    std::memcpy(kPack ? in_tile : in_row, kPack ? in_row : in_tile, kUnit);
  }
}

template <bool kPack>
void copy_field(const Field& f, uint8_t* row_block, uint8_t* tile_block, uint32_t lane) {
  if (f.transpose_bits) {
    uint8_t* in_row = row_block + f.offset;
    uint8_t* in_tile = tile_block + f.offset * kTileRows + lane * 4;
    return kPack ? transpose_bits(in_row, in_tile) : untranspose_bits(in_tile, in_row);
  }
  switch (f.unit) {
    case 1: return copy_pieces<kPack, 1>(f, row_block, tile_block, lane);
    case 2: return copy_pieces<kPack, 2>(f, row_block, tile_block, lane);
    default: return copy_pieces<kPack, 4>(f, row_block, tile_block, lane);
  }
}

template <bool kPack>
void copy_row(TensorType type, uint64_t cols, uint32_t lane, uint8_t* row, uint8_t* tile) {
  const uint64_t block = arith::block_bytes(type), blocks = cols / arith::block_values(type);
  for (uint64_t b = 0; b < blocks; ++b) {
    for (const Field& f : fields(type)) copy_field<kPack>(f, row + b * block, tile + b * block * kTileRows, lane);
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
  // In this direction the row is only read.
  copy_row<true>(type, cols, static_cast<uint32_t>(row % kTileRows), const_cast<uint8_t*>(raw), tile);
}

void unpack_row(TensorType type, uint64_t rows, uint64_t cols, uint64_t row, const uint8_t* matrix, uint8_t* raw) {
  const uint64_t row_bytes = arith::row_bytes(type, cols);
  if (!is_tiled(type, rows, row)) {
    std::memcpy(raw, matrix + row * row_bytes, row_bytes);
    return;
  }
  const uint8_t* tile = matrix + row / kTileRows * kTileRows * row_bytes;
  copy_row<false>(type, cols, static_cast<uint32_t>(row % kTileRows), raw, const_cast<uint8_t*>(tile));
}

uint32_t layout_version() {
  static const uint32_t version =
      orcd::layout_version([](TensorType type, uint32_t rows, uint32_t cols, const uint8_t* raw, uint8_t* matrix) {
        for (uint32_t i = 0; i < rows; ++i) pack_row(type, rows, cols, i, raw + i * arith::row_bytes(type, cols), matrix);
      });
  return version;
}

}  // namespace orcd::cpu
