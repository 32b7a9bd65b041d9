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
// Whether the halves of a block of a super-block have scales of their own, and whether there are minima.
template <TensorType T>
inline constexpr bool kHalves = formats::has_halves(formats::Format<T>::kScales);
template <TensorType T>
inline constexpr bool kMinima = kAffine<T> && formats::has_super_blocks(formats::Format<T>::kScales);
// Whether products take super-blocks of 256 values as one.
template <TensorType T>
inline constexpr bool kSupers = formats::has_super_blocks(formats::Format<T>::kScales);
// What is taken off each stored value to get the integer weight.
template <TensorType T>
inline constexpr int32_t kOffset = formats::Format<T>::kOffset;

// Whether a group of eight rows always begins at a multiple of 16 bytes. Of MXFP4 it does not where a row has an odd
// number of blocks: then it is read by words.
template <TensorType T>
inline constexpr bool kAligned = !formats::kHasPower<formats::Format<T>>;

template <TensorType T>
struct WeightBlock {
  uint32_t w[8];  // byte c of word i: value 4i + c, still with its offset (Q8_0 and what a table gives: signed)
  float d, dmin;  // scale of the block or super-block; the addend of affine types, the super-block's minima's scale
  int32_t sc[2], mn[2];  // of super-blocks: scales and minima of the halves, which may be the same
};

// The binary16 number in the lower half of a word, exactly.
__device__ __forceinline__ float half_bits(uint32_t bits) { return __half2float(__ushort_as_half(uint16_t(bits))); }

// What of a group belongs to one block of one row.
struct RawBlock {
  uint4 low, second;  // second: Q8_0
  uint32_t high[2];   // Q5_*: the first only
  uint32_t third;     // Q3_K
  uint4 head;         // of a super-block, but for Q6_K
  uint32_t scale;     // d, then m of affine types or dmin of Q2_K; Q6_K: the scales of its halves, then d
};

// The integers that eight nibbles stand for: of the low ones, and of the high ones.
struct LookedUp {
  uint32_t low, high;
};

__device__ __forceinline__ LookedUp look_up(const formats::Table& table, uint32_t nibbles) {
  // A selector has three bits: both halves of the table are asked, the fourth bit says which is meant.
  const uint32_t select = nibbles & 0x77777777u, which = 0x32103210u | (nibbles & 0x88888888u) >> 1;
  uint32_t pairs[2];
#pragma unroll
  for (uint32_t i = 0; i < 2; ++i) {
    const uint32_t first = __byte_perm(table.words[0], table.words[1], select >> (16 * i));
    const uint32_t second = __byte_perm(table.words[2], table.words[3], select >> (16 * i));
    pairs[i] = __byte_perm(first, second, which >> (16 * i));
  }
  return {__byte_perm(pairs[0], pairs[1], 0x6420), __byte_perm(pairs[0], pairs[1], 0x7531)};
}

// Two bytes of scales, as numbers.
__device__ __forceinline__ void two_bytes(uint32_t bytes, int32_t less, int32_t (&out)[2]) {
  out[0] = int32_t(bytes & 255u) - less, out[1] = int32_t(bytes >> 8 & 255u) - less;
}

// Scales and minima of block b of a super-block, from its head.
template <TensorType T>
__device__ __forceinline__ void scales_of(const uint4& head, uint32_t b, int32_t (&sc)[2], int32_t (&mn)[2]) {
  const uint32_t odd = b % 2 * 16, quarter = b % 8 / 2;
  if constexpr (T == TensorType::kQ2_K) {
    const uint32_t both = (quarter < 2 ? quarter ? head.y : head.x : quarter == 2 ? head.z : head.w) >> odd;
    two_bytes(both & 0x0f0fu, 0, sc);
    two_bytes(both >> 4 & 0x0f0fu, 0, mn);
  } else if constexpr (T == TensorType::kQ3_K) {
    const uint32_t low = (quarter % 2 ? head.y : head.x) >> (odd + quarter / 2 * 4),
                   high = head.z >> (odd + quarter * 2);
    two_bytes((low & 0x0f0fu) | (high & 0x0303u) << 4, 32, sc);
  } else if constexpr (T == TensorType::kIQ4_XS) {
    sc[0] = sc[1] = int32_t((head.y >> (b % 8 * 4) & 15u) | (head.x >> (16 + b % 8 * 2) & 3u) << 4) - 32;
  } else {
    const uint32_t shift = b % 4 * 8;
    const uint32_t first = head.y >> shift & 255u, second = head.z >> shift & 255u, third = head.w >> shift & 255u;
    const bool early = b % 8 < 4;
    sc[0] = sc[1] = int32_t(early ? first & 63u : (third & 15u) | first >> 6 << 4);
    mn[0] = mn[1] = int32_t(early ? second & 63u : third >> 4 | second >> 6 << 4);
  }
}

template <TensorType T>
__device__ __forceinline__ WeightBlock<T> unpack(const RawBlock& raw, uint32_t b) {
  constexpr formats::Planes l = kPlanes<T>;
  WeightBlock<T> out;
  const uint32_t words[4] = {raw.low.x, raw.low.y, raw.low.z, raw.low.w};
  if constexpr (l.low == 32) {
    const uint32_t more[4] = {raw.second.x, raw.second.y, raw.second.z, raw.second.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) out.w[i] = words[i], out.w[i + 4] = more[i];
  } else if constexpr (formats::HasTable<formats::Format<T>>) {
    constexpr formats::Table table = formats::Format<T>::kTable;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const LookedUp both = look_up(table, words[i]);
      out.w[i] = both.low, out.w[i + 4] = both.high;
    }
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      out.w[i] = l.low ? words[i] & 0x0f0f0f0fu : 0;
      out.w[i + 4] = l.low ? words[i] >> 4 & 0x0f0f0f0fu : 0;
    }
  }
  if constexpr (l.high == 4) {
    const uint32_t h = raw.high[0];
#pragma unroll
    for (int i = 0; i < 8; ++i) out.w[i] |= (i < 4 ? h << (4 - i) : h >> (i - 4)) & 0x10101010u;
  }
  if constexpr (l.high == 8) {
    constexpr int place = l.low ? 4 : 0;  // of the two bits in a value
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const uint32_t h = raw.high[i / 4];
      const int shift = place - 2 * (i % 4);
      out.w[i] |= (shift >= 0 ? h << shift : h >> -shift) & (0x03030303u << place);
    }
  }
  if constexpr (l.third > 0) {
#pragma unroll
    for (int i = 0; i < 8; ++i) out.w[i] |= (i < 2 ? raw.third << (2 - i) : raw.third >> (i - 2)) & 0x04040404u;
  }

  out.dmin = 0.0f;
  out.sc[0] = out.sc[1] = 1;
  out.mn[0] = out.mn[1] = 0;
  if constexpr (T == TensorType::kQ6_K) {
    out.sc[0] = int8_t(raw.scale);
    out.sc[1] = int8_t(raw.scale >> 8);
    out.d = half_bits(raw.scale >> 16);
  } else if constexpr (kSupers<T>) {
    scales_of<T>(raw.head, b, out.sc, out.mn);
    const uint32_t d = l.tail ? raw.scale : raw.head.x;
    out.d = half_bits(d);
    if constexpr (kMinima<T>) out.dmin = half_bits(d >> 16);
  } else {
    out.d = formats::kHasPower<formats::Format<T>> ? formats::power_of(raw.scale) : half_bits(raw.scale);
    if constexpr (kAffine<T>) out.dmin = half_bits(raw.scale >> 16);
  }
  return out;
}

// `group`: a group of `rows` rows in device or shared memory, its parts 16-byte aligned when rows = 8.
template <TensorType T, bool kWhole>
__device__ __forceinline__ RawBlock load_raw(const uint8_t* group, uint32_t rows, uint32_t nb, uint32_t b, uint32_t r) {
  constexpr formats::Planes l = kPlanes<T>;
  const BlockPlace at = place(l, kWhole ? kGroupRows : rows, nb, b, r);
  RawBlock raw = {};
  // In a group of fewer rows parts of 16 bytes begin at any multiple of 4.
  const auto load4 = [&](uint32_t offset) { return *reinterpret_cast<const uint32_t*>(group + offset); };
  const auto load16 = [&](uint32_t offset) {
    if constexpr (kWhole) return *reinterpret_cast<const uint4*>(group + offset);
    return uint4{load4(offset), load4(offset + 4), load4(offset + 8), load4(offset + 12)};
  };
  const auto load2 = [&](uint32_t offset) -> uint32_t { return *reinterpret_cast<const uint16_t*>(group + offset); };

  if constexpr (l.low > 0) raw.low = load16(at.low);
  if constexpr (l.low == 32) raw.second = load16(at.low + (kWhole ? kGroupRows : rows) * 16);
  if constexpr (l.high > 0) raw.high[0] = load4(at.high);
  if constexpr (l.high == 8) raw.high[1] = load4(at.high + 4);
  if constexpr (l.third > 0) raw.third = load4(at.third);
  if constexpr (T == TensorType::kQ6_K) {
    raw.scale = load2(at.head + b % 8 * 2) | load2(at.tail) << 16;
  } else if constexpr (kSupers<T>) {
    if constexpr (l.head == 16) raw.head = load16(at.head);
    else raw.head = {load4(at.head), load4(at.head + 4), l.head > 8 ? load4(at.head + 8) : 0, 0};
    if constexpr (l.tail > 0) raw.scale = load2(at.tail) | (l.tail > 2 ? load2(at.tail + 2) << 16 : 0);
  } else if constexpr (l.head == 1) {
    raw.scale = group[at.head];
  } else {
    raw.scale = load2(at.head) | (kAffine<T> ? load2(at.head + 2) << 16 : 0);
  }
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
    if constexpr (l.low > 0) raw[j].low = load16(at.low + j * kGroupRows * l.low);
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
  if constexpr (l.third > 0) {
    const uint4 third = load16(at.third);
    raw[0].third = third.x, raw[1].third = third.y, raw[2].third = third.z, raw[3].third = third.w;
  }
  if constexpr (kSupers<T> && T != TensorType::kQ6_K) {
    const auto load4 = [&](uint32_t offset) { return *reinterpret_cast<const uint32_t*>(group + offset); };
    uint4 head = {};
    if constexpr (l.head == 16) head = load16(at.head);
    else head.x = load4(at.head), head.y = load4(at.head + 4);
    if constexpr (l.head == 12) head.z = load4(at.head + 8);
#pragma unroll
    for (uint32_t j = 0; j < 4; ++j) raw[j].head = head, raw[j].scale = 0;  // the caller has d
  } else if constexpr (kSplit<T>) {
    const uint2 scales = load8(at.head + segment % 2 * 8);
    const uint32_t d = uint32_t(*reinterpret_cast<const uint16_t*>(group + at.tail)) << 16;
    raw[0].scale = (scales.x & 0xffffu) | d, raw[1].scale = scales.x >> 16 | d;
    raw[2].scale = (scales.y & 0xffffu) | d, raw[3].scale = scales.y >> 16 | d;
  } else if constexpr (l.head == 1) {
    const uint32_t scales = *reinterpret_cast<const uint32_t*>(group + at.head);
#pragma unroll
    for (uint32_t j = 0; j < 4; ++j) raw[j].scale = scales >> (8 * j) & 255u;
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
  if constexpr (!kMinima<T>) return da * (d * float(products));
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
  if constexpr (kHalves<T>) to.products += shifted(w.sc[0] * first + w.sc[1] * second, shift);
  else to.products += w.sc[0] * shifted(first + second, shift);
  if constexpr (kMinima<T>) to.minima = __dp2a_lo(sums, w.mn[0] | w.mn[1] << 8, to.minima);
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
