// A segment of eight weight rows as an int8 matrix unit takes it (mma.m16n8k32: 16 activation rows by 8
// weight rows), and the product with activations by the contract: exact sums of each block of 32, then one
// float chain.
//
// Lane 4g + t brings values 4t .. 4t + 3 and 16 + 4t .. of weight row g and of activation rows g and
// g + 8 (tiled.h), and gets the sums of these activation rows with weight rows 2t and 2t + 1.
#pragma once

#include "kernels/block.cuh"
#include "kernels/tiled.h"

namespace orcd::kernels {

template <TensorType T>
struct SegmentWeights {
  uint32_t values[kSegmentBlocks][2];  // still with their offset
  float d[kSegmentBlocks][2];          // of weight rows 2t, 2t + 1
  float m[kSegmentBlocks][2];          // affine types
  uint2 scales[2];                     // Q6_K: both scales of the four blocks
};

// Numbers of a segment's blocks, 16 bytes at once where the layout allows it.
template <bool kWhole, class N>
__device__ __forceinline__ void four_of(const N* from, uint32_t blocks, N out[kSegmentBlocks]) {
  static_assert(sizeof(N) == 4);
  if constexpr (kWhole) {
    const uint4 v = *reinterpret_cast<const uint4*>(from);
    memcpy(out, &v, 16);
  } else {
#pragma unroll
    for (uint32_t j = 0; j < kSegmentBlocks; ++j) out[j] = j < blocks ? from[j] : N{};
  }
}

// Byte `i` of a word below 2^23 as a float: the integer in the lowest bits of 2^23, less 2^23. Exact.
__device__ __forceinline__ float small_byte(uint32_t word, uint32_t i) {
  return arith::float_of(__byte_perm(word, 0x4b000000u, 0x7440u | i)) - 8388608.0f;
}

__device__ __forceinline__ int32_t signed_byte(uint32_t word, uint32_t i) { return int32_t(int8_t(word >> (8 * i))); }

// The values of this lane's row, a row beyond the group's last being that one. `group`: up to eight weight rows as
// packed; `first` is the segment's first block, `blocks` what it has of them. kWhole: all eight rows, and every segment
// has four blocks. Blocks that are not there are left alone: nobody uses them.
template <TensorType T, bool kWhole>
__device__ __forceinline__ void load_values(const uint8_t* group, uint32_t in_group, uint32_t nb, uint32_t first,
                                            uint32_t blocks, uint32_t values[kSegmentBlocks][2]) {
  constexpr formats::Planes l = kPlanes<T>;
  const uint32_t lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const auto word = [&](uint32_t offset) { return *reinterpret_cast<const uint32_t*>(group + offset); };
  const BlockPlace at = place(l, in_group, nb, first, min(g, in_group - 1));
  uint32_t high[kSegmentBlocks];
  if constexpr (l.high == 4) four_of<kWhole>(reinterpret_cast<const uint32_t*>(group + at.high), blocks, high);
#pragma unroll
  for (uint32_t j = 0; j < kSegmentBlocks; ++j) {
    if (j >= blocks) break;
    const uint32_t low = word(at.low + j * in_group * l.low + 4 * t);
    if constexpr (l.low == 32) {
      values[j][0] = low;
      values[j][1] = word(at.low + (j * 2 + 1) * in_group * 16 + 4 * t);
    } else {
      values[j][0] = low & 0x0f0f0f0fu;
      values[j][1] = low >> 4 & 0x0f0f0f0fu;
    }
    if constexpr (l.high == 4) {
      values[j][0] |= high[j] << (4 - t) & 0x10101010u;
      values[j][1] |= high[j] >> t & 0x10101010u;
    }
    if constexpr (l.high == 8) {
      const uint32_t offset = at.high + j * in_group * 8;
      values[j][0] |= (word(offset) >> (2 * t) & 0x03030303u) << 4;
      values[j][1] |= (word(offset + 4) >> (2 * t) & 0x03030303u) << 4;
    }
  }
}

// What row `row` of the group has beside its values: d, and m of affine types, of each block; Q6_K: both scales of the
// four blocks.
template <TensorType T, bool kWhole>
__device__ __forceinline__ void load_scales(const uint8_t* group, uint32_t in_group, uint32_t nb, uint32_t first,
                                            uint32_t blocks, uint32_t row, float d[kSegmentBlocks],
                                            float m[kSegmentBlocks], uint2& scales) {
  constexpr formats::Planes l = kPlanes<T>;
  const BlockPlace of = place(l, in_group, nb, first, min(row, in_group - 1));
  if constexpr (kSuper<T>) {
    // d | dmin, then 12 bytes of scales: those of blocks 0 .. 3 lie plain, of 4 .. 7 in pieces.
    const uint4 head = *reinterpret_cast<const uint4*>(group + of.head);
    const bool early = first % 8 == 0;
    const uint32_t sc = early ? head.y & 0x3f3f3f3fu : (head.w & 0x0f0f0f0fu) | (head.y >> 2 & 0x30303030u);
    const uint32_t mn = early ? head.z & 0x3f3f3f3fu : (head.w >> 4 & 0x0f0f0f0fu) | (head.z >> 2 & 0x30303030u);
    const float scale = half_bits(head.x), less = -half_bits(head.x >> 16);
#pragma unroll
    for (uint32_t j = 0; j < kSegmentBlocks; ++j) {
      d[j] = scale * small_byte(sc, j);
      m[j] = less * small_byte(mn, j);
    }
  } else if constexpr (kSplit<T>) {
    scales = *reinterpret_cast<const uint2*>(group + of.head + first % 8 * 2);
    const float scale = half_bits(*reinterpret_cast<const uint16_t*>(group + of.tail));
#pragma unroll
    for (uint32_t j = 0; j < kSegmentBlocks; ++j) d[j] = scale;
  } else if constexpr (l.head == 4) {
    uint32_t both[kSegmentBlocks];
    four_of<kWhole>(reinterpret_cast<const uint32_t*>(group + of.head), blocks, both);
#pragma unroll
    for (uint32_t j = 0; j < kSegmentBlocks; ++j) d[j] = half_bits(both[j]), m[j] = half_bits(both[j] >> 16);
  } else {
    const uint16_t* halves = reinterpret_cast<const uint16_t*>(group + of.head);
    uint2 four = {};
    if constexpr (kWhole) {
      four = *reinterpret_cast<const uint2*>(halves);
    } else {
      four.x = halves[0] | uint32_t(blocks > 1 ? halves[1] : 0) << 16;
      four.y = uint32_t(blocks > 2 ? halves[2] : 0) | uint32_t(blocks > 3 ? halves[3] : 0) << 16;
    }
    d[0] = half_bits(four.x), d[1] = half_bits(four.x >> 16);
    d[2] = half_bits(four.y), d[3] = half_bits(four.y >> 16);
  }
}

// Segment `seg` of a group of `rows` weight rows. Rows and blocks that are not there come as others: nobody uses them.
template <TensorType T, bool kWhole>
__device__ __forceinline__ SegmentWeights<T> load_fragments(const uint8_t* group, uint32_t rows, uint32_t nb,
                                                            uint32_t seg) {
  const uint32_t in_group = kWhole ? kGroupRows : rows, first = seg * kSegmentBlocks;
  const uint32_t blocks = kWhole ? kSegmentBlocks : min(kSegmentBlocks, nb - first);
  SegmentWeights<T> w;
  load_values<T, kWhole>(group, in_group, nb, first, blocks, w.values);
#pragma unroll
  for (uint32_t c = 0; c < 2; ++c) {
    float d[kSegmentBlocks], m[kSegmentBlocks];
    const uint32_t row = 2 * (threadIdx.x % 4) + c;
    load_scales<T, kWhole>(group, in_group, nb, first, blocks, row, d, m, w.scales[c]);
#pragma unroll
    for (uint32_t j = 0; j < kSegmentBlocks; ++j) w.d[j][c] = d[j], w.m[j][c] = m[j];
  }
  return w;
}

__device__ __forceinline__ void mma_k32(int32_t c[4], const uint32_t a[4], const uint32_t b[2], int32_t low,
                                        int32_t high) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%10,%11,%11};"
      : "=r"(c[0]), "=r"(c[1]), "=r"(c[2]), "=r"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(low), "r"(high));
}

__device__ __forceinline__ void mma_k16(int32_t c[4], uint32_t a0, uint32_t a1, uint32_t b, int32_t low, int32_t high) {
  asm("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%7,%7,%8,%8};"
      : "=r"(c[0]), "=r"(c[1]), "=r"(c[2]), "=r"(c[3])
      : "r"(a0), "r"(a1), "r"(b), "r"(low), "r"(high));
}

// An integer below 2^22 in magnitude, added to these bits, is a float that much above 1.5 · 2^23.
inline constexpr int32_t kMagicBits = 0x4b400000;
inline constexpr float kMagic = 12582912.0f;

// The segment's chain for the rows of activation group `group` and, unless kEight, of the next: row g with
// weight rows 2t and 2t + 1 to acc[0 .. 1], of the next group to acc[2 .. 3].
template <TensorType T, bool kEight>
__device__ __forceinline__ void multiply_segment(const SegmentWeights<T>& w, const TiledActivations& x, uint32_t group,
                                                 uint32_t seg, uint32_t blocks, float acc[4]) {
  constexpr uint32_t kSets = kEight ? 1 : 2;
  const uint32_t lane = threadIdx.x % 32, g = lane / 4;
  uint32_t a[kSegmentBlocks][4] = {};
  float d[2][kSegmentBlocks];
  int32_t sum[2][kSegmentBlocks], sum_lo16[2][kSegmentBlocks];
#pragma unroll
  for (uint32_t i = 0; i < kSets; ++i) {
    const uint32_t at = seg * x.groups + min(group + i, x.groups - 1);
    const uint4* q = reinterpret_cast<const uint4*>(x.q + at * kTiledSegment) + lane;
    const uint4 first = q[0], second = q[32];
    a[0][i] = first.x, a[0][i + 2] = first.y, a[1][i] = first.z, a[1][i + 2] = first.w;
    a[2][i] = second.x, a[2][i + 2] = second.y, a[3][i] = second.z, a[3][i + 2] = second.w;
    const uint32_t numbers = (at * 8 + g) * kSegmentBlocks;
    four_of<true>(x.d + numbers, blocks, d[i]);
    if constexpr (kAffine<T> || kOffset<T> != 0) four_of<true>(x.sum + numbers, blocks, sum[i]);
    if constexpr (kSplit<T>) four_of<true>(x.sum_lo16 + numbers, blocks, sum_lo16[i]);
  }
#pragma unroll
  for (uint32_t i = 0; i < 4; ++i) acc[i] = 0.0f;
#pragma unroll
  for (uint32_t j = 0; j < kSegmentBlocks; ++j) {
    if (j >= blocks) break;
    constexpr uint32_t last = kSets - 1;
    float dots[4];
    if constexpr (kSplit<T>) {
      int32_t c0[4], c1[4];
      mma_k16(c0, a[j][0], a[j][1], w.values[j][0], -kOffset<T> * sum_lo16[0][j], -kOffset<T> * sum_lo16[last][j]);
      mma_k16(c1, a[j][2], a[j][3], w.values[j][1], -kOffset<T> * (sum[0][j] - sum_lo16[0][j]),
              -kOffset<T> * (sum[last][j] - sum_lo16[last][j]));
#pragma unroll
      for (uint32_t i = 0; i < 2 * kSets; ++i) {
        const uint32_t scales = j < 2 ? w.scales[i % 2].x : w.scales[i % 2].y;
        dots[i] = float(signed_byte(scales, j % 2 * 2) * c0[i] + signed_byte(scales, j % 2 * 2 + 1) * c1[i]);
      }
    } else {
      int32_t c[4], start[2] = {kMagicBits, kMagicBits};
      if constexpr (kOffset<T> != 0) start[0] -= kOffset<T> * sum[0][j], start[1] -= kOffset<T> * sum[last][j];
      mma_k32(c, a[j], w.values[j], start[0], start[1]);
#pragma unroll
      for (uint32_t i = 0; i < 2 * kSets; ++i) dots[i] = arith::float_of(uint32_t(c[i])) - kMagic;
    }
#pragma unroll
    for (uint32_t i = 0; i < 2 * kSets; ++i) {
      acc[i] = arith::fma32(w.d[j][i % 2] * d[i / 2][j], dots[i], acc[i]);
      if constexpr (kAffine<T>) acc[i] = arith::fma32(w.m[j][i % 2] * d[i / 2][j], float(sum[i / 2][j]), acc[i]);
    }
  }
}

}  // namespace orcd::kernels
