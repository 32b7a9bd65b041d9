// File layout → packed layout and back: one thread per block of 32 values. Packing works on the host too, where
// it says what the layout is.
#include <cstring>

#include "device/check.h"
#include "engine/layout_version.h"
#include "kernels/launch.h"
#include "kernels/layout.h"

namespace orcd::kernels {
namespace {

struct Shape {
  TensorType type;
  uint32_t rows, cols, first, count;
};

ORCD_HD const uint8_t* block_of(const Shape& s, const uint8_t* row, uint32_t b) {
  return row + uint64_t(b / (arith::block_values(s.type) / 32)) * arith::block_bytes(s.type);
}

// Offsets of the parts in a block of the file.
struct Parts {
  uint32_t head, head_bytes, high, low;
};

ORCD_HD Parts parts(TensorType type) {
  switch (type) {
    case TensorType::kQ4_0: return {0, 2, 0, 2};
    case TensorType::kQ4_1: return {0, 4, 0, 4};
    case TensorType::kQ5_0: return {0, 2, 2, 6};
    case TensorType::kQ5_1: return {0, 4, 4, 8};
    case TensorType::kQ8_0: return {0, 2, 0, 2};
    case TensorType::kQ4_K: return {0, 16, 0, 16};
    case TensorType::kQ5_K: return {0, 16, 16, 48};
    default: return {192, 16, 128, 0};  // Q6_K: scales as head, d at 208 as tail
  }
}

// Visits every 4- (or 8-) bit low part and its high bits of block b: f(value, byte offset, shift) for
// the low part and g(value, byte offset, shift) for the high one, both offsets within the file's block.
template <class F, class G>
ORCD_HD void visit(TensorType type, uint32_t b, F low, G high) {
  const Parts p = parts(type);
  for (uint32_t v = 0; v < 32; ++v) {
    switch (type) {
      case TensorType::kQ4_K:
      case TensorType::kQ5_K:
        low(v, p.low + b % 8 / 2 * 32 + v, b % 2 * 4);
        if (type == TensorType::kQ5_K) high(v, p.high + v, b % 8);
        break;
      case TensorType::kQ6_K: {
        const uint32_t half = b % 8 / 4, c = b % 4;
        low(v, p.low + 64 * half + 32 * (c & 1) + v, c & 2 ? 4 : 0);
        high(v, p.high + 32 * half + v, 2 * c);
        break;
      }
      default:
        low(v, p.low + v % 16, v / 16 * 4);
        if (type == TensorType::kQ5_0 || type == TensorType::kQ5_1) high(v, p.high + v / 8, v % 8);
    }
  }
}

ORCD_HD uint8_t* group_of(const Shape& s, uint8_t* matrix, uint32_t row, uint32_t* rows_in_group) {
  const uint32_t group = row / kGroupRows;
  const uint32_t left = s.rows - group * kGroupRows;
  *rows_in_group = left < kGroupRows ? left : kGroupRows;
  return matrix + uint64_t(group) * kGroupRows * arith::row_bytes(s.type, s.cols);
}

// Copies between the file's head (or tail) and the packed one, in the wanted direction.
ORCD_HD void move(uint8_t* packed, uint8_t* raw, uint32_t n, bool to_packed) {
  for (uint32_t i = 0; i < n; ++i) (to_packed ? packed : raw)[i] = (to_packed ? raw : packed)[i];
}

// One block of 32 values, in the file and in the image.
struct Block {
  Layout l;
  Parts p;
  uint32_t b, in_group;
  BlockPlace at;
  uint8_t *group, *file;
};

ORCD_HD Block find_block(const Shape& s, uint8_t* raw, uint8_t* matrix, uint64_t index) {
  const uint32_t nb = s.cols / 32;
  const uint32_t i = uint32_t(index / nb), row = s.first + i;
  Block x;
  x.l = layout_of(s.type);
  x.p = parts(s.type);
  x.b = uint32_t(index % nb);
  x.group = group_of(s, matrix, row, &x.in_group);
  x.at = place(x.l, x.in_group, nb, x.b, row % kGroupRows);
  x.file = const_cast<uint8_t*>(block_of(s, raw + uint64_t(i) * arith::row_bytes(s.type, s.cols), x.b));
  return x;
}

// What is copied as it is; true if that was all.
ORCD_HD bool move_bytes(const Block& x, bool to_packed) {
  if (!x.l.super || x.b % 8 == 0) move(x.group + x.at.head, x.file + x.p.head, x.p.head_bytes, to_packed);
  if (x.l.tail && x.b % 8 == 0) move(x.group + x.at.tail, x.file + 208, 2, to_packed);
  if (x.l.low != 32) return false;
  move(x.group + x.at.low, x.file + x.p.low, 16, to_packed);
  move(x.group + x.at.low + x.in_group * 16, x.file + x.p.low + 16, 16, to_packed);
  return true;
}

ORCD_HD void pack_block(const Shape& s, const Block& x) {
  if (move_bytes(x, true)) return;
  uint32_t low[4] = {}, high[2] = {};
  visit(
      s.type, x.b,
      [&](uint32_t v, uint32_t byte, uint32_t shift) {
        low[v % 16 / 4] |= (x.file[byte] >> shift & 15u) << (8 * (v % 4) + v / 16 * 4);
      },
      [&](uint32_t v, uint32_t byte, uint32_t shift) {
        if (x.l.high == 4) high[0] |= (x.file[byte] >> shift & 1u) << (8 * (v % 4) + v / 4);
        else high[v / 16] |= (x.file[byte] >> shift & 3u) << (8 * (v % 4) + 2 * (v % 16 / 4));
      });
  memcpy(x.group + x.at.low, low, 16);
  memcpy(x.group + x.at.high, high, x.l.high);
}

__global__ void repack(Shape s, uint8_t* raw, uint8_t* matrix, bool to_packed) {
  const uint64_t index = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= uint64_t(s.count) * (s.cols / 32)) return;
  const Block x = find_block(s, raw, matrix, index);
  if (to_packed) {
    pack_block(s, x);
  } else if (!move_bytes(x, false)) {
    uint32_t low[4], high[2] = {};
    memcpy(low, x.group + x.at.low, 16);
    memcpy(high, x.group + x.at.high, x.l.high);
    // Threads share bytes of a super-block: each sets its own bits of the zeroed rows, atomically, in the
    // word around the byte (the caller's allocation ends on a word).
    const auto put = [&](uint32_t byte, uint32_t shift, uint32_t bits) {
      const uintptr_t address = reinterpret_cast<uintptr_t>(x.file + byte);
      const uint32_t at_bit = uint32_t(address % 4) * 8 + shift;
      atomicOr(reinterpret_cast<unsigned*>(address & ~uintptr_t(3)), bits << at_bit);
    };
    visit(
        s.type, x.b,
        [&](uint32_t v, uint32_t byte, uint32_t shift) {
          put(byte, shift, low[v % 16 / 4] >> (8 * (v % 4) + v / 16 * 4) & 15u);
        },
        [&](uint32_t v, uint32_t byte, uint32_t shift) {
          if (x.l.high == 4) put(byte, shift, high[0] >> (8 * (v % 4) + v / 4) & 1u);
          else put(byte, shift, high[v / 16] >> (8 * (v % 4) + 2 * (v % 16 / 4)) & 3u);
        });
  }
}

void run(const Shape& s, const uint8_t* raw, const uint8_t* matrix, bool to_packed, cudaStream_t stream) {
  const uint64_t row = arith::row_bytes(s.type, s.cols);
  if (!arith::is_quantised(s.type)) {  // float matrices lie as in the file
    uint8_t* at = const_cast<uint8_t*>(matrix) + s.first * row;
    ORCD_CUDA(cudaMemcpyAsync(to_packed ? at : const_cast<uint8_t*>(raw), to_packed ? raw : at, s.count * row,
                              cudaMemcpyDeviceToDevice, stream));
    return;
  }
  const uint64_t blocks = uint64_t(s.count) * (s.cols / 32);
  repack<<<uint32_t((blocks + 127) / 128), 128, 0, stream>>>(s, const_cast<uint8_t*>(raw), const_cast<uint8_t*>(matrix),
                                                             to_packed);
  ORCD_CUDA(cudaGetLastError());
}

}  // namespace

void pack_on_host(TensorType type, uint32_t rows, uint32_t cols, const uint8_t* raw, uint8_t* matrix) {
  if (!arith::is_quantised(type)) {
    std::memcpy(matrix, raw, rows * arith::row_bytes(type, cols));
    return;
  }
  const Shape s = {type, rows, cols, 0, rows};
  const uint64_t blocks = uint64_t(rows) * (cols / 32);
  // Packing reads the rows.
  for (uint64_t i = 0; i < blocks; ++i) pack_block(s, find_block(s, const_cast<uint8_t*>(raw), matrix, i));
}

uint32_t layout_version() {
  static const uint32_t version = orcd::layout_version(pack_on_host);
  return version;
}

void pack(TensorType type, uint32_t rows, uint32_t cols, uint32_t first, uint32_t count, const uint8_t* raw,
          uint8_t* matrix, cudaStream_t stream) {
  run({type, rows, cols, first, count}, raw, matrix, true, stream);
}

void unpack(TensorType type, uint32_t rows, uint32_t cols, uint32_t first, uint32_t count, const uint8_t* matrix,
            uint8_t* raw, cudaStream_t stream) {
  const uint64_t bytes = uint64_t(count) * arith::row_bytes(type, cols);
  ORCD_CUDA(cudaMemsetAsync(raw, 0, (bytes + 3) / 4 * 4, stream));  // whole words: bits are set by words
  run({type, rows, cols, first, count}, raw, matrix, false, stream);
}

}  // namespace orcd::kernels
