// What several kernels do with a warp: reductions in the contract's order, quantizing a block, and
// waiting for the kernel before (programmatic dependent launch).
#pragma once

#include <cstdint>

#include "arith/by_127.h"
#include "arith/exp2.h"
#include "arith/hd.h"
#include "ops/ops.h"

namespace orcd::kernels {

inline constexpr uint32_t kFull = 0xffffffffu;

// Everything the stream's earlier kernels wrote is visible behind this. Without overlap it costs nothing.
__device__ __forceinline__ void pdl_wait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// The next kernel may be launched: its blocks take what room this one's leave.
__device__ __forceinline__ void pdl_launch_dependents() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Tree(s, 32) over the lanes; all lanes get it.
__device__ __forceinline__ float tree32(float s) {
#pragma unroll
  for (int stride = 16; stride; stride /= 2) s = s + __shfl_xor_sync(kFull, s, stride);
  return s;
}

// 1 / sqrt(mean square + eps) of a row in shared or device memory, by one warp; all lanes get it.
__device__ __forceinline__ float inverse_rms(const float* x /* (cols) */, uint32_t cols, float eps) {
  const uint32_t lane = threadIdx.x % 32;
  float s[4] = {0, 0, 0, 0};  // lanes l, l + 32, l + 64, l + 96 of the contract's 128
#pragma unroll 2
  for (uint32_t base = 0; base < cols; base += 128) {
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) {
      const uint32_t k = base + 32 * i + lane;
      if (k < cols) s[i] = arith::fma32(x[k], x[k], s[i]);
    }
  }
  const float sum = tree32((s[0] + s[2]) + (s[1] + s[3]));
  return __fdiv_rn(1.0f, __fsqrt_rn(__fdiv_rn(sum, float(cols)) + eps));
}

struct QuantizedLane {
  int32_t q;    // this lane's value
  float d;      // all lanes
  int32_t sum;  // all lanes
};

// Quantizes a block of 32 values, one per lane.
__device__ __forceinline__ QuantizedLane quantize_block(float x) {
  // Magnitudes order like their bits, infinities and NaNs above all numbers.
  const uint32_t top = __reduce_max_sync(kFull, arith::bits_of(x) & 0x7fffffffu);
  QuantizedLane r;
  const bool flat = top < arith::bits_of(0x1p-100f) || top >= arith::bits_of(arith::infinity());
  r.d = flat ? 0.0f : arith::by_127(arith::float_of(top));
  r.q = flat ? 0 : __float2int_rn(x * __frcp_rn(r.d));
  r.sum = __reduce_add_sync(kFull, r.q);
  return r;
}

// Stores a quantized block: lane's value, and lane 0 the block's numbers.
__device__ __forceinline__ void store_block(const Activations& a, uint32_t row, uint32_t block,
                                            const QuantizedLane& v) {
  const uint32_t lane = threadIdx.x % 32;
  const uint32_t at = row * (a.cols / 32) + block;
  a.blocks.q[uint64_t(row) * a.cols + block * 32 + lane] = int8_t(v.q);
  if (lane == 0) {
    a.blocks.d[at] = v.d;
    a.blocks.sum[at] = v.sum;
  }
}

}  // namespace orcd::kernels
