// One draw: penalty, temperature, top-k, top-p, min-p, Gumbel-max. What sorts elsewhere is counted here:
// a threshold is found digit by digit in integer histograms, so it depends on no order.
#include <cmath>
#include <limits>

#include "arith/exp2.h"
#include "arith/gumbel.h"
#include "arith/philox.h"
#include "cpu/ops.h"

namespace orcd::cpu {
namespace {

constexpr uint32_t kNone = UINT32_MAX;

// Unsigned order of the result = order of the floats, with −0 = +0; NaN is 0, below all others.
uint32_t key_of(float t) {
  if (t != t) return 0;
  const uint32_t b = arith::bits_of(t + 0.0f);
  return b >> 31 ? ~b : b | 0x80000000u;
}

float weight_scale(float t, float t_max) {
  return t == t_max ? 1.0f : arith::exp2((t - t_max) * arith::kLog2E);
}

// exp2((t − t_max) · log2 e) in 32 fixed-point digits.
uint64_t weight(float t, float t_max) { return static_cast<uint64_t>(weight_scale(t, t_max) * 0x1p+32f); }

void penalise(float* t, std::span<const uint64_t> seen, float penalty) {
  if (penalty == 1.0f) return;
  for (size_t word = 0; word < seen.size(); ++word) {
    for (uint64_t bits = seen[word]; bits != 0; bits &= bits - 1) {
      float& l = t[word * 64 + static_cast<uint32_t>(__builtin_ctzll(bits))];
      l = l > 0 ? l / penalty : l * penalty;
    }
  }
}

uint32_t largest(const float* t, uint32_t vocab) {
  uint32_t best = 0;
  float best_t = std::numeric_limits<float>::quiet_NaN();
  for (uint32_t i = 0; i < vocab; ++i) {
    if (t[i] > best_t || (best_t != best_t && t[i] == t[i])) best = i, best_t = t[i];
  }
  return best;
}

// Where the prefix of the order (t descending, id ascending) ends that holds a given mass.
struct Cut {
  uint32_t key;   // larger keys are inside,
  uint32_t ties;  // and so are this many of this very key, lowest ids first
};

// The shortest prefix whose masses add up to at least `wanted` (1 .. total). mass(i) is 0 for what is
// out already. Three histograms of 11, 11 and 10 bits of the key.
template <class Mass>
Cut find_cut(const float* t, uint32_t vocab, uint64_t wanted, const Mass& mass) {
  static constexpr uint32_t kShift[] = {21, 10, 0}, kBits[] = {11, 11, 10};
  uint32_t prefix = 0, prefix_mask = 0;
  std::vector<uint64_t> histogram;
  for (int pass = 0; pass < 3; ++pass) {
    const uint32_t digits = 1u << kBits[pass];
    histogram.assign(digits, 0);
    for (uint32_t i = 0; i < vocab; ++i) {
      const uint32_t key = key_of(t[i]);
      if ((key & prefix_mask) == prefix) histogram[key >> kShift[pass] & (digits - 1)] += mass(i);
    }
    uint32_t digit = digits - 1;
    while (digit > 0 && histogram[digit] < wanted) wanted -= histogram[digit--];
    prefix |= digit << kShift[pass];
    prefix_mask |= (digits - 1) << kShift[pass];
  }
  // All of one key have one mass; so many of them make up the rest.
  uint32_t ties = 0;
  for (uint32_t i = 0; i < vocab && wanted > 0; ++i) {
    if (key_of(t[i]) != prefix || mass(i) == 0) continue;
    ++ties;
    wanted -= mass(i) < wanted ? mass(i) : wanted;
  }
  return {prefix, ties};
}

// Takes everything behind the cut out of the running.
void apply(Cut cut, float* t, uint32_t vocab) {
  for (uint32_t i = 0; i < vocab; ++i) {
    const uint32_t key = key_of(t[i]);
    const bool tie = key == cut.key && cut.ties > 0;
    if (tie) --cut.ties;
    if (key < cut.key || (key == cut.key && !tie)) t[i] = std::numeric_limits<float>::quiet_NaN();
  }
}

void keep_top_k(float* t, uint32_t vocab, uint32_t k) {
  if (k == 0 || k >= vocab) return;
  uint64_t candidates = 0;
  for (uint32_t i = 0; i < vocab; ++i) candidates += t[i] == t[i];
  if (k >= candidates) return;
  apply(find_cut(t, vocab, k, [t](uint32_t i) -> uint64_t { return t[i] == t[i]; }), t, vocab);
}

void keep_top_p(float* t, uint32_t vocab, float p, float t_max) {
  if (p >= 1.0f) return;
  uint64_t total = 0;
  const auto mass = [t, t_max](uint32_t i) -> uint64_t { return t[i] == t[i] ? weight(t[i], t_max) : 0; };
  for (uint32_t i = 0; i < vocab; ++i) total += mass(i);
  const double share = std::ceil(static_cast<double>(p) * static_cast<double>(total));
  uint64_t wanted = static_cast<uint64_t>(share);
  wanted = wanted < 1 ? 1 : wanted > total ? total : wanted;
  apply(find_cut(t, vocab, wanted, mass), t, vocab);
}

void keep_min_p(float* t, uint32_t vocab, float p, float t_max) {
  if (p <= 0.0f) return;
  const auto least = static_cast<uint64_t>(p * 0x1p+32f);
  for (uint32_t i = 0; i < vocab; ++i) {
    if (t[i] == t[i] && weight(t[i], t_max) < least) t[i] = std::numeric_limits<float>::quiet_NaN();
  }
}

// t ⊕ noise; apart from the search for the largest, so that it vectorises.
void add_noise(float* t, uint32_t vocab, uint64_t seed, uint32_t position) {
  const auto key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
  const uint32_t whole = vocab / 4;
  for (uint32_t c = 0; c < whole; ++c) {
    const arith::PhiloxBlock x = arith::philox4x32(key0, key1, c, position, 0, 0);
    for (uint32_t i = 0; i < 4; ++i) t[4 * c + i] = t[4 * c + i] + arith::gumbel(x.word[i]);
  }
  const arith::PhiloxBlock x = arith::philox4x32(key0, key1, whole, position, 0, 0);
  for (uint32_t i = 4 * whole; i < vocab; ++i) t[i] = t[i] + arith::gumbel(x.word[i % 4]);
}

}  // namespace

uint32_t sample(const float* logits, uint32_t vocab, std::span<const uint64_t> seen, const Draw& draw,
                std::vector<float>& scratch) {
  const Sampling& s = draw.sampling;
  const float factor = 1.0f / s.temperature;
  const bool greedy = s.temperature == 0.0f || factor == arith::infinity();
  if (greedy && s.repetition_penalty == 1.0f) return largest(logits, vocab);
  scratch.assign(logits, logits + vocab);
  float* t = scratch.data();
  penalise(t, seen, s.repetition_penalty);
  if (greedy) return largest(t, vocab);
  for (uint32_t i = 0; i < vocab; ++i) t[i] = t[i] * factor;
  const float t_max = t[largest(t, vocab)];
  if (t_max != t_max) return 0;  // nothing but NaN
  keep_top_k(t, vocab, s.top_k);
  keep_top_p(t, vocab, s.top_p, t_max);
  keep_min_p(t, vocab, s.min_p, t_max);
  add_noise(t, vocab, s.seed, draw.position);
  return largest(t, vocab);
}

}  // namespace orcd::cpu
