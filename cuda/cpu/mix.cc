#include <algorithm>
#include <span>
#include <vector>

#include "arith/router.h"
#include "cpu/ops.h"
#include "ops/experts.h"

namespace orcd::cpu {
namespace {

// Of one row; ranks ascending.
void choose(const float* logits /* (experts) */, uint32_t experts, uint32_t used, float scale, uint32_t* expert,
            float* weight /* (used) */) {
  const bool sound = std::all_of(logits, logits + experts, [](float l) { return arith::is_finite(l); });
  std::vector<uint32_t> order(experts);
  for (uint32_t i = 0; i < experts; ++i) order[i] = i;
  if (sound) {
    std::partial_sort(order.begin(), order.begin() + used, order.end(),
                      [&](uint32_t i, uint32_t j) { return arith::goes_before(logits[i], i, logits[j], j); });
  }
  std::copy_n(order.begin(), used, expert);
  float sum = 0.0f;
  for (uint32_t i = 0; i < used; ++i) {
    weight[i] = sound ? arith::expert_mass(logits[order[i]], logits[order[0]]) : arith::float_of(0x7fc00000u);
    sum = sum + weight[i];
  }
  for (uint32_t i = 0; i < used; ++i) weight[i] = arith::share_of(weight[i], sum, scale);
}

// Gives each pair of a row and a rank its place: by expert, then by row and rank.
void place_pairs(const Mixture& m, uint32_t rows) {
  const std::span<const uint32_t> expert(m.expert, uint64_t{rows} * m.used);
  std::vector<uint32_t> next(m.experts);
  for (const uint32_t e : expert) ++next[e];
  uint32_t behind = 0;
  for (uint32_t e = 0; e < m.experts; ++e) {
    const uint32_t n = next[e];
    next[e] = behind;
    m.end[e] = behind += n;
  }
  for (uint32_t pair = 0; pair < expert.size(); ++pair) {
    const uint32_t place = next[expert[pair]]++;
    m.place[pair] = place;
    m.row[place] = pair / m.used;
  }
}

}  // namespace

void mix(Pool& pool, Isa isa, bool float_activations, const Mixture& m, const Activations& normed, uint32_t rows,
         float* y) {
  const uint32_t d_model = normed.cols, d_ff = m.hidden.cols;
  share(pool, rows, 10.0 * m.experts, [&](uint32_t first, uint32_t end) {
    for (uint64_t r = first; r < end; ++r)
      choose(m.logits + r * m.experts, m.experts, m.used, m.scale, m.expert + r * m.used, m.weight + r * m.used);
  });
  place_pairs(m, rows);
  share(pool, rows * m.used, d_model * 0.5, [&](uint32_t first, uint32_t end) {
    for (uint64_t place = first; place < end; ++place) {
      std::copy_n(normed.x + uint64_t{m.row[place]} * d_model, d_model, m.input.x + place * d_model);
      quantize_row(m.input, static_cast<uint32_t>(place));
    }
  });
  for (uint32_t e = 0, first = 0; e < m.experts; first = m.end[e++]) {
    const uint32_t n = m.end[e] - first;
    if (n == 0) continue;
    float* gate = m.gated + uint64_t{first} * d_ff;
    float* up = m.upped + uint64_t{first} * d_ff;
    const MatmulArgs both[] = {of_expert(m.gate, m.gate_bias, gate, m.experts, e),
                               of_expert(m.up, m.up_bias, up, m.experts, e)};
    matmul(pool, isa, float_activations, both, from_row(m.input, first), n);
    const Activations hidden = from_row(m.hidden, first);
    glu(pool, m.activation, gate, up, n, hidden);
    const MatmulArgs down[] = {of_expert(m.down, m.down_bias, m.given + uint64_t{first} * d_model, m.experts, e)};
    matmul(pool, isa, float_activations, down, hidden, n);
  }
  share(pool, rows, d_model * m.used * 0.3, [&](uint32_t first, uint32_t end) {
    for (uint64_t r = first; r < end; ++r) {
      float* to = y + r * d_model;
      std::fill_n(to, d_model, 0.0f);
      for (uint32_t rank = 0; rank < m.used; ++rank) {
        const float* from = m.given + uint64_t{m.place[r * m.used + rank]} * d_model;
        const float weight = m.weight[r * m.used + rank];
        for (uint32_t k = 0; k < d_model; ++k) to[k] = __builtin_fmaf(weight, from[k], to[k]);
      }
    }
  });
}

}  // namespace orcd::cpu
