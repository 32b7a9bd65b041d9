// Debug (EngineOptions::float_activations): attention whose keys and values stay floats, beside the contract's. What is
// left between it and another implementation is rounding.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/sequences.h"
#include "ops/ops.h"

namespace orcd::cpu {

class FloatAttention {
 public:
  FloatAttention(const ModelShape& shape, uint32_t pages);

  // Keeps the rows' keys and values, as rope_kv has left them.
  void append(const Rows& rows, const SequenceStore& sequences, uint32_t layer, const float* k, const float* v);
  void attend(const Rows& rows, const SequenceStore& sequences, uint32_t layer, const AttentionParams& params,
              const float* q, float* out) const;
  void copy(uint32_t from, uint32_t to);

 private:
  // Of one token in a layer: all heads of its key, then of its value.
  uint64_t place(const SequenceStore& sequences, uint32_t slot, uint32_t position, uint32_t layer) const;
  uint64_t page_values() const { return uint64_t{shape_.n_layers} * kPageTokens * 2 * width_; }

  ModelShape shape_;
  uint32_t width_;             // n_kv_heads * head_dim
  std::vector<float> memory_;  // (pages, layers, 64, 2, width)
};

}  // namespace orcd::cpu
