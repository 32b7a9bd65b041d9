// File layout → packed layout and back: one thread per block of 32 values.
#include "device/check.h"
#include "kernels/launch.h"
#include "kernels/layout.h"

namespace orcd::kernels {
namespace {

struct Shape {
  TensorType type;
  uint32_t rows, cols, first, count;
};

__device__ const uint8_t* block_of(const Shape& s, const uint8_t* row, uint32_t b) {
  return row + uint64_t(b / (arith::block_values(s.type) / 32)) * arith::block_bytes(s.type);
}

// Offsets of the parts in a block of the file.
struct Parts {
  uint32_t head, head_bytes, high, low;
};

__device__ Parts parts(TensorType type) {
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
__device__ void visit(TensorType type, uint32_t b, F low, G high) {
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

__device__ uint8_t* group_of(const Shape& s, uint8_t* matrix, uint32_t row, uint32_t* rows_in_group) {
  const uint32_t group = row / kGroupRows;
  *rows_in_group = min(kGroupRows, s.rows - group * kGroupRows);
  return matrix + uint64_t(group) * kGroupRows * arith::row_bytes(s.type, s.cols);
}

// Copies between the file's head (or tail) and the packed one, in the wanted direction.
__device__ void move(uint8_t* packed, uint8_t* raw, uint32_t n, bool to_packed) {
  for (uint32_t i = 0; i < n; ++i) (to_packed ? packed : raw)[i] = (to_packed ? raw : packed)[i];
}

__global__ void repack(Shape s, uint8_t* raw, uint8_t* matrix, bool to_packed) {
  const uint32_t nb = s.cols / 32;
  const uint64_t index = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= uint64_t(s.count) * nb) return;
  const uint32_t i = index / nb, b = index % nb, row = s.first + i;
  uint32_t in_group;
  uint8_t* group = group_of(s, matrix, row, &in_group);
  const Layout l = layout_of(s.type);
  const BlockPlace at = place(l, in_group, nb, b, row % kGroupRows);
  uint8_t* file = const_cast<uint8_t*>(block_of(s, raw + uint64_t(i) * arith::row_bytes(s.type, s.cols), b));
  const Parts p = parts(s.type);

  if (!l.super || b % 8 == 0) move(group + at.head, file + p.head, p.head_bytes, to_packed);
  if (l.tail && b % 8 == 0) move(group + at.tail, file + 208, 2, to_packed);
  if (l.low == 32) {
    move(group + at.low, file + p.low, 16, to_packed);
    move(group + at.low + in_group * 16, file + p.low + 16, 16, to_packed);
    return;
  }
  if (to_packed) {
    uint32_t low[4] = {}, high[2] = {};
    visit(
        s.type, b,
        [&](uint32_t v, uint32_t byte, uint32_t shift) {
          low[v % 16 / 4] |= (file[byte] >> shift & 15u) << (8 * (v % 4) + v / 16 * 4);
        },
        [&](uint32_t v, uint32_t byte, uint32_t shift) {
          if (l.high == 4) high[0] |= (file[byte] >> shift & 1u) << (8 * (v % 4) + v / 4);
          else high[v / 16] |= (file[byte] >> shift & 3u) << (8 * (v % 4) + 2 * (v % 16 / 4));
        });
    memcpy(group + at.low, low, 16);
    memcpy(group + at.high, high, l.high);
  } else {
    uint32_t low[4], high[2] = {};
    memcpy(low, group + at.low, 16);
    memcpy(high, group + at.high, l.high);
    // Threads share bytes of a super-block: each sets its own bits of the zeroed rows, atomically, in the
    // word around the byte (the caller's allocation ends on a word).
    const auto put = [&](uint32_t byte, uint32_t shift, uint32_t bits) {
      const uintptr_t address = reinterpret_cast<uintptr_t>(file + byte);
      const uint32_t at_bit = uint32_t(address % 4) * 8 + shift;
      atomicOr(reinterpret_cast<unsigned*>(address & ~uintptr_t(3)), bits << at_bit);
    };
    visit(
        s.type, b,
        [&](uint32_t v, uint32_t byte, uint32_t shift) {
          put(byte, shift, low[v % 16 / 4] >> (8 * (v % 4) + v / 16 * 4) & 15u);
        },
        [&](uint32_t v, uint32_t byte, uint32_t shift) {
          if (l.high == 4) put(byte, shift, high[0] >> (8 * (v % 4) + v / 4) & 1u);
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
  repack<<<uint32_t((blocks + 127) / 128), 128, 0, stream>>>(s, const_cast<uint8_t*>(raw),
                                                             const_cast<uint8_t*>(matrix), to_packed);
  ORCD_CUDA(cudaGetLastError());
}

}  // namespace

void pack(TensorType type, uint32_t rows, uint32_t cols, uint32_t first, uint32_t count,
          const uint8_t* raw, uint8_t* matrix, cudaStream_t stream) {
  run({type, rows, cols, first, count}, raw, matrix, true, stream);
}

void unpack(TensorType type, uint32_t rows, uint32_t cols, uint32_t first, uint32_t count,
            const uint8_t* matrix, uint8_t* raw, cudaStream_t stream) {
  const uint64_t bytes = uint64_t(count) * arith::row_bytes(type, cols);
  ORCD_CUDA(cudaMemsetAsync(raw, 0, (bytes + 3) / 4 * 4, stream));  // whole words: bits are set by words
  run({type, rows, cols, first, count}, raw, matrix, false, stream);
}

}  // namespace orcd::kernels
