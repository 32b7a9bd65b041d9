// Kernels for AVX-512 with VNNI: 16 lanes are the 16 rows of a tile. Compiled with its own flags and
// called only where the processor has them.
#if defined(__AVX512VNNI__)

// GCC's own header passes an uninitialized vector where the mask keeps nothing of it. clang has one of the two warnings.
#pragma GCC diagnostic ignored "-Wuninitialized"
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <immintrin.h>

#include "cpu/attend_heads.h"
#include "cpu/tile_product.h"

namespace orcd::cpu {
namespace {

struct Avx512 {
  static constexpr uint32_t kLanes = 16;
  static constexpr bool kFlip8 = true;
  using Bytes = uint32_t __attribute__((vector_size(64)));
  using Ints = int32_t __attribute__((vector_size(64)));
  using Floats = float __attribute__((vector_size(64)));

  static ORCD_LANES Bytes load(const uint8_t* p) { return (Bytes)_mm512_loadu_si512(p); }
  static ORCD_LANES Floats f16(const uint8_t* p) {
    return (Floats)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static ORCD_LANES Floats floats(const float* p) {
    Floats v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
  }
  static ORCD_LANES Bytes widen(const int8_t* p) {
    return (Bytes)_mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static ORCD_LANES Ints u8(const uint8_t* p) {
    return (Ints)_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static ORCD_LANES Ints i8(const uint8_t* p) {
    return (Ints)_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static ORCD_LANES Bytes lookup(Bytes x, const uint8_t* table) {
    const __m128i entries = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
    return (Bytes)_mm512_shuffle_epi8(_mm512_broadcast_i32x4(entries), (__m512i)x);
  }
  static ORCD_LANES Ints dot(Ints acc, Bytes w, const int8_t* x) {
    int32_t four;
    __builtin_memcpy(&four, x, 4);
    return (Ints)_mm512_dpbusd_epi32((__m512i)acc, (__m512i)w, _mm512_set1_epi32(four));
  }
  static ORCD_LANES Ints dot8(Ints acc, Bytes w, const int8_t* x) { return dot(acc, w, x); }
  static ORCD_LANES Ints pairs(Ints acc, Bytes w, int32_t two) {
    return (Ints)_mm512_dpwssd_epi32((__m512i)acc, (__m512i)w, _mm512_set1_epi32(two));
  }
  static ORCD_LANES Ints scale(Ints sc) { return sc; }
  static ORCD_LANES Ints shifted(Ints sc, uint32_t by) {
    return (Ints)_mm512_sll_epi32((__m512i)sc, _mm_cvtsi32_si128(int(by)));
  }
  template <int kBits, int kGroups>
  static ORCD_LANES Ints scaled_dot(Ints acc, const Bytes* w, const int8_t* x, Ints sc) {
    Ints i{};
    for (int g = 0; g < kGroups; ++g) i = dot(i, w[g], x + 4 * g);
    return acc + i * sc;
  }
  template <int kGroups>
  static ORCD_LANES Ints scaled_dot8(Ints acc, const Bytes* w, const int8_t* x, Ints sc) {
    return scaled_dot<8, kGroups>(acc, w, x, sc);
  }
  static ORCD_LANES Floats fma(Floats a, Floats b, Floats c) { return (Floats)_mm512_fmadd_ps(a, b, c); }
  static ORCD_LANES Floats to_float(Ints i) { return (Floats)_mm512_cvtepi32_ps((__m512i)i); }
};

}  // namespace

Kernels avx512_kernels() { return {tile_kernel<Avx512>, attend_heads<Avx512>}; }

}  // namespace orcd::cpu

#endif
