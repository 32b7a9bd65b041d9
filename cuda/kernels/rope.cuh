// Rotation of a head's pairs, and where a position lies in the KV pages.
#pragma once

#include <string>

#include "arith/constants.h"
#include "arith/hd.h"
#include "kernels/kv_page.cuh"
#include "kernels/launch.h"
#include "orcd/engine.h"

namespace orcd::kernels {

// Index of value d's partner, and whether d is the first of the pair and which pair it is.
struct Pair {
  uint32_t partner, index;
  bool first;
};

__device__ __forceinline__ Pair pair_of(RopeStyle style, uint32_t head_dim, uint32_t d) {
  const uint32_t half = head_dim / 2;
  if (style == RopeStyle::kNeox) return {d < half ? d + half : d - half, d < half ? d : d - half, d < half};
  return {d ^ 1u, d / 2, d % 2 == 0};
}

__device__ __forceinline__ float2 angle_of(const Heads& h, uint32_t position, const Pair& pair) {
  return h.rope[uint64_t(position) * (h.head_dim / 2) + pair.index];
}

// For a width of a head that the attention kernels don't have.
[[noreturn]] inline void no_such_head(uint32_t head_dim) {
  throw Error(ErrorKind::kInvalid,
              "head_dim " + std::to_string(head_dim) + " is not supported on CUDA; 32, 64, 80, 96, 128 and 256 are");
}

// One of a pair, the other beside it: x0' = fmaf(x0, c, -(x1·s)), x1' = fmaf(x0, s, x1·c).
__device__ __forceinline__ float rotate(float x, float other, const float2& cs, bool first) {
  return first ? arith::fma32(x, cs.x, -(other * cs.y)) : arith::fma32(other, cs.y, x * cs.x);
}

__device__ __forceinline__ uint32_t page_of(const KvLayer& kv, uint32_t slot, uint32_t position) {
  return kv.pages[slot * kv.pages_per_slot + position / kAttnSplit];
}

// A KV head of the page.
__device__ __forceinline__ uint8_t* head_at(const Heads& h, const KvLayer& kv, uint32_t page, uint32_t kv_head) {
  return kv.heads + (uint64_t(page) * h.n_kv_heads + kv_head) * KvPage{h.head_dim}.bytes();
}

}  // namespace orcd::kernels
