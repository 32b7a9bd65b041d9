#include "engine/model.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "arith/constants.h"
#include "formats/formats.h"

namespace orcd {
namespace {

constexpr uint64_t kTensorAlign = 256;
constexpr uint32_t kMaxHeadDim = 256;
constexpr uint32_t kExpertRows = 32;  // of both backends' groups of packed rows, a multiple

[[noreturn]] void invalid(const std::string& what) { throw Error(ErrorKind::kInvalid, what); }

std::string name_of(const TensorDesc& d) {
  static const char* const names[] = {
      "token_embd",    "output_norm", "output",   "rope_freqs",  "attn_norm",      "attn_q",
      "attn_k",        "attn_v",      "attn_q.b", "attn_k.b",    "attn_v.b",       "attn_output",
      "ffn_norm",      "ffn_gate",    "ffn_up",   "ffn_down",    "attn_output.b",  "ffn_gate.b",
      "ffn_up.b",      "ffn_down.b",  "output.b", "attn_q_norm", "attn_k_norm",    "post_attention_norm",
      "post_ffw_norm", "router",      "router.b", "attn_sinks",  "long rope_freqs"};
  const auto i = static_cast<uint32_t>(d.role);
  const std::string role = i < std::size(names) ? names[i] : "role " + std::to_string(i);
  return role + " of layer " + std::to_string(d.layer);
}

Tensor matrix(const TensorDesc& d, const uint8_t* image, uint64_t rows, uint64_t cols) {
  if (d.rows != rows || d.cols != cols) {
    invalid(name_of(d) + " is (" + std::to_string(d.rows) + ", " + std::to_string(d.cols) + "), expected (" +
            std::to_string(rows) + ", " + std::to_string(cols) + ")");
  }
  return {d.type, static_cast<uint32_t>(d.rows), static_cast<uint32_t>(d.cols), image + d.offset};
}

const float* vector(const TensorDesc& d, const uint8_t* image, uint64_t cols) {
  if (d.type != TensorType::kF32) invalid(name_of(d) + " must be F32");
  return reinterpret_cast<const float*>(matrix(d, image, 1, cols).data);
}

Tensor router(const TensorDesc& d, const uint8_t* image, const ModelShape& s) {
  if (formats::is_quantized(d.type)) invalid(name_of(d) + " must be of floats");
  return matrix(d, image, s.n_experts, s.d_model);
}

void place(Model& m, const TensorDesc& d, const uint8_t* image) {
  const ModelShape& s = m.shape;
  if (d.layer >= s.n_layers) invalid(name_of(d) + ": the model has " + std::to_string(s.n_layers) + " layers");
  Layer& l = m.layers[d.layer];
  const uint32_t qw = m.q_width(), kvw = m.kv_width();
  const uint64_t experts = std::max(1u, s.n_experts);
  // A bias of each expert.
  const auto biases = [&](uint64_t cols) -> const float* {
    if (d.type != TensorType::kF32) invalid(name_of(d) + " must be F32");
    return reinterpret_cast<const float*>(matrix(d, image, experts, cols).data);
  };
  switch (d.role) {
    case TensorRole::kTokenEmbedding: m.token_embedding = matrix(d, image, s.vocab, s.d_model); return;
    case TensorRole::kOutputNorm: m.output_norm = vector(d, image, s.d_model); return;
    case TensorRole::kOutput: m.output = matrix(d, image, s.vocab, s.d_model); return;
    case TensorRole::kRopeFreqs: m.rope_freqs = vector(d, image, s.kinds[0].rope.pairs); return;
    case TensorRole::kAttnNorm: l.attn_norm = vector(d, image, s.d_model); return;
    case TensorRole::kAttnQ: l.q = matrix(d, image, qw, s.d_model); return;
    case TensorRole::kAttnK: l.k = matrix(d, image, kvw, s.d_model); return;
    case TensorRole::kAttnV: l.v = matrix(d, image, kvw, s.d_model); return;
    case TensorRole::kAttnQBias: l.q_bias = vector(d, image, qw); return;
    case TensorRole::kAttnKBias: l.k_bias = vector(d, image, kvw); return;
    case TensorRole::kAttnVBias: l.v_bias = vector(d, image, kvw); return;
    case TensorRole::kAttnOutput: l.attn_output = matrix(d, image, s.d_model, qw); return;
    case TensorRole::kFfnNorm: l.ffn_norm = vector(d, image, s.d_model); return;
    case TensorRole::kFfnGate: l.gate = matrix(d, image, experts * s.d_ff, s.d_model); return;
    case TensorRole::kFfnUp: l.up = matrix(d, image, experts * s.d_ff, s.d_model); return;
    case TensorRole::kFfnDown: l.down = matrix(d, image, experts * s.d_model, s.d_ff); return;
    case TensorRole::kAttnOutputBias: l.attn_output_bias = vector(d, image, s.d_model); return;
    case TensorRole::kFfnGateBias: l.gate_bias = biases(s.d_ff); return;
    case TensorRole::kFfnUpBias: l.up_bias = biases(s.d_ff); return;
    case TensorRole::kFfnDownBias: l.down_bias = biases(s.d_model); return;
    case TensorRole::kOutputBias: m.output_bias = vector(d, image, s.vocab); return;
    case TensorRole::kAttnQNorm: l.q_norm = vector(d, image, s.head_dim); return;
    case TensorRole::kAttnKNorm: l.k_norm = vector(d, image, s.head_dim); return;
    case TensorRole::kPostAttnNorm: l.post_attn_norm = vector(d, image, s.d_model); return;
    case TensorRole::kPostFfnNorm: l.post_ffn_norm = vector(d, image, s.d_model); return;
    case TensorRole::kRouter: l.router = router(d, image, s); return;
    case TensorRole::kRouterBias: l.router_bias = vector(d, image, s.n_experts); return;
    case TensorRole::kLongRopeFreqs: m.long_rope_freqs = vector(d, image, s.kinds[0].rope.pairs); return;
    case TensorRole::kAttnSinks: l.attention.sinks = vector(d, image, s.n_heads); return;
  }
  invalid(name_of(d) + " is unknown");
}

void check_complete(const Model& m) {
  if (!m.token_embedding || !m.output_norm) invalid("token_embd or output_norm is missing");
  const bool is_long = m.shape.kinds[0].rope.scaling == RopeScaling::kLongRope;
  if (is_long != (m.long_rope_freqs != nullptr)) invalid("long rope_freqs and LongRoPE go together");
  for (size_t i = 0; i < m.layers.size(); ++i) {
    const Layer& l = m.layers[i];
    const bool whole = l.attn_norm && l.q && l.k && l.v && l.attn_output && l.ffn_norm && l.gate && l.up && l.down;
    if (!whole || bool(l.router) != (m.shape.n_experts > 0))
      invalid("a tensor of layer " + std::to_string(i) + " is missing");
    // Each expert's rows begin where a group of packed rows does.
    if (l.router)
      for (const Tensor& w : {l.gate, l.up, l.down})
        if (formats::is_quantized(w.type) && w.rows / m.shape.n_experts % kExpertRows != 0)
          invalid("experts of " + std::to_string(w.rows / m.shape.n_experts) + " rows in layer " + std::to_string(i) +
                  ": must be a multiple of " + std::to_string(kExpertRows));
  }
}

}  // namespace

namespace {

void check_rope(const RopeSpec& r, uint32_t head_dim) {
  if (r.pairs > head_dim / 2) {
    invalid("rope rotates " + std::to_string(r.pairs) + " pairs of a head of " + std::to_string(head_dim));
  }
  const auto least = [](const char* what, double value, double bound) {
    if (!(value >= bound) || !std::isfinite(value))
      invalid(std::string("rope ") + what + " must be finite and at least " + std::to_string(bound));
  };
  least("base", r.base, 1);
  least("attn_factor", r.attn_factor, 0);
  if (r.scaling == RopeScaling::kNone) return;
  least("factor", r.factor, 1e-6);
  if (r.scaling == RopeScaling::kLongRope) least("original context", r.original_context, 1);
  if (r.scaling != RopeScaling::kYarn) return;
  least("base of YaRN", r.base, 1.001);
  least("original context", r.original_context, 1);
  least("beta_fast", r.beta_fast, 1e-6);
  least("beta_slow", r.beta_slow, 1e-6);
  if (!(r.log_multiplier >= 0) || !std::isfinite(r.log_multiplier))
    invalid("rope log_multiplier must be finite and at least 0");
}

}  // namespace

void check_shape(const ModelShape& s) {
  const auto bounded = [](const char* what, uint64_t value, uint64_t max) {
    if (value == 0 || value > max) {
      invalid(std::string(what) + " is " + std::to_string(value) + ", must be 1 to " + std::to_string(max));
    }
  };
  bounded("n_layers", s.n_layers, 64 * s.second_kind.size());
  bounded("d_model", s.d_model, 1 << 17);
  bounded("d_ff", s.d_ff, 1 << 20);
  bounded("n_heads", s.n_heads, 1024);
  bounded("n_kv_heads", s.n_kv_heads, s.n_heads);
  bounded("head_dim", s.head_dim, kMaxHeadDim);
  bounded("vocab", s.vocab, 1 << 24);
  if (s.n_heads % s.n_kv_heads != 0) {
    invalid("n_heads " + std::to_string(s.n_heads) + " is no multiple of n_kv_heads " + std::to_string(s.n_kv_heads));
  }
  if (s.head_dim % 2 != 0) invalid("head_dim " + std::to_string(s.head_dim) + " is odd");
  if (!(s.rms_eps >= 0) || !std::isfinite(s.rms_eps)) invalid("rms_eps must be finite and not negative");
  for (const LayerKind& kind : s.kinds) check_rope(kind.rope, s.head_dim);
  const auto positive = [](const char* what, double value) {
    if (!(value > 0) || !std::isfinite(value)) invalid(std::string(what) + " must be positive and finite");
  };
  positive("embedding_scale", s.embedding_scale);
  positive("residual_scale", s.residual_scale);
  positive("logit_scale", s.logit_scale);
  // Within these no score is infinite, and no cap's reciprocal.
  const auto within = [](const char* what, double value, double least, double most) {
    if (value != 0 && !(value >= least && value <= most))
      invalid(std::string(what) + " is " + std::to_string(value) + ", must be 0 or " + std::to_string(least) + " to " +
              std::to_string(most));
  };
  within("attention_scale", s.attention_scale, 1e-6, 65536);
  within("attention_soft_cap", s.attention_soft_cap, 1e-6, 1e6);
  within("logit_soft_cap", s.logit_soft_cap, 1e-6, 1e6);
  positive("expert_scale", s.expert_scale);
  if (s.n_experts > kMostExperts || s.n_experts_used > s.n_experts || s.n_experts_used > kMostExpertsUsed ||
      (s.n_experts > 0) != (s.n_experts_used > 0))
    invalid(std::to_string(s.n_experts_used) + " of " + std::to_string(s.n_experts) + " experts can't be used");
  if (!std::isfinite(s.query_scale)) invalid("query_scale is not finite");
  if (s.query_scale != 0 && s.query_scale_context == 0) invalid("query_scale needs a context");
}

void check_tensor(const TensorDesc& d, uint64_t image_bytes) {
  const uint32_t block = formats::block_values(d.type);
  if (block == 0) invalid(name_of(d) + " has unknown type " + std::to_string(static_cast<uint32_t>(d.type)));
  constexpr uint64_t max = uint64_t{1} << 31;
  if (d.rows == 0 || d.cols == 0 || d.rows >= max || d.cols >= max) invalid(name_of(d) + " has no usable shape");
  if (d.cols % block != 0) {
    invalid(name_of(d) + " has " + std::to_string(d.cols) + " columns, no multiple of its block of " +
            std::to_string(block));
  }
  if (d.bytes != d.rows * formats::row_bytes(d.type, d.cols)) {
    invalid(name_of(d) + " has " + std::to_string(d.bytes) + " bytes, which does not fit its shape");
  }
  if (d.offset % kTensorAlign != 0 || d.offset > image_bytes || d.bytes > image_bytes - d.offset) {
    invalid(name_of(d) + " at offset " + std::to_string(d.offset) + " does not lie in the image of " +
            std::to_string(image_bytes) + " bytes");
  }
}

uint64_t rows_in(const TensorDesc& d, uint64_t first_row, size_t raw_bytes, uint64_t image_bytes) {
  check_tensor(d, image_bytes);
  const uint64_t row = formats::row_bytes(d.type, d.cols), n = raw_bytes / row;
  if (raw_bytes % row != 0 || first_row > d.rows || n > d.rows - first_row) {
    throw Error(ErrorKind::kInvalid, std::to_string(raw_bytes) + " bytes from row " + std::to_string(first_row) +
                                         " are no whole rows of a tensor of " + std::to_string(d.rows) + " rows of " +
                                         std::to_string(row) + " bytes");
  }
  return n;
}

Model view_model(const ModelShape& shape, std::span<const TensorDesc> tensors, const uint8_t* image,
                 uint64_t image_bytes) {
  check_shape(shape);
  Model m{};
  m.shape = shape;
  m.layers.resize(shape.n_layers);
  for (uint32_t i = 0; i < shape.n_layers; ++i) {
    Layer& l = m.layers[i];
    l.kind = shape.second_kind[i / 64] >> (i % 64) & 1;
    l.attention = {shape.kinds[l.kind].window, shape.attention_soft_cap};
  }
  for (const TensorDesc& d : tensors) {
    check_tensor(d, image_bytes);
    place(m, d, image);
  }
  if (!m.output) m.output = m.token_embedding;
  check_complete(m);
  return m;
}

}  // namespace orcd
