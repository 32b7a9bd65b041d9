// What the kernels for products on several rows with int8 matrix units share: a warp's unit of sixteen weight rows, on its
// way to shared memory, and its products with the activations of some tiles of eight rows.
#pragma once

#include "arith/super_block.h"
#include "kernels/fragments.cuh"
#include "kernels/group_copies.cuh"
#include "kernels/several_rows.cuh"
#include "ops/tiles.h"

namespace orcd::kernels {

inline constexpr uint32_t kWarpGroups = 2, kWarpWeights = kWarpGroups * kGroupRows;

// Numbers that a row of activations has beside a unit's values.
template <TensorType T>
inline constexpr uint32_t kUnitScales = kSupers<T> ? 1 : kSegmentBlocks;

// A warp's unit in shared memory. Pieces of 16 bytes of a row lie as value_place() and sum_place() have it, which keeps
// loads off bank conflicts.
template <TensorType T>
struct UnitView {
  const uint8_t* weights;  // (groups, GroupBytes<T>::all)
  const int8_t* values;    // (rows, kUnit<T>)
  const uint32_t* sums;    // (rows, kUnitBlocks<T>) of types that read them
  const float* d;          // (rows, kUnitScales<T>)
  const uint32_t* shifts;  // (rows), super-blocks alone
};

__device__ __forceinline__ uint32_t value_place(uint32_t row, uint32_t piece) { return (piece ^ row % 8) * 16; }

// As fetch_group(), of a last group of fewer rows or a last segment of fewer blocks, which lie otherwise: made whole
// ones.
template <TensorType T>
__device__ __forceinline__ void fetch_partial(uint8_t* to, const uint8_t* group, uint32_t in_group, uint32_t nb,
                                              uint32_t unit) {
  constexpr formats::Planes l = kPlanes<T>;
  constexpr uint32_t kBlocks = kUnitBlocks<T>;
  for (uint32_t i = threadIdx.x % 32; i < in_group * kBlocks; i += 32) {
    const uint32_t r = i / kBlocks, b = i % kBlocks;
    if (unit * kBlocks + b >= nb) continue;
    const RawBlock raw = load_raw<T, false>(group, in_group, nb, unit * kBlocks + b, r);
    const BlockPlace at = place(l, kGroupRows, kBlocks, b, r);
    *reinterpret_cast<uint4*>(to + at.low) = raw.low;
    if constexpr (l.low == 32) *reinterpret_cast<uint4*>(to + at.low + kGroupRows * 16) = raw.second;
    if constexpr (l.high > 0) *reinterpret_cast<uint32_t*>(to + at.high) = raw.high[0];
    if constexpr (l.high == 8) *reinterpret_cast<uint32_t*>(to + at.high + 4) = raw.high[1];
    if constexpr (kSplit<T>) {
      *reinterpret_cast<uint16_t*>(to + at.head + b * 2) = uint16_t(raw.scale);
      *reinterpret_cast<uint16_t*>(to + at.tail) = uint16_t(raw.scale >> 16);
    } else if constexpr (kSuper<T>) {
      *reinterpret_cast<uint4*>(to + at.head) = raw.head;
    } else if constexpr (kShortHeads<T>) {
      const uint32_t in_segment = min(kBlocks, nb - unit * kBlocks);
      to[place(l, kGroupRows, kBlocks, 0, 0).head + r * in_segment + b] = uint8_t(raw.scale);
    } else {
      *reinterpret_cast<uint16_t*>(to + at.head) = uint16_t(raw.scale);
      if constexpr (kAffine<T>) *reinterpret_cast<uint16_t*>(to + at.head + 2) = uint16_t(raw.scale >> 16);
    }
  }
}

// The same of a whole group of a type with exponents for scales, which lie as they came: load_scales() knows.
template <TensorType T>
__device__ __forceinline__ void fetch_short(uint8_t* to, const uint8_t* group, uint32_t nb, uint32_t unit) {
  using B = GroupBytes<T>;
  const uint32_t lane = threadIdx.x % 32, blocks = nb - unit * kUnitBlocks<T>;
  const uint8_t* low = group + unit * B::low;
  for (uint32_t i = lane; i < blocks * kGroupRows; i += 32) copy_async<16>(to + i * 16, low + i * 16, true);
  const uint8_t* head = group + nb * kGroupRows * kPlanes<T>.low + unit * B::head;
  if (lane < blocks * kGroupRows / 4) copy_async<4>(to + B::low + lane * 4, head + lane * 4, true);
}

// The two groups of a warp.
struct OwnGroups {
  const uint8_t* first;
  uint64_t bytes;  // of a whole group: the second lies so much further
  uint32_t rows;   // that there are of both
};

// Starts the copies of a warp's unit, if there is one. nb: blocks of a row.
template <TensorType T>
__device__ __forceinline__ void fetch_unit(uint8_t* to /* (groups, GroupBytes<T>::all) */, const OwnGroups& own,
                                           uint32_t nb, uint32_t unit) {
  if (unit * kUnitBlocks<T> >= nb) return;
  const bool aligned = kAligned<T> || own.bytes % 16 == 0, whole = (unit + 1) * kUnitBlocks<T> <= nb;
#pragma unroll
  for (uint32_t i = 0; i < kWarpGroups; ++i) {
    const uint32_t rows = own.rows > i * kGroupRows ? min(own.rows - i * kGroupRows, kGroupRows) : 0;
    uint8_t* target = to + i * GroupBytes<T>::all;
    const uint8_t* group = own.first + i * own.bytes;
    if (rows == kGroupRows && aligned && whole) fetch_group<T>(target, group, nb, unit);
    else if (kShortHeads<T> && rows == kGroupRows && aligned) fetch_short<T>(target, group, nb, unit);
    else if (rows) fetch_partial<T>(target, group, rows, nb, unit);
  }
}

__device__ __forceinline__ void mma(int32_t c[4], const uint32_t a[4], uint32_t b0, uint32_t b1, int32_t start) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%10,%10,%10};"
      : "=r"(c[0]), "=r"(c[1]), "=r"(c[2]), "=r"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "r"(start));
}

// Four blocks of a unit's weights as the matrix unit takes them, from the block `first` on.
template <TensorType T>
__device__ __forceinline__ void load_weights(const UnitView<T>& u, uint32_t first, uint32_t (&a)[kSegmentBlocks][4]) {
#pragma unroll
  for (uint32_t i = 0; i < kWarpGroups; ++i) {
    uint32_t values[kSegmentBlocks][2];
    load_values<T>(u.weights + i * GroupBytes<T>::all, kUnitBlocks<T>, first, values);
#pragma unroll
    for (uint32_t j = 0; j < kSegmentBlocks; ++j)
      a[j][i] = signed_bytes<T>(values[j][0]), a[j][i + 2] = signed_bytes<T>(values[j][1]);
  }
}

// Two blocks of eight rows of activations, from the block `first` on.
template <TensorType T>
__device__ __forceinline__ void load_rows(const UnitView<T>& u, uint32_t tile, uint32_t first, uint32_t (&b)[4]) {
  const uint32_t lane = threadIdx.x % 32;
  load_matrices(b, u.values + (tile * 8 + lane % 8) * kUnit<T> + value_place(lane, first * 2 + lane / 8));
}

// What this warp's segment of so many blocks gives, take(tile, i, value): of a lane 4g + t weight rows g (i < 2) and
// g + 8, of each tile rows 2t (even i) and 2t + 1.
template <TensorType T, uint32_t kTiles, class Take>
__device__ __forceinline__ void multiply_segment(const UnitView<T>& u, uint32_t blocks, const Take& take) {
  const uint32_t g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  uint32_t a[kSegmentBlocks][4];
  load_weights(u, 0, a);
  float d[kWarpGroups][kSegmentBlocks], m[kWarpGroups][kSegmentBlocks];
#pragma unroll
  for (uint32_t i = 0; i < kWarpGroups; ++i) load_scales<T>(u.weights + i * GroupBytes<T>::all, g, blocks, d[i], m[i]);
#pragma unroll
  for (uint32_t n = 0; n < kTiles; ++n) {
    float da[2][kSegmentBlocks], acc[4] = {};
    int32_t sums[2][kSegmentBlocks];
#pragma unroll
    for (uint32_t c = 0; c < 2; ++c) {
      const uint32_t row = n * 8 + t * 2 + c;
      four_of(u.d + row * kSegmentBlocks, da[c]);
      if constexpr (kAffine<T>) four_of(reinterpret_cast<const int32_t*>(u.sums + row * kSegmentBlocks), sums[c]);
    }
#pragma unroll
    for (uint32_t j = 0; j < kSegmentBlocks; j += 2) {
      uint32_t b[4];
      load_rows(u, n, j, b);
#pragma unroll
      for (uint32_t k = j; k < j + 2; ++k) {
        if (k >= blocks) break;
        int32_t dots[4];
        mma(dots, a[k], b[(k - j) * 2], b[(k - j) * 2 + 1], kMagicBits);
#pragma unroll
        for (uint32_t e = 0; e < 4; ++e) {
          acc[e] = arith::fma32(d[e / 2][k] * da[e % 2][k], arith::float_of(uint32_t(dots[e])) - kMagic, acc[e]);
          if constexpr (kAffine<T>) acc[e] = arith::fma32(m[e / 2][k] * da[e % 2][k], float(sums[e % 2][k]), acc[e]);
        }
      }
    }
#pragma unroll
    for (uint32_t e = 0; e < 4; ++e) take(n, e, acc[e]);
  }
}

// The same of a super-block.
template <TensorType T, uint32_t kTiles, class Take>
__device__ __forceinline__ void multiply_super(const UnitView<T>& u, const Take& take) {
  const uint32_t lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  SuperRow<T> scales[kWarpGroups];
#pragma unroll
  for (uint32_t i = 0; i < kWarpGroups; ++i) scales[i] = load_super_row<T>(u.weights + i * GroupBytes<T>::all, g);

  int32_t products[kTiles][4] = {};
#pragma unroll
  for (uint32_t half = 0; half < 2; ++half) {
    uint32_t a[kSegmentBlocks][4];
    load_weights(u, half * kSegmentBlocks, a);
#pragma unroll
    for (uint32_t n = 0; n < kTiles; ++n) {
      const uint2 both = *reinterpret_cast<const uint2*>(u.shifts + n * 8 + t * 2);
      const uint32_t shifts[2] = {arith::shifts_of_half(both.x, half), arith::shifts_of_half(both.y, half)};
#pragma unroll
      for (uint32_t j = 0; j < kSegmentBlocks; j += 2) {
        uint32_t b[4];
        load_rows(u, n, half * kSegmentBlocks + j, b);
#pragma unroll
        for (uint32_t k = 0; k < 2; ++k) {
          int32_t first[4], second[4] = {};
          if constexpr (kSplit<T>) {
            mma_k16(first, a[j + k][0], a[j + k][1], b[k * 2]);
            mma_k16(second, a[j + k][2], a[j + k][3], b[k * 2 + 1]);
          } else {
            mma(first, a[j + k], b[k * 2], b[k * 2 + 1], 0);
          }
#pragma unroll
          for (uint32_t e = 0; e < 4; ++e)
            add_scaled<T>(products[n][e], scales[e / 2], half * kSegmentBlocks + j + k, shifts[e % 2] >> (j + k) * 8,
                          first[e], second[e]);
        }
      }
    }
  }

  uint32_t mn[4] = {};
  if constexpr (!kSplit<T>) {
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) mn[i] = twice_as_half(scales[i % 2].mn[i / 2], t);
  }
#pragma unroll
  for (uint32_t n = 0; n < kTiles; ++n) {
    float minima[4] = {};
    if constexpr (!kSplit<T>) {
      const uint32_t* sums = u.sums + (n * 8 + g) * kSuperBlocks;
      mma_halves(minima, mn, sums[sum_place(g, t)], sums[sum_place(g, 4 + t)]);
    }
    const float2 da = *reinterpret_cast<const float2*>(u.d + n * 8 + t * 2);
#pragma unroll
    for (uint32_t e = 0; e < 4; ++e) {
      const SuperRow<T>& w = scales[e / 2];
      take(n, e, finish_super<T>(products[n][e], minima[e], w.d, w.dmin, e % 2 ? da.y : da.x));
    }
  }
}

}  // namespace orcd::kernels
