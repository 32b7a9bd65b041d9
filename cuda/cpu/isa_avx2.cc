// Kernels for x86-64-v3: 8 lanes, a tile is gone through twice.
#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

#include <immintrin.h>

#include "cpu/attend_heads.h"
#include "cpu/tile_product.h"

namespace orcd::cpu {
namespace {

struct Avx2 {
  static constexpr uint32_t kLanes = 8;
  static constexpr bool kFlip8 = false;
  using Bytes = uint32_t __attribute__((vector_size(32)));
  using Ints = int32_t __attribute__((vector_size(32)));
  using Floats = float __attribute__((vector_size(32)));

  static ORCD_LANES Bytes load(const uint8_t* p) {
    return (Bytes)_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  static ORCD_LANES Floats f16(const uint8_t* p) {
    return (Floats)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static ORCD_LANES Floats floats(const float* p) {
    Floats v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
  }
  static ORCD_LANES Bytes widen(const int8_t* p) {
    return (Bytes)_mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static ORCD_LANES Ints u8(const uint8_t* p) {
    return (Ints)_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  }
  static ORCD_LANES Ints i8(const uint8_t* p) {
    return (Ints)_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  }
  static ORCD_LANES Bytes lookup(Bytes x, const uint8_t* table) {
    const __m128i entries = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
    return (Bytes)_mm256_shuffle_epi8(_mm256_broadcastsi128_si256(entries), (__m256i)x);
  }
  static ORCD_LANES __m256i four(const int8_t* x) {
    int32_t word;
    __builtin_memcpy(&word, x, 4);
    return _mm256_set1_epi32(word);
  }
  // Pairs of products fit 16 bits: at most 63 · 127 · 2.
  static ORCD_LANES Ints dot(Ints acc, Bytes w, const int8_t* x) {
    const __m256i pairs = _mm256_maddubs_epi16((__m256i)w, four(x));
    return acc + (Ints)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
  }
  // |w| times x with the sign of w: at most 128 · 127 · 2, which fits too.
  static ORCD_LANES Ints dot8(Ints acc, Bytes w, const int8_t* x) {
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8((__m256i)w), _mm256_sign_epi8(four(x), (__m256i)w));
    return acc + (Ints)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
  }
  static ORCD_LANES Ints pairs(Ints acc, Bytes w, int32_t two) {
    return acc + (Ints)_mm256_madd_epi16((__m256i)w, _mm256_set1_epi32(two));
  }
  // Twice, for both of a pair.
  static ORCD_LANES Ints scale(Ints sc) { return (sc & 0xffff) | sc << 16; }
  static ORCD_LANES Ints shifted(Ints sc, uint32_t by) {
    return (Ints)_mm256_sll_epi16((__m256i)sc, _mm_cvtsi32_si128(int(by)));
  }
  // Pairs of products are added up in 16 bits for as many groups as are sure to fit, then multiplied by the scale and
  // widened in one instruction.
  template <int kBits, int kGroups>
  static ORCD_LANES Ints scaled_dot(Ints acc, const Bytes* w, const int8_t* x, Ints sc) {
    constexpr int kMost = 32767 / (((1 << kBits) - 1) * 127 * 2), kRun = kMost < kGroups ? kMost : kGroups;
    static_assert(kGroups % kRun == 0);
    for (int g = 0; g < kGroups; g += kRun) {
      __m256i sums = _mm256_maddubs_epi16((__m256i)w[g], four(x + 4 * g));
      for (int i = g + 1; i < g + kRun; ++i) {
        sums = _mm256_add_epi16(sums, _mm256_maddubs_epi16((__m256i)w[i], four(x + 4 * i)));
      }
      acc += (Ints)_mm256_madd_epi16(sums, (__m256i)sc);
    }
    return acc;
  }
  // A pair of products may fill 16 bits.
  template <int kGroups>
  static ORCD_LANES Ints scaled_dot8(Ints acc, const Bytes* w, const int8_t* x, Ints sc) {
    for (int g = 0; g < kGroups; ++g) {
      const __m256i signs = (__m256i)w[g];
      const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(signs), _mm256_sign_epi8(four(x + 4 * g), signs));
      acc += (Ints)_mm256_madd_epi16(pairs, (__m256i)sc);
    }
    return acc;
  }
  static ORCD_LANES Floats fma(Floats a, Floats b, Floats c) { return (Floats)_mm256_fmadd_ps(a, b, c); }
  static ORCD_LANES Floats to_float(Ints i) { return (Floats)_mm256_cvtepi32_ps((__m256i)i); }
};

}  // namespace

Kernels avx2_kernels() { return {tile_kernel<Avx2>, attend_heads<Avx2>}; }

}  // namespace orcd::cpu

#endif
