// A KV head in a page on the GPU: 64 keys and values as the integers of the contract, in the order in which int8 matrix
// units take them, so that each lane's part of a fragment is one load.
//
//   high   (key / 16, d / 32, lane, key / 8 % 2, d % 32 / 16, 4)   int8: key >> 4; lane 4g + t: key g of 8, d 4t ..
//   low    (key / 32, d / 32, lane, key / 8 % 4, 4)                 key & 15: bits 0 .. 3 for d % 32 < 16, 4 .. 7 above
//   value  (d / 8, lane, key / 32, 8)                               int8; lane 4g + t: value g of 8, keys as below
//   scales (64) float of the keys, then of the values
//
// A lane of scores holds, of each eight keys, keys 2t and 2t + 1. So that its weights are a fragment as they are, the
// products with the values take keys in this order: byte b of word r of lane t is key 16r + 8 (b / 2) + 2t + b % 2 of 32.
#pragma once

#include <cstdint>

#include "arith/attend.h"
#include "arith/constants.h"
#include "arith/hd.h"

namespace orcd::kernels {

// What of a head's width lies in a page: whole blocks of 32. Behind the head there may be anything: queries are zero
// there, and nobody reads the results.
__host__ __device__ constexpr uint32_t padded_head(uint32_t head_dim) { return (head_dim + 31) / 32 * 32; }

// Whether value d of a page's width is one of the head's.
template <uint32_t kDim>
__device__ constexpr bool in_head(uint32_t d) {
  return kDim % 32 == 0 || d < kDim;
}

struct KvPage {
  uint32_t head_dim;

  __host__ __device__ constexpr uint32_t width() const { return padded_head(head_dim); }
  __host__ __device__ constexpr uint32_t low() const { return kAttnSplit * width(); }
  __host__ __device__ constexpr uint32_t values() const { return kAttnSplit * width() / 2 * 3; }
  __host__ __device__ constexpr uint32_t key_scales() const { return kAttnSplit * width() / 2 * 5; }
  __host__ __device__ constexpr uint32_t value_scales() const { return key_scales() + kAttnSplit * 4; }
  __host__ __device__ constexpr uint32_t bytes() const { return value_scales() + kAttnSplit * 4; }

  // Places of bytes.
  __host__ __device__ constexpr uint32_t high_of(uint32_t key, uint32_t d) const {
    const uint32_t lane = key % 8 * 4 + d % 16 / 4;
    return ((key / 16 * (width() / 32) + d / 32) * 32 + lane) * 16 + key / 8 % 2 * 8 + d % 32 / 16 * 4 + d % 4;
  }
  __host__ __device__ constexpr uint32_t low_of(uint32_t key, uint32_t d) const {
    const uint32_t lane = key % 8 * 4 + d % 16 / 4;
    return low() + ((key / 32 * (width() / 32) + d / 32) * 32 + lane) * 16 + key / 8 % 4 * 4 + d % 4;
  }
  __host__ __device__ constexpr uint32_t value_of(uint32_t key, uint32_t d) const {
    const uint32_t lane = d % 8 * 4 + key % 8 / 2;
    return values() + (d / 8 * 32 + lane) * 16 + key / 32 * 8 + key % 32 / 16 * 4 + key % 16 / 8 * 2 + key % 2;
  }
};

// Of the 32 lanes' x.
__device__ __forceinline__ uint32_t warp_magnitude(float x) {
  return __reduce_max_sync(0xffffffffu, arith::bits_of(x) & 0x7fffffffu);
}

// Stores value d of a key, any number behind the head. By whole warps, of 32 consecutive d each.
__device__ __forceinline__ void store_key(uint8_t* page, uint32_t head_dim, uint32_t key, uint32_t d, float x,
                                          const arith::HeadScale& s) {
  const KvPage at = {head_dim};
  const int32_t q = arith::head_integer(x, s);
  page[at.high_of(key, d)] = uint8_t(q >> 4);
  const uint32_t upper = __shfl_down_sync(0xffffffffu, uint32_t(q) & 15u, 16);
  if (d % 32 < 16) page[at.low_of(key, d)] = uint8_t((uint32_t(q) & 15u) | upper << 4);
  if (d == 0) *reinterpret_cast<float*>(page + at.key_scales() + key * 4) = s.d;
}

__device__ __forceinline__ void store_value(uint8_t* page, uint32_t head_dim, uint32_t key, uint32_t d, float x,
                                            const arith::HeadScale& s) {
  const KvPage at = {head_dim};
  page[at.value_of(key, d)] = uint8_t(arith::head_integer(x, s));
  if (d == 0) *reinterpret_cast<float*>(page + at.value_scales() + key * 4) = s.d;
}

}  // namespace orcd::kernels
