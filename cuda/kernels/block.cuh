// One block of 32 packed weights in registers, and its dot product with a block of activations.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "arith/hd.h"
#include "kernels/layout.h"

namespace orcd::kernels {

template <TensorType T>
inline constexpr formats::Planes kPlanes = formats::Format<T>::kPlanes;
template <TensorType T>
inline constexpr bool kAffine = formats::is_affine(formats::Format<T>::kScales);
template <TensorType T>
inline constexpr bool kSuper = formats::Format<T>::kScales == formats::Scales::kSuper;
template <TensorType T>
inline constexpr bool kSplit = formats::Format<T>::kScales == formats::Scales::kSplit;
// Whether products take super-blocks of 256 values as one.
template <TensorType T>
inline constexpr bool kSupers = formats::has_super_blocks(formats::Format<T>::kScales);
// What is taken off each stored value to get the integer weight.
template <TensorType T>
inline constexpr int32_t kOffset = formats::Format<T>::kOffset;

template <TensorType T>
struct WeightBlock {
  uint32_t w[8];     // byte c of word i: value 4i + c, still with its offset (Q8_0: signed)
  float d, m;        // scale; addend of affine types
  int32_t sc0, sc1;  // of super-blocks: scale and minimum; Q6_K: scales of the halves
};

// The binary16 number in the lower half of a word, exactly.
__device__ __forceinline__ float half_bits(uint32_t bits) { return __half2float(__ushort_as_half(uint16_t(bits))); }

// What of a group belongs to one block of one row.
struct RawBlock {
  uint4 low, second;  // second: Q8_0
  uint32_t high[2];   // Q5_*: the first only
  uint4 head;         // Q4_K, Q5_K: d, dmin, then scales 0..3, 4..7, 8..11
  uint32_t scale;     // d, then m of affine types; Q6_K: the scales of its halves, then d
};

template <TensorType T>
__device__ __forceinline__ WeightBlock<T> unpack(const RawBlock& raw, uint32_t b) {
  constexpr formats::Planes l = kPlanes<T>;
  WeightBlock<T> out;
  const uint32_t words[4] = {raw.low.x, raw.low.y, raw.low.z, raw.low.w};
  if constexpr (l.low == 32) {
    const uint32_t more[4] = {raw.second.x, raw.second.y, raw.second.z, raw.second.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) out.w[i] = words[i], out.w[i + 4] = more[i];
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      out.w[i] = words[i] & 0x0f0f0f0fu;
      out.w[i + 4] = words[i] >> 4 & 0x0f0f0f0fu;
    }
  }
  if constexpr (l.high == 4) {
    const uint32_t h = raw.high[0];
#pragma unroll
    for (int i = 0; i < 8; ++i) out.w[i] |= (i < 4 ? h << (4 - i) : h >> (i - 4)) & 0x10101010u;
  }
  if constexpr (l.high == 8) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const uint32_t h = raw.high[i / 4];
      const int shift = 4 - 2 * (i % 4);
      out.w[i] |= (shift >= 0 ? h << shift : h >> -shift) & 0x30303030u;
    }
  }

  out.m = 0.0f;
  out.sc0 = out.sc1 = 1;
  if constexpr (kSuper<T>) {
    const uint4& head = raw.head;
    const uint32_t shift = b % 4 * 8;
    const uint32_t first = head.y >> shift & 255u, second = head.z >> shift & 255u, third = head.w >> shift & 255u;
    const bool early = b % 8 < 4;
    const uint32_t sc = early ? first & 63u : (third & 15u) | first >> 6 << 4;
    const uint32_t mn = early ? second & 63u : third >> 4 | second >> 6 << 4;
    out.sc0 = int32_t(sc);
    out.sc1 = int32_t(mn);
    out.d = half_bits(head.x) * float(sc);
    out.m = -(half_bits(head.x >> 16) * float(mn));
  } else if constexpr (kSplit<T>) {
    out.sc0 = int8_t(raw.scale);
    out.sc1 = int8_t(raw.scale >> 8);
    out.d = half_bits(raw.scale >> 16);
  } else {
    out.d = half_bits(raw.scale);
    if constexpr (kAffine<T>) out.m = half_bits(raw.scale >> 16);
  }
  return out;
}

// `group`: a group of `rows` rows in device or shared memory, its parts 16-byte aligned when rows = 8.
template <TensorType T, bool kWhole>
__device__ __forceinline__ RawBlock load_raw(const uint8_t* group, uint32_t rows, uint32_t nb, uint32_t b, uint32_t r) {
  constexpr formats::Planes l = kPlanes<T>;
  const BlockPlace at = place(l, kWhole ? kGroupRows : rows, nb, b, r);
  RawBlock raw = {};
  const auto load16 = [&](uint32_t offset) {
    if constexpr (kWhole) return *reinterpret_cast<const uint4*>(group + offset);
    uint4 v;
    memcpy(&v, group + offset, 16);  // by bytes: a partial group aligns to nothing
    return v;
  };
  const auto load4 = [&](uint32_t offset) {
    if constexpr (kWhole) return *reinterpret_cast<const uint32_t*>(group + offset);
    uint32_t v;
    memcpy(&v, group + offset, 4);
    return v;
  };
  const auto load2 = [&](uint32_t offset) -> uint32_t { return *reinterpret_cast<const uint16_t*>(group + offset); };

  raw.low = load16(at.low);
  if constexpr (l.low == 32) raw.second = load16(at.low + (kWhole ? kGroupRows : rows) * 16);
  if constexpr (l.high > 0) raw.high[0] = load4(at.high);
  if constexpr (l.high == 8) raw.high[1] = load4(at.high + 4);
  if constexpr (kSuper<T>) raw.head = load16(at.head);
  else if constexpr (kSplit<T>) raw.scale = load2(at.head + b % 8 * 2) | load2(at.tail) << 16;
  else raw.scale = load2(at.head) | (kAffine<T> ? load2(at.head + 2) << 16 : 0);
  return raw;
}

template <TensorType T, bool kWhole>
__device__ __forceinline__ WeightBlock<T> load_block(const uint8_t* group, uint32_t rows, uint32_t nb, uint32_t b,
                                                     uint32_t r) {
  return unpack<T>(load_raw<T, kWhole>(group, rows, nb, b, r), b);
}

// The four blocks of a whole segment of one row of a whole group: what lies together comes together.
template <TensorType T>
__device__ __forceinline__ void load_segment(const uint8_t* group, uint32_t nb, uint32_t segment, uint32_t r,
                                             RawBlock (&raw)[kSegmentBlocks]) {
  static_assert(kSegmentBlocks == 4);
  constexpr formats::Planes l = kPlanes<T>;
  const BlockPlace at = place(l, kGroupRows, nb, segment * kSegmentBlocks, r);
  const auto load16 = [&](uint32_t offset) { return *reinterpret_cast<const uint4*>(group + offset); };
  const auto load8 = [&](uint32_t offset) { return *reinterpret_cast<const uint2*>(group + offset); };
#pragma unroll
  for (uint32_t j = 0; j < 4; ++j) {
    raw[j].low = load16(at.low + j * kGroupRows * l.low);
    if constexpr (l.low == 32) raw[j].second = load16(at.low + j * kGroupRows * l.low + kGroupRows * 16);
  }
  if constexpr (l.high == 4) {
    const uint4 high = load16(at.high);
    raw[0].high[0] = high.x, raw[1].high[0] = high.y, raw[2].high[0] = high.z, raw[3].high[0] = high.w;
  }
  if constexpr (l.high == 8) {
#pragma unroll
    for (uint32_t j = 0; j < 4; ++j) {
      const uint2 high = load8(at.high + j * kGroupRows * 8);
      raw[j].high[0] = high.x, raw[j].high[1] = high.y;
    }
  }
  if constexpr (kSuper<T>) {
    const uint4 head = load16(at.head);
#pragma unroll
    for (uint32_t j = 0; j < 4; ++j) raw[j].head = head;
  } else if constexpr (kSplit<T>) {
    const uint2 scales = load8(at.head + segment % 2 * 8);
    const uint32_t d = uint32_t(*reinterpret_cast<const uint16_t*>(group + at.tail)) << 16;
    raw[0].scale = (scales.x & 0xffffu) | d, raw[1].scale = scales.x >> 16 | d;
    raw[2].scale = (scales.y & 0xffffu) | d, raw[3].scale = scales.y >> 16 | d;
  } else if constexpr (kAffine<T>) {
    const uint4 scales = load16(at.head);
    raw[0].scale = scales.x, raw[1].scale = scales.y, raw[2].scale = scales.z, raw[3].scale = scales.w;
  } else {
    const uint2 scales = load8(at.head);
    raw[0].scale = scales.x & 0xffffu, raw[1].scale = scales.x >> 16;
    raw[2].scale = scales.y & 0xffffu, raw[3].scale = scales.y >> 16;
  }
}

// Stored values as signed bytes without their offset.
template <TensorType T>
__device__ __forceinline__ uint32_t signed_bytes(uint32_t stored) {
  constexpr uint32_t offset = kOffset<T> * 0x01010101u;
  return offset == 0 ? stored : (stored + (0x80808080u - offset)) ^ 0x80808080u;  // no carry leaves its byte
}

// x · 2^by, `by` being the low five bits of what is given.
__device__ __forceinline__ int32_t shifted(int32_t x, uint32_t by) {
  return int32_t(__funnelshift_l(0, uint32_t(x), by));
}

// What the blocks of a super-block add up to.
struct SuperSums {
  int32_t products;
  int32_t minima;  // of the types that have them
};

// The contract's step of a super-block: d, dmin of the weights, da of the activations.
template <TensorType T>
__device__ __forceinline__ float finish_super(int32_t products, float minima, float d, float dmin, float da) {
  if constexpr (kSplit<T>) return da * (d * float(products));
  else return da * arith::fma32(-dmin, minima, d * float(products));
}

// Adds a block's products with 32 activations; `shift`: theirs, in its low five bits; `sums`: of their halves, as int16.
template <TensorType T>
__device__ __forceinline__ void add_block(SuperSums& to, const WeightBlock<T>& w, const uint4& q0, const uint4& q1,
                                          uint32_t shift, int32_t sums) {
  const auto at = [&](int i) { return int32_t(signed_bytes<T>(w.w[i])); };
  int32_t first = 0, second = 0;
  first = __dp4a(at(0), int32_t(q0.x), first);
  first = __dp4a(at(1), int32_t(q0.y), first);
  first = __dp4a(at(2), int32_t(q0.z), first);
  first = __dp4a(at(3), int32_t(q0.w), first);
  second = __dp4a(at(4), int32_t(q1.x), second);
  second = __dp4a(at(5), int32_t(q1.y), second);
  second = __dp4a(at(6), int32_t(q1.z), second);
  second = __dp4a(at(7), int32_t(q1.w), second);
  if constexpr (kSplit<T>) {
    to.products += shifted(w.sc0 * first + w.sc1 * second, shift);
  } else {
    to.products += w.sc0 * shifted(first + second, shift);
    to.minima = __dp2a_lo(sums, w.sc1 | w.sc1 << 8, to.minima);
  }
}

// Exact integer dot product with 32 activations; `sum`: of these.
template <TensorType T>
__device__ __forceinline__ int32_t dot(const WeightBlock<T>& w, const uint4& q0, const uint4& q1, int32_t sum) {
  int32_t first = 0, second = 0;
  first = __dp4a(int32_t(w.w[0]), int32_t(q0.x), first);
  first = __dp4a(int32_t(w.w[1]), int32_t(q0.y), first);
  first = __dp4a(int32_t(w.w[2]), int32_t(q0.z), first);
  first = __dp4a(int32_t(w.w[3]), int32_t(q0.w), first);
  second = __dp4a(int32_t(w.w[4]), int32_t(q1.x), second);
  second = __dp4a(int32_t(w.w[5]), int32_t(q1.y), second);
  second = __dp4a(int32_t(w.w[6]), int32_t(q1.z), second);
  second = __dp4a(int32_t(w.w[7]), int32_t(q1.w), second);
  return first + second - kOffset<T> * sum;
}

}  // namespace orcd::kernels
