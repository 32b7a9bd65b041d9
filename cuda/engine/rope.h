// Rotations as a model's RopeSpec has them (docs/ARITHMETIC.md, "RoPE"), in binary64 and on the host: devices get
// finished tables.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "arith/rope_table.h"
#include "orcd/engine.h"

namespace orcd {

// Which pairs YaRN takes for high and low frequencies: those up to `low`, and from `high` on.
struct YarnBounds {
  double low, high;
};

inline YarnBounds yarn_bounds(const RopeSpec& s) {
  constexpr double kTurn = 6.283185307179586;
  const double n = 2.0 * s.pairs;
  const auto bound = [&](double turns) {
    return n * arith::log64(s.original_context / (turns * kTurn)) / (2.0 * arith::log64(s.base));
  };
  double low = bound(s.beta_fast), high = bound(s.beta_slow);
  if (s.rounds_bounds) low = std::floor(low), high = std::ceil(high);
  low = std::max(low, 0.0), high = std::min(high, n - 1.0);
  return {low, low == high ? high + 0.001 : high};
}

// Whether a sequence that may get so many positions has the rotations of long ones.
inline bool is_long(const RopeSpec& s, uint32_t positions) {
  return s.scaling == RopeScaling::kLongRope && positions > s.original_context;
}

inline constexpr double kMostFrequency = 4;  // times 2^22 positions it is 2^24

// Radians per position, by pair.
inline std::vector<double> rope_frequencies(const RopeSpec& s, const float* divisors /* (pairs) or null */) {
  std::vector<double> out(s.pairs);
  const YarnBounds yarn = s.scaling == RopeScaling::kYarn ? yarn_bounds(s) : YarnBounds{};
  for (uint32_t i = 0; i < s.pairs; ++i) {
    const double f = arith::rope_frequency(s.base, i, 2 * s.pairs, divisors ? divisors[i] : 1.0);
    switch (s.scaling) {
      case RopeScaling::kLinear: out[i] = f / s.factor; break;
      case RopeScaling::kYarn: {
        const double stretched = std::clamp((i - yarn.low) / (yarn.high - yarn.low), 0.0, 1.0);
        out[i] = f * (1.0 - stretched) + f / s.factor * stretched;
        break;
      }
      default: out[i] = f;
    }
    // What cosines and sines are exact for, up to the longest context; a file's divisors may be anything.
    if (!(out[i] >= 0.0 && out[i] <= kMostFrequency))
      throw Error(ErrorKind::kInvalid, "rope: pair " + std::to_string(i) + " turns by " + std::to_string(out[i]) +
                                           " a position, must be 0 to " + std::to_string(kMostFrequency));
  }
  return out;
}

// What cosines and sines are multiplied by.
inline double rope_magnitude(const RopeSpec& s) {
  if (s.scaling != RopeScaling::kYarn) return s.attn_factor;
  const auto m = [&](double x) { return s.factor <= 1.0 ? 1.0 : 0.1 * x * arith::log64(s.factor) + 1.0; };
  return s.attn_factor * m(1.0) / (s.log_multiplier != 0.0 ? m(s.log_multiplier) : 1.0);
}

// What a query at this position is multiplied by.
inline float query_scale(const ModelShape& s, uint32_t position) {
  if (s.query_scale == 0.0) return 1.0f;
  return static_cast<float>(1.0 + s.query_scale * arith::log64(double(position / s.query_scale_context) + 1.0));
}

}  // namespace orcd
