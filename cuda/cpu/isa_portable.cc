// Kernels in plain C++ over the compiler's own vectors: what runs where there is no other.
#include "cpu/attend_heads.h"
#include "cpu/tile_product.h"

namespace orcd::cpu {
namespace {

struct Portable {
  static constexpr uint32_t kLanes = 4;
  static constexpr bool kFlip8 = false;
  using Bytes = uint32_t __attribute__((vector_size(16)));
  using Ints = int32_t __attribute__((vector_size(16)));
  using Floats = float __attribute__((vector_size(16)));

  static ORCD_LANES Bytes load(const uint8_t* p) {
    Bytes v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
  }
  static ORCD_LANES Floats f16(const uint8_t* p) {
    Floats v;
    for (uint32_t l = 0; l < kLanes; ++l) v[l] = formats::f16_at(p + 2 * l);
    return v;
  }
  static ORCD_LANES Floats floats(const float* p) {
    Floats v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
  }
  static ORCD_LANES Bytes widen(const int8_t* p) {
    Bytes v;
    for (uint32_t l = 0; l < kLanes; ++l) v[l] = uint16_t(p[2 * l]) | uint32_t(p[2 * l + 1]) << 16;
    return v;
  }
  static ORCD_LANES Ints u8(const uint8_t* p) {
    Ints v;
    for (uint32_t l = 0; l < kLanes; ++l) v[l] = p[l];
    return v;
  }
  static ORCD_LANES Ints i8(const uint8_t* p) {
    Ints v;
    for (uint32_t l = 0; l < kLanes; ++l) v[l] = int8_t(p[l]);
    return v;
  }
  static ORCD_LANES Bytes lookup(Bytes x, const uint8_t* table) {
    uint8_t bytes[4 * kLanes];
    __builtin_memcpy(bytes, &x, sizeof bytes);
    for (uint8_t& b : bytes) b = table[b];
    return load(bytes);
  }
  // Byte e of each lane, then times x[e].
  static ORCD_LANES Ints dot(Ints acc, Bytes w, const int8_t* x) {
    for (uint32_t e = 0; e < 4; ++e) acc += Ints(w >> (8 * e) & 0xffu) * int32_t(x[e]);
    return acc;
  }
  static ORCD_LANES Ints dot8(Ints acc, Bytes w, const int8_t* x) {
    for (uint32_t e = 0; e < 4; ++e) acc += (Ints(w << (24 - 8 * e)) >> 24) * int32_t(x[e]);
    return acc;
  }
  static ORCD_LANES Ints pairs(Ints acc, Bytes w, int32_t two) {
    return acc + (Ints(w << 16) >> 16) * int32_t(int16_t(two)) + (Ints(w) >> 16) * (two >> 16);
  }
  static ORCD_LANES Ints scale(Ints sc) { return sc; }
  static ORCD_LANES Ints shifted(Ints sc, uint32_t by) { return sc * (1 << by); }
  template <int kBits, int kGroups>
  static ORCD_LANES Ints scaled_dot(Ints acc, const Bytes* w, const int8_t* x, Ints sc) {
    Ints i{};
    for (int g = 0; g < kGroups; ++g) i = dot(i, w[g], x + 4 * g);
    return acc + i * sc;
  }
  template <int kGroups>
  static ORCD_LANES Ints scaled_dot8(Ints acc, const Bytes* w, const int8_t* x, Ints sc) {
    Ints i{};
    for (int g = 0; g < kGroups; ++g) i = dot8(i, w[g], x + 4 * g);
    return acc + i * sc;
  }
  static ORCD_LANES Floats fma(Floats a, Floats b, Floats c) {
    for (uint32_t l = 0; l < kLanes; ++l) c[l] = arith::fma32(a[l], b[l], c[l]);
    return c;
  }
  static ORCD_LANES Floats to_float(Ints i) { return __builtin_convertvector(i, Floats); }
};

}  // namespace

Kernels portable_kernels() { return {tile_kernel<Portable>, attend_heads<Portable>}; }

}  // namespace orcd::cpu
