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

ORCD_HD uint8_t* group_of(const Shape& s, uint8_t* matrix, uint32_t row, uint32_t* rows_in_group) {
  const uint32_t group = row / kGroupRows;
  const uint32_t left = s.rows - group * kGroupRows;
  *rows_in_group = left < kGroupRows ? left : kGroupRows;
  return matrix + uint64_t(group) * kGroupRows * formats::row_bytes(s.type, s.cols);
}

// Copies between the file's head (or tail) and the packed one, in the wanted direction.
ORCD_HD void move(uint8_t* packed, uint8_t* raw, uint32_t n, bool to_packed) {
  for (uint32_t i = 0; i < n; ++i) (to_packed ? packed : raw)[i] = (to_packed ? raw : packed)[i];
}

// One block of 32 values, in the file and in the image.
struct Block {
  uint32_t b, in_group;
  BlockPlace at;
  uint8_t *group, *file;
};

template <class F>
ORCD_HD Block find_block(const Shape& s, uint8_t* raw, uint8_t* matrix, uint64_t index) {
  const uint32_t nb = s.cols / 32;
  const uint32_t i = uint32_t(index / nb), row = s.first + i;
  constexpr formats::Planes planes = F::kPlanes;
  Block x;
  x.b = uint32_t(index % nb);
  x.group = group_of(s, matrix, row, &x.in_group);
  x.at = place(planes, x.in_group, nb, x.b, row % kGroupRows);
  x.file = raw + uint64_t(i) * formats::row_bytes(s.type, s.cols) +
           uint64_t(x.b / (F::kValues / 32)) * sizeof(typename F::Block);
  return x;
}

// What is copied as it is; true if that was all.
template <class F>
ORCD_HD bool move_bytes(const Block& x, bool to_packed) {
  constexpr formats::Planes planes = F::kPlanes;
  constexpr formats::Parts parts = F::kParts;
  if (!planes.super || x.b % 8 == 0) move(x.group + x.at.head, x.file + parts.head, planes.head, to_packed);
  if (planes.tail && x.b % 8 == 0) move(x.group + x.at.tail, x.file + parts.tail, planes.tail, to_packed);
  if constexpr (planes.low == 32) {
    for (uint32_t half = 0; half < 2; ++half)
      move(x.group + x.at.low + half * x.in_group * 16, x.file + F::low(x.b, 16 * half).byte, 16, to_packed);
  }
  return planes.low == 32;
}

// Bits that each value has in the plane of high bits, and where value v has them in its words.
template <class F>
inline constexpr uint32_t kHighBits = F::kPlanes.high / 4;
template <class F>
ORCD_HD uint32_t high_word(uint32_t v) {
  return kHighBits<F> == 1 ? 0 : v / 16;
}
template <class F>
ORCD_HD uint32_t high_shift(uint32_t v) {
  return 8 * (v % 4) + (kHighBits<F> == 1 ? v / 4 : 2 * (v % 16 / 4));
}
ORCD_HD uint32_t third_shift(uint32_t v) { return 8 * (v % 4) + v / 4; }
ORCD_HD uint32_t low_shift(uint32_t v) { return 8 * (v % 4) + v / 16 * 4; }

template <class F>
ORCD_HD void pack_block(const Block& x) {
  if (move_bytes<F>(x, true)) return;
  constexpr formats::Planes planes = F::kPlanes;
  uint32_t low[4] = {}, high[2] = {}, third = 0;
  const auto bits = [&](formats::Bits at, uint32_t count) { return x.file[at.byte] >> at.shift & ((1u << count) - 1); };
  for (uint32_t v = 0; v < 32; ++v) {
    if constexpr (planes.low > 0) low[v % 16 / 4] |= bits(F::low(x.b, v), 4) << low_shift(v);
    if constexpr (kHighBits<F> > 0) high[high_word<F>(v)] |= bits(F::high(x.b, v), kHighBits<F>) << high_shift<F>(v);
    if constexpr (planes.third > 0) third |= bits(F::third(x.b, v), 1) << third_shift(v);
  }
  memcpy(x.group + x.at.low, low, planes.low);
  memcpy(x.group + x.at.high, high, planes.high);
  memcpy(x.group + x.at.third, &third, planes.third);
}

template <class F>
__device__ void unpack_block(const Block& x) {
  if (move_bytes<F>(x, false)) return;
  constexpr formats::Planes planes = F::kPlanes;
  uint32_t low[4] = {}, high[2] = {}, third = 0;
  memcpy(low, x.group + x.at.low, planes.low);
  memcpy(high, x.group + x.at.high, planes.high);
  memcpy(&third, x.group + x.at.third, planes.third);
  // Threads share bytes of a super-block: each sets its own bits of the zeroed rows, atomically, in the
  // word around the byte (the caller's allocation ends on a word).
  const auto put = [&](formats::Bits at, uint32_t bits) {
    const uintptr_t address = reinterpret_cast<uintptr_t>(x.file + at.byte);
    const uint32_t shift = uint32_t(address % 4) * 8 + at.shift;
    atomicOr(reinterpret_cast<unsigned*>(address & ~uintptr_t(3)), bits << shift);
  };
  // Not unrolled: who reads weights back can wait, and the code would be ten times as large.
#pragma unroll 1
  for (uint32_t v = 0; v < 32; ++v) {
    if constexpr (planes.low > 0) put(F::low(x.b, v), low[v % 16 / 4] >> low_shift(v) & 15u);
    if constexpr (planes.third > 0) put(F::third(x.b, v), third >> third_shift(v) & 1u);
    if constexpr (kHighBits<F> > 0)
      put(F::high(x.b, v), high[high_word<F>(v)] >> high_shift<F>(v) & ((1u << kHighBits<F>)-1));
  }
}

template <TensorType T>
__global__ void repack(Shape s, uint8_t* raw, uint8_t* matrix, bool to_packed) {
  using F = formats::Format<T>;
  const uint64_t index = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= uint64_t(s.count) * (s.cols / 32)) return;
  const Block x = find_block<F>(s, raw, matrix, index);
  to_packed ? pack_block<F>(x) : unpack_block<F>(x);
}

void run(const Shape& s, const uint8_t* raw, const uint8_t* matrix, bool to_packed, cudaStream_t stream) {
  const uint64_t row = formats::row_bytes(s.type, s.cols);
  if (!formats::is_quantized(s.type)) {  // float matrices lie as in the file
    uint8_t* at = const_cast<uint8_t*>(matrix) + s.first * row;
    ORCD_CUDA(cudaMemcpyAsync(to_packed ? at : const_cast<uint8_t*>(raw), to_packed ? raw : at, s.count * row,
                              cudaMemcpyDeviceToDevice, stream));
    return;
  }
  const uint64_t blocks = uint64_t(s.count) * (s.cols / 32);
  formats::with_format(s.type, [&]<TensorType T>() {
    repack<T><<<uint32_t((blocks + 127) / 128), 128, 0, stream>>>(s, const_cast<uint8_t*>(raw),
                                                                  const_cast<uint8_t*>(matrix), to_packed);
  });
  ORCD_CUDA(cudaGetLastError());
}

}  // namespace

void pack_on_host(TensorType type, uint32_t rows, uint32_t cols, const uint8_t* raw, uint8_t* matrix) {
  if (!formats::is_quantized(type)) {
    std::memcpy(matrix, raw, rows * formats::row_bytes(type, cols));
    return;
  }
  const Shape s = {type, rows, cols, 0, rows};
  const uint64_t blocks = uint64_t(rows) * (cols / 32);
  // Packing reads the rows.
  formats::with_format(type, [&]<TensorType T>() {
    using F = formats::Format<T>;
    for (uint64_t i = 0; i < blocks; ++i) pack_block<F>(find_block<F>(s, const_cast<uint8_t*>(raw), matrix, i));
  });
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
  const uint64_t bytes = uint64_t(count) * formats::row_bytes(type, cols);
  ORCD_CUDA(cudaMemsetAsync(raw, 0, (bytes + 3) / 4 * 4, stream));  // whole words: bits are set by words
  run({type, rows, cols, first, count}, raw, matrix, false, stream);
}

}  // namespace orcd::kernels
