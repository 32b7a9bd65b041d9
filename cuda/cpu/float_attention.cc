#include "cpu/float_attention.h"

#include <algorithm>
#include <cmath>

#include "arith/attend.h"

namespace orcd::cpu {

FloatAttention::FloatAttention(const ModelShape& shape, uint32_t pages)
    : shape_(shape), width_(shape.n_kv_heads * shape.head_dim), memory_(pages * page_values()) {}

uint64_t FloatAttention::place(const SequenceStore& sequences, uint32_t slot, uint32_t position, uint32_t layer) const {
  const uint32_t page = sequences.pages(slot)[position / kPageTokens];
  return page * page_values() + (uint64_t{layer} * kPageTokens + position % kPageTokens) * 2 * width_;
}

void FloatAttention::append(const Rows& rows, const SequenceStore& sequences, uint32_t layer, const float* k,
                            const float* v) {
  for (uint32_t r = 0; r < rows.count; ++r) {
    float* to = memory_.data() + place(sequences, rows.slot[r], rows.position[r], layer);
    std::copy_n(k + uint64_t{r} * width_, width_, to);
    std::copy_n(v + uint64_t{r} * width_, width_, to + width_);
  }
}

void FloatAttention::attend(const Rows& rows, const SequenceStore& sequences, uint32_t layer,
                            const AttentionParams& params, const float* q, float* out) const {
  const uint32_t hd = shape_.head_dim, per_kv = shape_.n_heads / shape_.n_kv_heads;
  const double scale =
      shape_.attention_scale != 0.0 ? shape_.attention_scale : 1.0 / std::sqrt(static_cast<double>(hd));
  std::vector<double> score;
  for (uint32_t r = 0; r < rows.count; ++r) {
    const uint32_t position = rows.position[r], first = arith::first_seen(position, params.window);
    for (uint32_t h = 0; h < shape_.n_heads; ++h) {
      const float* query = q + (uint64_t{r} * shape_.n_heads + h) * hd;
      const auto kept = [&](uint32_t p) {
        return memory_.data() + place(sequences, rows.slot[r], p, layer) + uint64_t{h / per_kv} * hd;
      };
      score.clear();
      double top = params.sinks ? params.sinks[h] : -INFINITY;
      for (uint32_t p = first; p <= position; ++p) {
        double s = 0;
        for (uint32_t d = 0; d < hd; ++d) s += double{query[d]} * kept(p)[d];
        s *= scale;
        if (params.soft_cap != 0) s = params.soft_cap * std::tanh(s / params.soft_cap);
        score.push_back(s);
        top = std::max(top, s);
      }
      double total = params.sinks ? std::exp(params.sinks[h] - top) : 0;
      std::vector<double> sum(hd);
      for (uint32_t p = first; p <= position; ++p) {
        const double weight = std::exp(score[p - first] - top);
        total += weight;
        for (uint32_t d = 0; d < hd; ++d) sum[d] += weight * kept(p)[width_ + d];
      }
      float* to = out + (uint64_t{r} * shape_.n_heads + h) * hd;
      for (uint32_t d = 0; d < hd; ++d) to[d] = static_cast<float>(sum[d] / total);
    }
  }
}

void FloatAttention::copy(uint32_t from, uint32_t to) {
  std::copy_n(memory_.data() + from * page_values(), page_values(), memory_.data() + to * page_values());
}

}  // namespace orcd::cpu
