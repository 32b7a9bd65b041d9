// RMSNorm and activation quantization by warps that take 128 values at a time.
#pragma once

#include "kernels/launch.h"
#include "kernels/warp.cuh"

namespace orcd::kernels {

__device__ __forceinline__ float4 load4(const float* p) { return *reinterpret_cast<const float4*>(p); }

struct FourQuantized {
  uint32_t q;             // this lane's four values
  float d;                // of the lane's block
  int32_t sum, sum_lo16;  // of the lane's block
};

// Four blocks at once: eight lanes hold a block, lane i of them values 4i .. 4i + 3.
__device__ __forceinline__ FourQuantized quantize_four(const float4& v) {
  const auto magnitude = [](float x) { return arith::bits_of(x) & 0x7fffffffu; };
  uint32_t top = max(max(magnitude(v.x), magnitude(v.y)), max(magnitude(v.z), magnitude(v.w)));
#pragma unroll
  for (int stride = 4; stride; stride /= 2) top = max(top, __shfl_xor_sync(kFull, top, stride));
  const bool flat = top < arith::bits_of(0x1p-100f) || top >= arith::bits_of(arith::infinity());
  const float d = flat ? 0.0f : arith::by_127(arith::float_of(top));
  const float r = flat ? 0.0f : __frcp_rn(d);
  const auto rounded = [&](float x) { return flat ? 0 : __float2int_rn(x * r); };
  const int32_t q[4] = {rounded(v.x), rounded(v.y), rounded(v.z), rounded(v.w)};
  int32_t sum = (q[0] + q[1]) + (q[2] + q[3]);
  sum += __shfl_xor_sync(kFull, sum, 1);
  sum += __shfl_xor_sync(kFull, sum, 2);
  const int32_t other = __shfl_xor_sync(kFull, sum, 4);
  return {(q[0] & 255u) | (q[1] & 255u) << 8 | (q[2] & 255u) << 16 | static_cast<uint32_t>(q[3]) << 24, d, sum + other,
          threadIdx.x % 8 < 4 ? sum : other};
}

// 1 / sqrt(mean square + eps) by one warp: lane t holds the contract's lanes 4t .. 4t + 3.
__device__ __forceinline__ float inverse_rms4(const float* x, uint32_t cols, float eps) {
  const uint32_t lane = threadIdx.x % 32;
  float s[4] = {0, 0, 0, 0};
  for (uint32_t base = 4 * lane; base < cols; base += 8 * 128) {
    float4 v[8];  // all loads before the first use
#pragma unroll
    for (uint32_t i = 0; i < 8; ++i) v[i] = base + i * 128 < cols ? load4(x + base + i * 128) : float4{};
#pragma unroll
    for (uint32_t i = 0; i < 8; ++i) {  // a missing element adds 0 · 0: nothing
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
