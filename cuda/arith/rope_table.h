// Rotation angles in binary64 with our own log, exp, sin and cos: only + - * / and conversions, so
// the same bits whatever libm is there. Host only; a device gets the finished numbers.
#pragma once

#include <cstdint>
#include <cstring>

namespace orcd::arith {

// Natural logarithm of a normal, positive x.
inline double log64(double x) {
  uint64_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  const uint64_t sqrt_half = 0x3fe6a09e667f3bcdu;
  const int64_t offset = int64_t(bits - sqrt_half);
  const double e = double(offset >> 52);
  bits = (uint64_t(offset) & 0x000fffffffffffffu) + sqrt_half;
  double m;
  std::memcpy(&m, &bits, sizeof m);
  // log m = 2 artanh(s), s = (m - 1) / (m + 1), |s| < 0.172
  const double s = (m - 1.0) / (m + 1.0), s2 = s * s;
  double series = 0.0;
  for (int k = 25; k >= 1; k -= 2) series = series * s2 + 1.0 / k;
  return e * 0.6931471805599453 + 2.0 * s * series;
}

// e^x for |x| < 700.
inline double exp64(double x) {
  const double n = double(int64_t(x * 1.4426950408889634 + (x < 0 ? -0.5 : 0.5)));
  // log 2 in two parts, so that n times the first is exact
  const double r = (x - n * 0x1.62e42fee00000p-1) - n * 0x1.a39ef35793c76p-33;
  double series = 1.0;
  for (int k = 20; k >= 1; --k) series = 1.0 + series * r / k;
  const uint64_t bits = uint64_t(int64_t(n) + 1023) << 52;
  double scale;
  std::memcpy(&scale, &bits, sizeof scale);
  return series * scale;
}

struct CosSin {
  float cos, sin;
};

// cos and sin of 0 <= x < 2^24 times m, rounded to binary32.
inline CosSin cos_sin(double x, double m = 1.0) {
  const int64_t quadrant = int64_t(x * 0.6366197723675814 + 0.5);
  const double n = double(quadrant);
  // pi/2 in three parts of 33 bits and the rest: n times each of the first two is exact
  const double r = ((x - n * 0x1.921fb54400000p+0) - n * 0x1.0b4611a600000p-34) - n * 0x1.3198a2e037073p-69;
  const double r2 = r * r;
  double s = 0.0, c = 0.0;
  for (int k = 19; k >= 3; k -= 2) s = -r2 / (k * (k - 1)) * (1.0 + s);
  for (int k = 20; k >= 2; k -= 2) c = -r2 / (k * (k - 1)) * (1.0 + c);
  const double sine = (r + r * s) * m, cosine = (1.0 + c) * m;
  switch (quadrant & 3) {
    case 0: return {float(cosine), float(sine)};
    case 1: return {float(-sine), float(cosine)};
    case 2: return {float(-cosine), float(-sine)};
    default: return {float(sine), float(-cosine)};
  }
}

// Rotation per position of pair i of n / 2: base^(-2i/n) / factor.
inline double rope_frequency(double base, uint32_t i, uint32_t n, double factor) {
  return exp64(-(2.0 * i / n) * log64(base)) / factor;
}

}  // namespace orcd::arith
