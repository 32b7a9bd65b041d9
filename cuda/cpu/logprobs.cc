// Logarithms of the probabilities that the logits give, before penalties, temperature and masks.
#include <algorithm>
#include <numeric>

#include "arith/mass.h"
#include "cpu/ops.h"

namespace orcd::cpu {

void logprobs(const float* logits, uint32_t vocab, const PlacedSample& draw, std::vector<uint32_t>& order,
              Sampled& out) {
  if (!draw.logprobs || out.token == kBrokenLogits) return;
  const float top = *std::max_element(logits, logits + vocab) + 0.0f;  // finite, for a token was sampled; −0 is 0
  uint64_t total = 0;
  for (uint32_t i = 0; i < vocab; ++i) total += arith::mass(logits[i], top);
  out.logprob = arith::logprob(logits[out.token], top, total);
  order.resize(vocab);
  std::iota(order.begin(), order.end(), 0u);
  const auto last = order.begin() + std::min(draw.top_logprobs, vocab);
  std::partial_sort(order.begin(), last, order.end(), [logits](uint32_t a, uint32_t b) {
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
  });
  std::transform(order.begin(), last, out.top.begin(),
                 [&](uint32_t id) { return TokenLogprob{id, arith::logprob(logits[id], top, total)}; });
}

}  // namespace orcd::cpu
