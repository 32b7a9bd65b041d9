#include "cpu/pack.h"

#include <cstring>
#include <iterator>
#include <utility>

#include "engine/layout_version.h"
#include "formats/formats.h"

namespace orcd::cpu {
namespace {

// Bit 4·j + e of the fifth bits belongs to value e of the group j of four. In the tile it is bit j of
// byte e, from where a kernel can shift it into place for 16 rows at once.
void transpose_bits(const uint8_t* from, uint8_t* to) {
  const uint32_t bits = formats::u32_at(from);
  for (uint32_t e = 0; e < 4; ++e) {
    uint32_t x = bits >> e & 0x11111111u;  // bit 4·j → j, by halving the gaps
    x = (x | x >> 3) & 0x03030303u;
    x = (x | x >> 6) & 0x000f000fu;
    to[e] = static_cast<uint8_t>(x | x >> 12);
  }
}

void untranspose_bits(const uint8_t* from, uint8_t* to) {
  uint32_t bits = 0;
  for (uint32_t e = 0; e < 4; ++e) {
    uint32_t x = from[e];  // bit j → 4·j
    x = (x | x << 12) & 0x000f000fu;
    x = (x | x << 6) & 0x03030303u;
    x = (x | x << 3) & 0x11111111u;
    bits |= x << e;
  }
  std::memcpy(to, &bits, sizeof bits);
}

// Copies the pieces of a field of one block, from row to tile or back.
template <bool kPack, formats::Field kField>
void copy_field(uint8_t* row_block, uint8_t* tile_block, uint32_t lane) {
  uint8_t* in_row = row_block + kField.offset;
  uint8_t* in_tile = tile_block + kField.offset * kTileRows + lane * kField.unit;
  if constexpr (kField.transpose_bits) {
    return kPack ? transpose_bits(in_row, in_tile) : untranspose_bits(in_tile, in_row);
  }
  for (uint32_t i = 0; i < kField.bytes; i += kField.unit) {
    std::memcpy(kPack ? in_tile + i * kTileRows : in_row + i, kPack ? in_row + i : in_tile + i * kTileRows,
                kField.unit);
  }
}

// All blocks of a row. The fields are known to the compiler, which makes of each block a run of moves.
template <bool kPack, TensorType T, size_t... i>
void copy_blocks(uint64_t cols, uint32_t lane, uint8_t* row, uint8_t* tile, std::index_sequence<i...>) {
  using F = formats::Format<T>;
  constexpr uint32_t kBlock = sizeof(typename F::Block);
  static_assert((F::kFields[i].bytes + ...) == kBlock);
  for (uint64_t b = 0; b < cols / F::kValues; ++b) {
    (copy_field<kPack, F::kFields[i]>(row + b * kBlock, tile + b * kBlock * kTileRows, lane), ...);
  }
}

template <bool kPack>
void copy_row(TensorType type, uint64_t cols, uint32_t lane, uint8_t* row, uint8_t* tile) {
  formats::with_format(type, [&]<TensorType T>() {
    copy_blocks<kPack, T>(cols, lane, row, tile, std::make_index_sequence<std::size(formats::Format<T>::kFields)>());
  });
}

bool is_tiled(TensorType type, uint64_t rows, uint64_t row) {
  return formats::is_quantized(type) && row < rows / kTileRows * kTileRows;
}

}  // namespace

void pack_row(TensorType type, uint64_t rows, uint64_t cols, uint64_t row, const uint8_t* raw, uint8_t* matrix) {
  const uint64_t row_bytes = formats::row_bytes(type, cols);
  if (!is_tiled(type, rows, row)) {
    std::memcpy(matrix + row * row_bytes, raw, row_bytes);
    return;
  }
  uint8_t* tile = matrix + row / kTileRows * kTileRows * row_bytes;
  // In this direction the row is only read.
  copy_row<true>(type, cols, static_cast<uint32_t>(row % kTileRows), const_cast<uint8_t*>(raw), tile);
}

void unpack_row(TensorType type, uint64_t rows, uint64_t cols, uint64_t row, const uint8_t* matrix, uint8_t* raw) {
  const uint64_t row_bytes = formats::row_bytes(type, cols);
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
        for (uint32_t i = 0; i < rows; ++i)
          pack_row(type, rows, cols, i, raw + i * formats::row_bytes(type, cols), matrix);
      });
  return version;
}

}  // namespace orcd::cpu
