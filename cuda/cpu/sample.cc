// One draw: penalties, biases, temperature, top-k, top-p, min-p, Gumbel-max. What sorts elsewhere is counted here:
// a threshold is found digit by digit in integer histograms, over ever fewer tokens.
#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "arith/gumbel.h"
#include "arith/mass.h"
#include "arith/philox.h"
#include "arith/sampling.h"
#include "cpu/ops.h"

namespace orcd::cpu {
namespace {

// Unsigned order of the result = order of the floats, with −0 = +0; NaN is 0, below all others.
uint32_t key_of(float t) {
  const uint32_t b = arith::bits_of(t + 0.0f);
  return t != t ? 0 : b >> 31 ? ~b : b | 0x80000000u;
}

constexpr uint32_t kTopShift = 21, kTopDigits = 1 << 11;  // the first 11 bits of a key

// Each token of `before` once, however often it is there.
void penalize(float* t, uint32_t vocab, std::span<const uint32_t> before, const Sampling& s,
              std::vector<uint64_t>& seen) {
  if (!arith::penalizes(s)) return;
  seen.assign((vocab + 63) / 64, 0);
  for (const uint32_t token : before) {
    const uint64_t bit = uint64_t{1} << (token % 64);
    if (seen[token / 64] & bit) continue;
    seen[token / 64] |= bit;
    t[token] = arith::penalized(t[token], s);
  }
}

// The tokens of the output by how often they are there. `counts`: zeros, and left so.
void discount(float* t, uint32_t vocab, std::span<const uint32_t> output, const Sampling& s,
              std::vector<uint32_t>& counts) {
  if (!arith::counts(s)) return;
  counts.resize(vocab);
  for (const uint32_t token : output) ++counts[token];
  for (const uint32_t token : output) t[token] = arith::discounted(t[token], std::exchange(counts[token], 0), s);
}

void add_biases(float* t, std::span<const TokenBias> biases) {
  for (const TokenBias& b : biases) t[b.token] = arith::biased(t[b.token], b.bias);
}

// What a mask leaves out is NaN from here on: below everything, and part of nothing.
void exclude(float* t, uint32_t vocab, const uint32_t* mask) {
  if (!mask) return;
  for (uint32_t i = 0; i < vocab; ++i) {
    if (!(mask[i / 32] >> i % 32 & 1u)) t[i] = std::numeric_limits<float>::quiet_NaN();
  }
}

// Whether tokens can be sampled from these logits: all finite, and not all zero.
bool usable(const float* logits, uint32_t n) {
  constexpr uint32_t kExponent = 0x7f800000, kLowest = 0x00800000;
  uint32_t all = 0, carried = 0;  // an exponent of all ones carries into the sign
  for (uint32_t i = 0; i < n; ++i) {
    const uint32_t b = arith::bits_of(logits[i]);
    all |= b;
    carried |= (b & kExponent) + kLowest;
  }
  return carried >> 31 == 0 && all << 1 != 0;
}

// First place of the largest value, 0 where all are NaN. The maximum first, in lanes; then where it is.
uint32_t largest(const float* t, uint32_t n) {
  constexpr uint32_t kLanes = 32;
  float m[kLanes];
  for (float& lane : m) lane = -arith::infinity();
  const uint32_t whole = n / kLanes * kLanes;
  for (uint32_t i = 0; i < whole; i += kLanes) {
    for (uint32_t l = 0; l < kLanes; ++l) m[l] = t[i + l] > m[l] ? t[i + l] : m[l];
  }
  for (uint32_t i = whole; i < n; ++i) m[0] = t[i] > m[0] ? t[i] : m[0];
  for (uint32_t l = 1; l < kLanes; ++l) m[0] = m[l] > m[0] ? m[l] : m[0];
  for (uint32_t i = 0; i < n; ++i) {
    if (t[i] == m[0]) return i;
  }
  return 0;
}

// A key that at least `k` of the values reach, and not many more: the lower end of a histogram bucket.
// At least 1, so that no NaN reaches it.
uint32_t floor_for(const float* t, uint32_t vocab, uint32_t k) {
  constexpr uint32_t kBanks = 4;  // neighbors often fall into one bucket, and would wait for each other
  std::vector<uint32_t> count(kBanks * kTopDigits);
  for (uint32_t i = 0; i < vocab; ++i) ++count[i % kBanks * kTopDigits + (key_of(t[i]) >> kTopShift)];
  uint64_t reached = 0;
  for (uint32_t digit = kTopDigits - 1; digit > 0; --digit) {
    for (uint32_t bank = 0; bank < kBanks; ++bank) reached += count[bank * kTopDigits + digit];
    if (reached >= k) return digit << kTopShift;
  }
  return 1;
}

// The tokens whose keys reach `floor` become the ones in the running.
void collect(const float* t, uint32_t vocab, uint32_t floor, Candidates& c) {
  c.id.resize(vocab);
  c.t.resize(vocab);
  size_t n = 0;
  for (uint32_t i = 0; i < vocab; ++i) {
    c.id[n] = i;
    c.t[n] = t[i];
    n += key_of(t[i]) >= floor;
  }
  c.id.resize(n);
  c.t.resize(n);
}

// Keeps the candidates for which keep(place) is true.
template <class Keep>
void retain(Candidates& c, const Keep& keep) {
  size_t n = 0;
  for (size_t i = 0; i < c.id.size(); ++i) {
    const bool kept = keep(i);
    c.id[n] = c.id[i];
    c.t[n] = c.t[i];
    n += kept;
  }
  c.id.resize(n);
  c.t.resize(n);
}

// Keeps the shortest prefix of the order (t descending, id ascending) whose masses add up to at least
// `wanted`, which is 1 .. the sum of all mass(place).
template <class Mass>
void keep_prefix(Candidates& c, uint64_t wanted, const Mass& mass) {
  static constexpr uint32_t kShift[] = {kTopShift, 10, 0};
  std::vector<uint64_t> histogram(kTopDigits);
  c.place.resize(c.id.size());
  for (size_t i = 0; i < c.place.size(); ++i) c.place[i] = static_cast<uint32_t>(i);
  for (const uint32_t shift : kShift) {
    const uint32_t digits = shift == 0 ? 1 << 10 : kTopDigits;
    const auto digit_of = [&](uint32_t i) { return key_of(c.t[i]) >> shift & (digits - 1); };
    histogram.assign(digits, 0);
    for (const uint32_t i : c.place) histogram[digit_of(i)] += mass(i);
    uint32_t digit = digits - 1;
    while (digit > 0 && histogram[digit] < wanted) wanted -= histogram[digit--];
    std::erase_if(c.place, [&](uint32_t i) { return digit_of(i) != digit; });
  }
  // Those left have one key; of them, the first few by id.
  size_t last = 0;
  while (mass(c.place[last]) < wanted) wanted -= mass(c.place[last++]);
  const uint32_t cut = c.place[last], key = key_of(c.t[cut]);
  retain(c, [&](size_t i) {
    const uint32_t k = key_of(c.t[i]);
    return k > key || (k == key && i <= cut);
  });
}

void weigh(Candidates& c, float t_max) {
  c.weight.resize(c.t.size());
  for (size_t i = 0; i < c.t.size(); ++i) c.weight[i] = arith::weight(c.t[i], t_max);
}

void keep_top_p(Candidates& c, float p, float t_max) {
  weigh(c, t_max);
  uint64_t total = 0;
  for (const float w : c.weight) total += arith::fixed(w);
  const auto wanted = static_cast<uint64_t>(std::ceil(static_cast<double>(p) * static_cast<double>(total)));
  keep_prefix(c,
              wanted < 1       ? 1
              : wanted > total ? total
                               : wanted,
              [&c](uint32_t i) { return arith::fixed(c.weight[i]); });
}

void keep_min_p(Candidates& c, float p, float t_max) {
  weigh(c, t_max);
  const uint64_t least = arith::fixed(p);
  retain(c, [&](size_t i) { return arith::fixed(c.weight[i]) >= least; });
}

// t ⊕ noise for all tokens; four neighbors share a block of random words.
void add_noise(float* t, uint32_t vocab, const Sampling& s, uint32_t position) {
  const auto key0 = static_cast<uint32_t>(s.seed), key1 = static_cast<uint32_t>(s.seed >> 32);
  const uint32_t whole = vocab / 4;
  for (uint32_t c = 0; c < whole; ++c) {
    const arith::PhiloxBlock x = arith::philox4x32(key0, key1, c, position, s.choice, 0);
    for (uint32_t i = 0; i < 4; ++i) t[4 * c + i] = t[4 * c + i] + arith::gumbel(x.word[i]);
  }
  const arith::PhiloxBlock x = arith::philox4x32(key0, key1, whole, position, s.choice, 0);
  for (uint32_t i = 4 * whole; i < vocab; ++i) t[i] = t[i] + arith::gumbel(x.word[i % 4]);
}

// The same for the candidates.
void add_noise(Candidates& c, const Sampling& s, uint32_t position) {
  const auto key0 = static_cast<uint32_t>(s.seed), key1 = static_cast<uint32_t>(s.seed >> 32);
  for (size_t i = 0; i < c.id.size(); ++i) {
    const arith::PhiloxBlock x = arith::philox4x32(key0, key1, c.id[i] / 4, position, s.choice, 0);
    const uint32_t even = c.id[i] & 2 ? x.word[2] : x.word[0], odd = c.id[i] & 2 ? x.word[3] : x.word[1];
    c.t[i] = c.t[i] + arith::gumbel(c.id[i] & 1 ? odd : even);
  }
}

uint32_t draw_filtered(const float* t, uint32_t vocab, float t_max, const PlacedSample& draw, Candidates& c) {
  const Sampling& s = draw.sampling;
  const bool uses_top_k = arith::uses_top_k(s, vocab);
  collect(t, vocab, uses_top_k ? floor_for(t, vocab, s.top_k) : 1, c);
  if (uses_top_k && s.top_k < c.id.size()) keep_prefix(c, s.top_k, [](uint32_t) -> uint64_t { return 1; });
  if (arith::uses_top_p(s)) keep_top_p(c, s.top_p, t_max);
  if (arith::uses_min_p(s)) keep_min_p(c, s.min_p, t_max);
  add_noise(c, s, draw.position);
  return c.id[largest(c.t.data(), static_cast<uint32_t>(c.t.size()))];
}

}  // namespace

uint32_t sample(const float* logits, uint32_t vocab, std::span<const uint32_t> before, const PlacedSample& draw,
                SampleScratch& scratch) {
  if (!usable(logits, vocab)) return kBrokenLogits;
  const Sampling& s = draw.sampling;
  const float factor = arith::inverse_temperature(s);
  const bool greedy = factor == 0.0f;
  const bool changed = arith::penalizes(s) || arith::counts(s) || !draw.biases.empty() || draw.mask;
  if (greedy && !changed) return largest(logits, vocab);
  scratch.t.assign(logits, logits + vocab);
  float* t = scratch.t.data();
  penalize(t, vocab, before, s, scratch.seen);
  discount(t, vocab, before.subspan(std::min<size_t>(draw.output_start, before.size())), s, scratch.counts);
  add_biases(t, draw.biases);
  exclude(t, vocab, draw.mask);
  if (greedy) return largest(t, vocab);
  for (uint32_t i = 0; i < vocab; ++i) t[i] = t[i] * factor;
  const float t_max = t[largest(t, vocab)];
  if (arith::filters(s, vocab)) return draw_filtered(t, vocab, t_max, draw, scratch.candidates);
  add_noise(t, vocab, s, draw.position);
  return largest(t, vocab);
}

}  // namespace orcd::cpu
