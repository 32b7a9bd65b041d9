// Eight floats at a time in the base instruction set, for the loops that compilers do not vectorise
// well by themselves because binary16 is involved.
#pragma once

#include <cstdint>

#include "arith/half.h"

#if defined(__F16C__) && defined(__FMA__)
#include <immintrin.h>
#endif

namespace orcd::cpu {

inline constexpr uint32_t kWidth = 8;
using Floats8 = float __attribute__((vector_size(32)));

static inline Floats8 load8(const float* p) {
  Floats8 v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

static inline void store8(float* p, Floats8 v) { __builtin_memcpy(p, &v, sizeof v); }

static inline Floats8 load8_f16(const uint16_t* p) {
#if defined(__F16C__) && defined(__FMA__)
  return (Floats8)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#else
  Floats8 v;
  for (uint32_t l = 0; l < kWidth; ++l) v[l] = arith::f16_to_f32(p[l]);
  return v;
#endif
}

static inline Floats8 fma8(Floats8 a, Floats8 b, Floats8 c) {
#if defined(__F16C__) && defined(__FMA__)
  return (Floats8)_mm256_fmadd_ps(a, b, c);
#else
  for (uint32_t l = 0; l < kWidth; ++l) c[l] = arith::fma32(a[l], b[l], c[l]);
  return c;
#endif
}

}  // namespace orcd::cpu
