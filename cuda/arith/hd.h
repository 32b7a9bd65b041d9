// What every file of the shared arithmetic stands on: the function annotation, bit casts, fmaf.
#pragma once

#include <cstdint>
#include <cstring>

// Internal linkage on purpose: files compiled for different instruction sets include these headers,
// and the linker must not pick one's copy for the other.
#if defined(__CUDACC__)
#define ORCD_HD static __host__ __device__ __forceinline__
#else
#define ORCD_HD static inline __attribute__((always_inline, unused))
#endif

namespace orcd::arith {

ORCD_HD uint32_t bits_of(float x) {
#if defined(__CUDA_ARCH__)
  return __float_as_uint(x);
#else
  uint32_t b;
  __builtin_memcpy(&b, &x, sizeof b);
  return b;
#endif
}

ORCD_HD float float_of(uint32_t b) {
#if defined(__CUDA_ARCH__)
  return __uint_as_float(b);
#else
  float x;
  __builtin_memcpy(&x, &b, sizeof x);
  return x;
#endif
}

// The only fused multiply-add: a·b + c, rounded once.
ORCD_HD float fma32(float a, float b, float c) {
#if defined(__CUDA_ARCH__)
  return __fmaf_rn(a, b, c);
#else
  return __builtin_fmaf(a, b, c);
#endif
}

ORCD_HD float infinity() { return float_of(0x7f800000u); }

}  // namespace orcd::arith
