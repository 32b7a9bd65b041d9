// The model as the engine uses it: checked hyperparameters and a view of the weights image.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ops/ops.h"
#include "orcd/engine.h"

namespace orcd {

struct Layer {
  const float* attn_norm;  // (d_model)
  Tensor q, k, v;          // (heads * head_dim, d_model)
  const float* q_bias;     // (n_heads * head_dim) or null, likewise k and v
  const float* k_bias;
  const float* v_bias;
  const float* q_norm;  // (head_dim) or null, likewise k
  const float* k_norm;
  uint32_t kind;  // of ModelShape's
  AttentionParams attention;
  Tensor attn_output;             // (d_model, n_heads * head_dim)
  const float* attn_output_bias;  // (d_model) or null
  const float* post_attn_norm;    // (d_model) or null
  const float* ffn_norm;          // (d_model)
  // With experts, of these matrices and biases that many, one after the other.
  Tensor router;             // (n_experts, d_model) or absent
  const float* router_bias;  // (n_experts) or null
  Tensor gate, up;           // (d_ff, d_model)
  const float* gate_bias;    // (d_ff) or null, likewise up
  const float* up_bias;
  Tensor down;                 // (d_model, d_ff)
  const float* down_bias;      // (d_model) or null
  const float* post_ffn_norm;  // (d_model) or null
};

struct Model {
  ModelShape shape;
  Tensor token_embedding;    // (vocab, d_model)
  Tensor output;             // (vocab, d_model); the embedding where tied
  const float* output_bias;  // (vocab) or null
  const float* output_norm;  // (d_model)
  // (pairs of the first kind) or null; on the device.
  const float* rope_freqs;
  const float* long_rope_freqs;  // of sequences that may become longer than the training's context
  std::vector<Layer> layers;

  // Whether the tensors' divisors are those of a kind's frequencies: a base of its own has none.
  bool has_divisors(uint32_t kind) const { return shape.kinds[kind].rope.base == shape.kinds[0].rope.base; }
  // Whether something happens to what a layer's parts add before it is added.
  bool changes_branches() const {
    return shape.residual_scale != 1.0f || layers.front().post_attn_norm || layers.front().post_ffn_norm;
  }
  // Whether logits are more than the last product.
  bool finishes_logits() const { return shape.logit_scale != 1.0f || shape.logit_soft_cap != 0.0f; }
  uint32_t q_width() const { return shape.n_heads * shape.head_dim; }
  uint32_t kv_width() const { return shape.n_kv_heads * shape.head_dim; }
};

// Throws kInvalid, with the value, for hyperparameters the engine cannot run or sizes out of bounds.
void check_shape(const ModelShape& shape);

// Throws kInvalid, with the tensor's role, layer and values, for a descriptor that does not fit.
void check_tensor(const TensorDesc& desc, uint64_t image_bytes);

// Number of whole rows of `desc` that `raw_bytes` from row `first_row` on are; throws kInvalid, with the
// values, for what does not fit the tensor or the tensor not the image.
uint64_t rows_in(const TensorDesc& desc, uint64_t first_row, size_t raw_bytes, uint64_t image_bytes);

// `image` is where the weights lie in the backend's memory; the descriptors are checked against it.
Model view_model(const ModelShape& shape, std::span<const TensorDesc> tensors, const uint8_t* image,
                 uint64_t image_bytes);

}  // namespace orcd
