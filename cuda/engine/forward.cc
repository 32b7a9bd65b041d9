#include "engine/forward.h"

#include <algorithm>

#include "formats/formats.h"

namespace orcd {

Activations read_by(std::span<const Tensor> weights, Activations a) {
  bool blocks = false, supers = false;
  a.floats = false;
  for (const Tensor& w : weights) {
    const bool super = formats::has_super_blocks(w.type), quantized = formats::is_quantized(w.type);
    supers |= super;
    blocks |= quantized && !super;
    a.floats |= !quantized;
  }
  if (!blocks) a.blocks = {};
  if (!supers) a.supers = {};
  return a;
}

Mixture mixture_of(const Layer& l, const Model& m, const Scratch& s) {
  Mixture out = s.mixture;
  out.logits = s.router;
  out.experts = m.shape.n_experts, out.used = m.shape.n_experts_used;
  out.scale = m.shape.expert_scale;
  out.activation = m.shape.activation;
  out.gate = l.gate, out.up = l.up, out.down = l.down;
  out.gate_bias = l.gate_bias, out.up_bias = l.up_bias, out.down_bias = l.down_bias;
  out.input = read_by({l.gate, l.up}, out.input);
  out.hidden = read_by({l.down}, out.hidden);
  return out;
}

namespace {

// Adds the product to the residual stream.
void end_branch(const Model& m, const Scratch& s, Ops& ops, MatmulArgs product, const float* norm,
                const Activations& input, uint32_t rows) {
  if (!m.changes_branches()) {
    product.y = s.x;
    return ops.matmul({&product, 1}, input, rows);
  }
  product.y = s.branch;
  product.add = false;
  ops.matmul({&product, 1}, input, rows);
  ops.add(s.branch, {norm, m.shape.rms_eps, m.shape.residual_scale}, rows, m.shape.d_model, s.x);
}

void attention_block(uint32_t index, const Model& m, const Scratch& s, Ops& ops, uint32_t rows) {
  const Layer& l = m.layers[index];
  const Activations normed = read_by({l.q, l.k, l.v}, s.normed), attended = read_by({l.attn_output}, s.attended);
  ops.rmsnorm(s.x, nullptr, rows, l.attn_norm, m.shape.rms_eps, normed);
  const MatmulArgs qkv[] = {{l.q, s.q}, {l.k, s.k}, {l.v, s.v}};
  ops.matmul(qkv, normed, rows);
  ops.rope_kv(index, {s.q, s.k, s.v, l.q_bias, l.k_bias, l.v_bias, l.q_norm, l.k_norm, l.kind});
  ops.attention(index, l.attention, s.q, attended.x);
  ops.quantize(attended, rows);
  end_branch(m, s, ops, {l.attn_output, nullptr, true, l.attn_output_bias}, l.post_attn_norm, attended, rows);
}

void mixture_block(const Layer& l, const Model& m, const Scratch& s, Ops& ops, uint32_t rows) {
  const Activations normed = read_by({l.router, l.gate, l.up}, s.normed);
  ops.rmsnorm(s.x, nullptr, rows, l.ffn_norm, m.shape.rms_eps, normed);
  const MatmulArgs router[] = {{l.router, s.router, false, l.router_bias}};
  ops.matmul(router, normed, rows);
  ops.mix(mixture_of(l, m, s), normed, rows, s.branch);
  ops.add(s.branch, {l.post_ffn_norm, m.shape.rms_eps, m.shape.residual_scale}, rows, m.shape.d_model, s.x);
}

// Of a group of rows.
void feed_forward(const Layer& l, const Model& m, const Scratch& s, Ops& ops, uint32_t rows) {
  const Activations normed = read_by({l.gate, l.up}, s.normed), hidden = read_by({l.down}, s.ffn);
  ops.rmsnorm(s.x, nullptr, rows, l.ffn_norm, m.shape.rms_eps, normed);
  const MatmulArgs gate_up[] = {{l.gate, s.gate, false, l.gate_bias}, {l.up, s.up, false, l.up_bias}};
  ops.matmul(gate_up, normed, rows);
  ops.glu(m.shape.activation, s.gate, s.up, rows, hidden);
  end_branch(m, s, ops, {l.down, nullptr, true, l.down_bias}, l.post_ffn_norm, hidden, rows);
}

void feed_forward_block(const Layer& l, const Model& m, const Scratch& s, Ops& ops, uint32_t rows) {
  const uint32_t each = feed_forward_group(rows, s.ffn_rows);
  Scratch group = s;
  for (uint32_t first = 0; first < rows; first += each) {
    group.x = s.x + uint64_t{first} * m.shape.d_model;
    feed_forward(l, m, group, ops, std::min(each, rows - first));
  }
}

}  // namespace

void forward(const Model& m, const Scratch& s, Ops& ops, uint32_t rows, std::span<const uint32_t> logit_rows,
             bool (*abandoned)()) {
  ops.embed(m.token_embedding, m.shape.embedding_scale, s.x);
  for (uint32_t i = 0; i < m.shape.n_layers; ++i) {
    if (abandoned && abandoned()) throw Error(ErrorKind::kAbandoned, "the step was given up as asked");
    attention_block(i, m, s, ops, rows);
    const auto block = m.layers[i].router ? mixture_block : feed_forward_block;
    block(m.layers[i], m, s, ops, rows);
  }
  if (logit_rows.empty()) return;
  const auto n_logits = static_cast<uint32_t>(logit_rows.size());
  const Activations normed = read_by({m.output}, s.normed);
  ops.rmsnorm(s.x, logit_rows.data(), n_logits, m.output_norm, m.shape.rms_eps, normed);
  const MatmulArgs logits[] = {{m.output, s.logits, false, m.output_bias}};
  ops.matmul(logits, normed, n_logits);
  if (m.finishes_logits())
    ops.finish_logits(m.shape.logit_scale, m.shape.logit_soft_cap, n_logits, m.output.rows, s.logits);
}

}  // namespace orcd
