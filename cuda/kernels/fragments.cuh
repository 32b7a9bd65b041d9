// Weights as an int8 matrix unit takes them: lane 4g + t brings values 4t .. 4t + 3 and 16 + 4t .. of a block of weight
// row g, and what belongs to them.
#pragma once

#include <cuda_fp16.h>

#include "kernels/block.cuh"

namespace orcd::kernels {

// Numbers of a segment's blocks.
template <class N>
__device__ __forceinline__ void four_of(const N* from, N out[kSegmentBlocks]) {
  static_assert(sizeof(N) == 4);
  const uint4 v = *reinterpret_cast<const uint4*>(from);
  memcpy(out, &v, 16);
}

__device__ __forceinline__ int32_t signed_byte(uint32_t word, uint32_t i) { return int32_t(int8_t(word >> (8 * i))); }

// Values of four blocks of this lane's row, from the block `first` on. `group`: eight weight rows of nb blocks, as
// packed.
template <TensorType T>
__device__ __forceinline__ void load_values(const uint8_t* group, uint32_t nb, uint32_t first,
                                            uint32_t values[kSegmentBlocks][2]) {
  constexpr formats::Planes l = kPlanes<T>;
  const uint32_t lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const auto word = [&](uint32_t offset) { return *reinterpret_cast<const uint32_t*>(group + offset); };
  const BlockPlace at = place(l, kGroupRows, nb, first, g);
  uint32_t high[kSegmentBlocks];
  if constexpr (l.high == 4) four_of(reinterpret_cast<const uint32_t*>(group + at.high), high);
#pragma unroll
  for (uint32_t j = 0; j < kSegmentBlocks; ++j) {
    const uint32_t low = word(at.low + j * kGroupRows * l.low + 4 * t);
    if constexpr (l.low == 32) {
      values[j][0] = low;
      values[j][1] = word(at.low + (j * 2 + 1) * kGroupRows * 16 + 4 * t);
    } else if constexpr (formats::HasTable<formats::Format<T>>) {
      constexpr formats::Table table = formats::Format<T>::kTable;
      const LookedUp both = look_up(table, low);
      values[j][0] = both.low, values[j][1] = both.high;
    } else {
      values[j][0] = low & 0x0f0f0f0fu;
      values[j][1] = low >> 4 & 0x0f0f0f0fu;
    }
    if constexpr (l.high == 4) {
      values[j][0] |= high[j] << (4 - t) & 0x10101010u;
      values[j][1] |= high[j] >> t & 0x10101010u;
    }
    if constexpr (l.high == 8) {
      const uint32_t offset = at.high + j * kGroupRows * 8;
      values[j][0] |= (word(offset) >> (2 * t) & 0x03030303u) << 4;
      values[j][1] |= (word(offset + 4) >> (2 * t) & 0x03030303u) << 4;
    }
  }
}

// Types whose scales are exponents, a byte each. Of a segment of fewer blocks they lie as close.
template <TensorType T>
inline constexpr bool kShortHeads = kPlanes<T>.head == 1;

// What a row of a group of one segment of so many blocks has beside its values: d, and m of affine types, of each block.
template <TensorType T>
__device__ __forceinline__ void load_scales(const uint8_t* group, uint32_t row, uint32_t blocks,
                                            float d[kSegmentBlocks], float m[kSegmentBlocks]) {
  constexpr formats::Planes l = kPlanes<T>;
  const uint8_t* head = group + place(l, kGroupRows, kSegmentBlocks, 0, row).head;
  if constexpr (l.head == 4) {
    uint32_t both[kSegmentBlocks];
    four_of(reinterpret_cast<const uint32_t*>(head), both);
#pragma unroll
    for (uint32_t j = 0; j < kSegmentBlocks; ++j) d[j] = half_bits(both[j]), m[j] = half_bits(both[j] >> 16);
  } else if constexpr (kShortHeads<T>) {
    const uint8_t* first = group + place(l, kGroupRows, kSegmentBlocks, 0, 0).head + row * blocks;
    if (blocks == kSegmentBlocks) {
      const uint32_t four = *reinterpret_cast<const uint32_t*>(first);
#pragma unroll
      for (uint32_t j = 0; j < kSegmentBlocks; ++j) d[j] = formats::power_of(four >> (8 * j) & 255u);
    } else {
#pragma unroll
      for (uint32_t j = 0; j < kSegmentBlocks; ++j) d[j] = j < blocks ? formats::power_of(first[j]) : 0.0f;
    }
  } else {
    const uint2 four = *reinterpret_cast<const uint2*>(head);
    d[0] = half_bits(four.x), d[1] = half_bits(four.x >> 16);
    d[2] = half_bits(four.y), d[3] = half_bits(four.y >> 16);
  }
}

// The same of a row of a group of one super-block.
template <TensorType T>
struct SuperRow {
  float d, dmin;
  uint32_t sc[kSplit<T> ? 4 : 2];  // bytes: scales of the blocks, Q6_K: of their halves
  uint32_t mn[2];                  // likewise minima
};

template <TensorType T>
__device__ __forceinline__ SuperRow<T> load_super_row(const uint8_t* group, uint32_t row) {
  constexpr formats::Planes l = kPlanes<T>;
  const BlockPlace of = place(l, kGroupRows, kSuperBlocks, 0, row);
  const uint4 head = *reinterpret_cast<const uint4*>(group + of.head);
  if constexpr (kSplit<T>) {
    const float d = half_bits(*reinterpret_cast<const uint16_t*>(group + of.tail));
    return {d, 0.0f, {head.x, head.y, head.z, head.w}, {}};
  } else {
    // d | dmin, then 12 bytes of scales: those of blocks 0 .. 3 lie plain, of 4 .. 7 in pieces.
    return {half_bits(head.x),
            half_bits(head.x >> 16),
            {head.y & 0x3f3f3f3fu, (head.w & 0x0f0f0f0fu) | (head.y >> 2 & 0x30303030u)},
            {head.z & 0x3f3f3f3fu, (head.w >> 4 & 0x0f0f0f0fu) | (head.z >> 2 & 0x30303030u)}};
  }
}

// Minimum of a block as the matrix unit takes it, twice, for both halves of the block.
__device__ __forceinline__ uint32_t twice_as_half(uint32_t word, uint32_t i) {
  const uint32_t bits = __byte_perm(word, 0x64646464u, 0x4040u | i | i << 8);  // 1024 + byte
  const __half2 h = __hsub2(*reinterpret_cast<const __half2*>(&bits), __half2half2(__ushort_as_half(0x6400)));
  return *reinterpret_cast<const uint32_t*>(&h);
}

__device__ __forceinline__ void mma_k16(int32_t c[4], uint32_t a0, uint32_t a1, uint32_t b) {
  asm("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%7,%7,%7,%7};"
      : "=r"(c[0]), "=r"(c[1]), "=r"(c[2]), "=r"(c[3])
      : "r"(a0), "r"(a1), "r"(b), "r"(0));
}

// Products of binary16 numbers, added up in binary32. Used for integers alone, the sums of which stay below 2^24: they
// are exact in any order.
__device__ __forceinline__ void mma_halves(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%10,%10,%10};"
      : "=f"(c[0]), "=f"(c[1]), "=f"(c[2]), "=f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(0.0f));
}

// A block's integers to a super-block's, of weights with these scales: as one product gives them, or, of Q6_K, as one
// for each half does. `shift`: of the activations, in its low five bits.
template <TensorType T>
__device__ __forceinline__ void add_scaled(int32_t& to, const SuperRow<T>& w, uint32_t block, uint32_t shift,
                                           int32_t first, int32_t second) {
  if constexpr (kSplit<T>) {
    const uint32_t word = w.sc[block / 2], at = block % 2 * 2;
    to += signed_byte(word, at) * shifted(first, shift) + signed_byte(word, at + 1) * shifted(second, shift);
  } else {
    to += signed_byte(w.sc[block / 4], block % 4) * shifted(first, shift);
  }
}

// An integer below 2^22 in magnitude, added to these bits, is a float that much above 1.5 · 2^23.
inline constexpr int32_t kMagicBits = 0x4b400000;
inline constexpr float kMagic = 12582912.0f;

}  // namespace orcd::kernels
