// One block of 32 packed weights in registers, and its dot product with a block of activations.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "arith/hd.h"
#include "kernels/layout.h"

namespace orcd::kernels {

template <TensorType T>
inline constexpr bool kAffine = T == TensorType::kQ4_1 || T == TensorType::kQ5_1 ||
                                T == TensorType::kQ4_K || T == TensorType::kQ5_K;

// What is taken off each stored value to get the integer weight.
template <TensorType T>
inline constexpr int32_t kOffset = T == TensorType::kQ4_0 ? 8 : T == TensorType::kQ5_0 ? 16 : T == TensorType::kQ6_K ? 32 : 0;

template <TensorType T>
struct WeightBlock {
  uint32_t w[8];     // byte c of word i: value 4i + c, still with its offset (Q8_0: signed)
  float d, m;        // scale; addend of affine types
  int32_t sc0, sc1;  // Q6_K: scales of the halves
};

// The binary16 number in the lower half of a word, exactly.
__device__ __forceinline__ float half_bits(uint32_t bits) { return __half2float(__ushort_as_half(uint16_t(bits))); }

// `group`: a group of `rows` rows in device or shared memory, its parts 16-byte aligned when rows = 8.
template <TensorType T, bool kWhole>
__device__ __forceinline__ WeightBlock<T> load_block(const uint8_t* group, uint32_t rows, uint32_t nb,
                                                     uint32_t b, uint32_t r) {
  constexpr Layout l = layout_of(T);
  const BlockPlace at = place(l, kWhole ? kGroupRows : rows, nb, b, r);
  WeightBlock<T> out;
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
  const auto load2 = [&](uint32_t offset) { return *reinterpret_cast<const uint16_t*>(group + offset); };

  const uint4 low = load16(at.low);
  const uint32_t words[4] = {low.x, low.y, low.z, low.w};
  if constexpr (l.low == 32) {
    const uint4 second = load16(at.low + (kWhole ? kGroupRows : rows) * 16);
    const uint32_t more[4] = {second.x, second.y, second.z, second.w};
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
    const uint32_t h = load4(at.high);
#pragma unroll
    for (int i = 0; i < 8; ++i) out.w[i] |= (i < 4 ? h << (4 - i) : h >> (i - 4)) & 0x10101010u;
  }
  if constexpr (l.high == 8) {
    const uint32_t h0 = load4(at.high), h1 = load4(at.high + 4);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const uint32_t h = i < 4 ? h0 : h1;
      const int shift = 4 - 2 * (i % 4);
      out.w[i] |= (shift >= 0 ? h << shift : h >> -shift) & 0x30303030u;
    }
  }

  out.m = 0.0f;
  out.sc0 = out.sc1 = 1;
  if constexpr (T == TensorType::kQ4_K || T == TensorType::kQ5_K) {
    const uint4 head = load16(at.head);  // d | dmin, then scales 0..3, 4..7, 8..11
    const uint32_t shift = b % 4 * 8;
    const uint32_t first = head.y >> shift & 255u, second = head.z >> shift & 255u, third = head.w >> shift & 255u;
    const bool early = b % 8 < 4;
    const uint32_t sc = early ? first & 63u : (third & 15u) | first >> 6 << 4;
    const uint32_t mn = early ? second & 63u : third >> 4 | second >> 6 << 4;
    out.d = half_bits(head.x) * float(sc);
    out.m = -(half_bits(head.x >> 16) * float(mn));
  } else if constexpr (T == TensorType::kQ6_K) {
    const uint8_t* scales = group + at.head + b % 8 * 2;
    out.sc0 = int8_t(scales[0]);
    out.sc1 = int8_t(scales[1]);
    out.d = half_bits(load2(at.tail));
  } else {
    out.d = half_bits(load2(at.head));
    if constexpr (kAffine<T>) out.m = half_bits(load2(at.head + 2));
  }
  return out;
}

// Exact integer dot product with 32 activations; sum and half as in Activations.
template <TensorType T>
__device__ __forceinline__ int32_t dot(const WeightBlock<T>& w, const uint4& q0, const uint4& q1,
                                       int32_t sum, int32_t half) {
  int32_t first = 0, second = 0;
  first = __dp4a(int32_t(w.w[0]), int32_t(q0.x), first);
  first = __dp4a(int32_t(w.w[1]), int32_t(q0.y), first);
  first = __dp4a(int32_t(w.w[2]), int32_t(q0.z), first);
  first = __dp4a(int32_t(w.w[3]), int32_t(q0.w), first);
  second = __dp4a(int32_t(w.w[4]), int32_t(q1.x), second);
  second = __dp4a(int32_t(w.w[5]), int32_t(q1.y), second);
  second = __dp4a(int32_t(w.w[6]), int32_t(q1.z), second);
  second = __dp4a(int32_t(w.w[7]), int32_t(q1.w), second);
  if constexpr (T == TensorType::kQ6_K)
    return w.sc0 * (first - kOffset<T> * half) + w.sc1 * (second - kOffset<T> * (sum - half));
  return first + second - kOffset<T> * sum;
}

// f.template operator()<T>() for the quantised type given at run time.
template <class F>
__device__ __forceinline__ void with_type(TensorType type, F&& f) {
  switch (type) {
    case TensorType::kQ4_0: f.template operator()<TensorType::kQ4_0>(); break;
    case TensorType::kQ4_1: f.template operator()<TensorType::kQ4_1>(); break;
    case TensorType::kQ5_0: f.template operator()<TensorType::kQ5_0>(); break;
    case TensorType::kQ5_1: f.template operator()<TensorType::kQ5_1>(); break;
    case TensorType::kQ8_0: f.template operator()<TensorType::kQ8_0>(); break;
    case TensorType::kQ4_K: f.template operator()<TensorType::kQ4_K>(); break;
    case TensorType::kQ5_K: f.template operator()<TensorType::kQ5_K>(); break;
    default: f.template operator()<TensorType::kQ6_K>(); break;
  }
}

}  // namespace orcd::kernels
