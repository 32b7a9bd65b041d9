// What a sample's parameters do with one logit, for both backends: docs/ARITHMETIC.md, "Sampling, in this order".
#pragma once

#include "arith/hd.h"
#include "orcd/engine.h"

namespace orcd::arith {

// Whether logits of tokens that were seen are changed, and to what.
ORCD_HD bool penalizes(const Sampling& s) { return s.repetition_penalty != 1.0f; }

ORCD_HD float penalized(float logit, const Sampling& s) {
  return logit > 0.0f ? logit / s.repetition_penalty : logit * s.repetition_penalty;
}

// Whether logits of tokens of the output are changed, by how often they are in it.
ORCD_HD bool counts(const Sampling& s) { return s.frequency_penalty != 0.0f || s.presence_penalty != 0.0f; }

// A count is no larger than this, so that 16 bits hold it.
constexpr uint32_t kMostCounted = 65535;

// `count`: how often the token is in the output.
ORCD_HD float discounted(float logit, uint32_t count, const Sampling& s) {
  if (count == 0) return logit;
  const uint32_t counted = count < kMostCounted ? count : kMostCounted;
  return (logit - s.frequency_penalty * static_cast<float>(counted)) - s.presence_penalty;
}

ORCD_HD float biased(float logit, float bias) { return logit + bias; }

// The factor of logits; 0 is greedy. A temperature whose inverse is infinite leaves only the best, as 0 does.
ORCD_HD float inverse_temperature(const Sampling& s) {
  const float inverse = 1.0f / s.temperature;
  return inverse == infinity() ? 0.0f : inverse;
}

ORCD_HD bool uses_top_k(const Sampling& s, uint32_t vocab) { return s.top_k && s.top_k < vocab; }
ORCD_HD bool uses_top_p(const Sampling& s) { return s.top_p < 1.0f; }
ORCD_HD bool uses_min_p(const Sampling& s) { return s.min_p > 0.0f; }

// Whether tokens are left out.
ORCD_HD bool filters(const Sampling& s, uint32_t vocab) {
  return inverse_temperature(s) != 0.0f && (uses_top_k(s, vocab) || uses_top_p(s) || uses_min_p(s));
}

}  // namespace orcd::arith
