// RMSNorm and activation quantization by warps that take 128 values at a time, or 256.
#pragma once

#include <cuda_fp16.h>

#include "arith/super_block.h"
#include "kernels/launch.h"
#include "kernels/warp.cuh"
#include "ops/tiles.h"

namespace orcd::kernels {

__device__ __forceinline__ float4 load4(const float* p) { return *reinterpret_cast<const float4*>(p); }

// Largest magnitude of four values, as bits: infinities and NaNs are above all numbers.
__device__ __forceinline__ uint32_t magnitude_of(const float4& v) {
  const auto magnitude = [](float x) { return arith::bits_of(x) & 0x7fffffffu; };
  return max(max(magnitude(v.x), magnitude(v.y)), max(magnitude(v.z), magnitude(v.w)));
}

// The scale of a block whose largest magnitude has these bits, and what its values are multiplied with.
struct BlockScale {
  bool flat;
  float d, r;
};

__device__ __forceinline__ BlockScale scale_of(uint32_t top) {
  const bool flat = top < arith::bits_of(0x1p-100f) || top >= arith::bits_of(arith::infinity());
  const float d = flat ? 0.0f : arith::by_127(arith::float_of(top));
  return {flat, d, flat ? 0.0f : __frcp_rn(d)};
}

struct FourValues {
  uint32_t q;
  int32_t sum;
};

__device__ __forceinline__ FourValues round_four(const float4& v, const BlockScale& s) {
  const auto rounded = [&](float x) { return s.flat ? 0 : __float2int_rn(x * s.r); };
  const int32_t q[4] = {rounded(v.x), rounded(v.y), rounded(v.z), rounded(v.w)};
  return {(q[0] & 255u) | (q[1] & 255u) << 8 | (q[2] & 255u) << 16 | static_cast<uint32_t>(q[3]) << 24,
          (q[0] + q[1]) + (q[2] + q[3])};
}

struct FourQuantized {
  uint32_t q;   // this lane's four values
  float d;      // of the lane's block
  int32_t sum;  // of the lane's block
};

// Four blocks at once: eight lanes hold a block, lane i of them values 4i .. 4i + 3.
__device__ __forceinline__ FourQuantized quantize_four(const float4& v) {
  uint32_t top = magnitude_of(v);
#pragma unroll
  for (int stride = 4; stride; stride /= 2) top = max(top, __shfl_xor_sync(kFull, top, stride));
  const BlockScale s = scale_of(top);
  const FourValues four = round_four(v, s);
  int32_t sum = four.sum;
#pragma unroll
  for (int stride = 1; stride <= 4; stride *= 2) sum += __shfl_xor_sync(kFull, sum, stride);
  return {four.q, s.d, sum};
}

// Sums of both halves of a block: as int16, and as binary16, which holds them exactly.
struct HalfSums {
  int32_t first, second;
  __device__ __forceinline__ int32_t as_ints() const { return (first & 0xffff) | second << 16; }
  __device__ __forceinline__ int32_t as_halves() const {
    const __half2 h = __floats2half2_rn(float(first), float(second));
    return *reinterpret_cast<const int32_t*>(&h);
  }
};

struct SuperQuantized {
  uint32_t q[2];     // this lane's values 4i .. and 128 + 4i ..
  float d;           // all lanes
  uint32_t shifts;   // all lanes
  HalfSums sums[2];  // of the blocks that these values are in: lane / 8 and 4 + lane / 8
};

// A super-block at once: lane i holds values 4i .. 4i + 3 and 128 + 4i .. 128 + 4i + 3.
__device__ __forceinline__ SuperQuantized quantize_super(const float4& first, const float4& second) {
  uint32_t tops[2] = {magnitude_of(first), magnitude_of(second)};  // of the blocks
#pragma unroll
  for (int stride = 4; stride; stride /= 2)
#pragma unroll
    for (uint32_t& top : tops) top = max(top, __shfl_xor_sync(kFull, top, stride));
  const uint32_t top = __reduce_max_sync(kFull, max(tops[0], tops[1])), lane = threadIdx.x % 32;
  const BlockScale s = scale_of(top);
  SuperQuantized out;
  out.d = s.d * arith::kShiftUnit;
  uint32_t shifts = 0;
#pragma unroll
  for (uint32_t i = 0; i < 2; ++i) {
    const uint32_t shift = s.flat ? 0 : arith::block_shift(arith::float_of(tops[i]), arith::float_of(top));
    shifts |= shift << arith::shift_place(i * 4 + lane / 8);
    const FourValues four = round_four(i ? second : first, {s.flat, s.d, s.r * arith::block_factor(shift)});
    out.q[i] = four.q;
    int32_t sum = four.sum << shift;
    sum += __shfl_xor_sync(kFull, sum, 1);
    sum += __shfl_xor_sync(kFull, sum, 2);
    const int32_t other = __shfl_xor_sync(kFull, sum, 4);
    out.sums[i] = threadIdx.x % 8 < 4 ? HalfSums{sum, other} : HalfSums{other, sum};
  }
  out.shifts = __reduce_or_sync(kFull, shifts);
  return out;
}

// `rows`: of the step, which its tiles are laid out by.
__device__ __forceinline__ void store_super(const Activations& a, uint32_t rows, uint32_t row, uint32_t super,
                                            const SuperQuantized& v) {
  const uint32_t lane = threadIdx.x % 32;
  const uint64_t at = uint64_t(row) * (a.cols / kSuperBlock) + super;
#pragma unroll
  for (uint32_t i = 0; i < 2; ++i) {
    reinterpret_cast<uint32_t*>(a.supers.q + at * kSuperBlock)[i * 32 + lane] = v.q[i];
    if (lane % 8 == 0) a.supers.sum[at * kSuperBlocks + i * 4 + lane / 8] = v.sums[i].as_halves();
  }
  if (lane == 0) a.supers.d[at] = v.d, a.supers.shifts[at] = v.shifts;
  if (!a.supers.tiles) return;
  const uint32_t in_group = row % kTileRows, group = row / kTileRows;
  uint8_t* planes[kTilePlanes];
#pragma unroll
  for (uint32_t p = 0; p < kTilePlanes; ++p) planes[p] = a.supers.tiles + plane_place(rows, super, p, group);
  uint32_t* numbers = reinterpret_cast<uint32_t*>(a.supers.tiles + numbers_place(rows, a.cols, super, group));
#pragma unroll
  for (uint32_t i = 0; i < 2; ++i) {
    const uint32_t block = i * 4 + lane / 8, at = plane_word(in_group, i * 32 + lane);
    const ValueParts parts = parts_of(v.q[i], arith::shift_of(v.shifts, block));
    const uint32_t words[kTilePlanes] = {parts.high, parts.low, parts.low << 5};
#pragma unroll
    for (uint32_t p = 0; p < kTilePlanes; ++p) *reinterpret_cast<uint32_t*>(planes[p] + at) = words[p];
    if (lane % 8 == 0) numbers[sum_word(in_group, block)] = uint32_t(v.sums[i].as_halves());
  }
  if (lane == 0) reinterpret_cast<float*>(numbers)[kTileSums + in_group] = v.d;
}

// 1 / sqrt(mean square + eps) by one warp: lane t holds the contract's lanes 4t .. 4t + 3. kAtOnce: loads before the first
// use.
template <uint32_t kAtOnce = 8>
__device__ __forceinline__ float inverse_rms4(const float* x, uint32_t cols, float eps) {
  const uint32_t lane = threadIdx.x % 32;
  float s[4] = {0, 0, 0, 0};
  for (uint32_t base = 4 * lane; base < cols; base += kAtOnce * 128) {
    float4 v[kAtOnce];
#pragma unroll
    for (uint32_t i = 0; i < kAtOnce; ++i) v[i] = base + i * 128 < cols ? load4(x + base + i * 128) : float4{};
#pragma unroll
    for (uint32_t i = 0; i < kAtOnce; ++i) {  // a missing element adds 0 · 0: nothing
      s[0] = arith::fma32(v[i].x, v[i].x, s[0]);
      s[1] = arith::fma32(v[i].y, v[i].y, s[1]);
      s[2] = arith::fma32(v[i].z, v[i].z, s[2]);
      s[3] = arith::fma32(v[i].w, v[i].w, s[3]);
    }
  }
#pragma unroll
  for (int stride = 16; stride; stride /= 2)
#pragma unroll
    for (float& f : s) f = f + __shfl_xor_sync(kFull, f, stride);
  const float sum = (s[0] + s[2]) + (s[1] + s[3]);
  return __frcp_rn(__fsqrt_rn(__fdiv_rn(sum, float(cols)) + eps));
}

__device__ __forceinline__ float4 normed4(const float4& x, float inverse, const float4& w) {
  return {(x.x * inverse) * w.x, (x.y * inverse) * w.y, (x.z * inverse) * w.z, (x.w * inverse) * w.w};
}

}  // namespace orcd::kernels
