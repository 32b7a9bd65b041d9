// One decoding step as a graph: five kernels a layer, each of which fetches its weights before its
// predecessor has ended (programmatic dependent launch). Same operations in the same order as
// forward.cc, so the same bits.
#include "gpu/ops.h"

namespace orcd::gpu {
namespace {

using kernels::Input;
using kernels::MatvecInput;
using kernels::MatvecJob;

bool fused_layer(const Layer& l, uint32_t rows) {
  const TensorType types[] = {l.q.type, l.k.type, l.v.type, l.attn_output.type, l.gate.type, l.up.type, l.down.type};
  for (const TensorType t : types)
    if (!arith::is_quantised(t)) return false;
  const TensorType qkv[] = {l.q.type, l.k.type, l.v.type}, gate_up[] = {l.gate.type, l.up.type};
  return kernels::matvec_fits(qkv, 3, l.q.cols, rows, Input::kNorm, false) &&
         kernels::matvec_fits(&l.attn_output.type, 1, l.attn_output.cols, rows, Input::kQuantise, false) &&
         kernels::matvec_fits(gate_up, 2, l.gate.cols, rows, Input::kNorm, true) &&
         kernels::matvec_fits(&l.down.type, 1, l.down.cols, rows, Input::kQuantise, false);
}

bool fused_model(const Model& m, uint32_t rows) {
  for (const Layer& l : m.layers)
    if (!fused_layer(l, rows)) return false;
  return arith::is_quantised(m.output.type) &&
         kernels::matvec_fits(&m.output.type, 1, m.output.cols, rows, Input::kNorm, false);
}

MatvecInput normed(const float* x, const float* weight, float eps) {
  MatvecInput in;
  in.kind = Input::kNorm;
  in.x = x;
  in.weight = weight;
  in.eps = eps;
  return in;
}

MatvecInput quantised(const float* x, uint32_t cols) {
  MatvecInput in;
  in.kind = Input::kQuantise;
  in.a.cols = cols;
  in.a.x = const_cast<float*>(x);
  return in;
}

}  // namespace

void CudaOps::record_fused(const Model& m, const Scratch& s, uint32_t rows) {
  const StepInput step = carve(input_.data());
  const float eps = m.shape.rms_eps;
  kernels::embed(m.token_embedding, step.token, rows, s.x, false, stream_);
  for (uint32_t i = 0; i < m.shape.n_layers; ++i) {
    const Layer& l = m.layers[i];
    const MatvecJob qkv[] = {{l.q, l.q_bias, s.q}, {l.k, l.k_bias, s.k}, {l.v, l.v_bias, s.v}};
    kernels::matvec(qkv, 3, normed(s.x, l.attn_norm, eps), rows, false, true, stream_);
    kernels::DecodeAttention a = decode_attention(i, s.q, s.attended.x);
    a.k = s.k;
    a.v = s.v;
    a.rotate = true;
    kernels::attention_decode(a, rows, true, stream_);
    const MatvecJob output = {l.attn_output, nullptr, s.x, true};
    kernels::matvec(&output, 1, quantised(s.attended.x, s.attended.cols), rows, false, true, stream_);
    const MatvecJob gate_up[] = {{l.gate, nullptr, s.gate}, {l.up, nullptr, nullptr}};
    kernels::matvec(gate_up, 2, normed(s.x, l.ffn_norm, eps), rows, true, true, stream_);
    const MatvecJob down = {l.down, nullptr, s.x, true};
    kernels::matvec(&down, 1, quantised(s.gate, s.ffn.cols), rows, false, true, stream_);
  }
  const MatvecJob logits = {m.output, nullptr, s.logits};
  kernels::matvec(&logits, 1, normed(s.x, m.output_norm, eps), rows, false, true, stream_);
}

bool CudaOps::forward_fused(const Model& m, const Scratch& s, std::span<const uint32_t> pick) {
  // All rows draw, in order: what decoding is.
  if (!fusible_ || pick.size() != rows_) return false;
  for (uint32_t i = 0; i < rows_; ++i)
    if (pick[i] != i) return false;
  if (graphs_.empty()) graphs_.resize(kernels::kMatvecRows);
  device::Graph& graph = graphs_[rows_ - 1];
  if (!graph) {
    if (!fused_model(m, rows_)) return false;
    graph = device::Graph::capture(stream_, [&] { record_fused(m, s, rows_); });
  }
  graph.launch(stream_);
  return true;
}

}  // namespace orcd::gpu
