// Steps of few rows as a chain of fused kernels, each of which fetches its weights before its predecessor
// has ended (programmatic dependent launch): five a layer for one row, seven for several. Same operations in
// the same order as forward.cc, so the same bits. Steps that decode some sequences run as graphs, recorded
// once, from fetching their rows to drawing their tokens, but for samples with top-k, top-p or min-p.
#include <algorithm>
#include <initializer_list>

#include "gpu/executor.h"

namespace orcd::gpu {
namespace {

using kernels::GemvInput;
using kernels::Input;
using kernels::MatmulJob;
using kernels::TiledActivations;

bool fits(std::initializer_list<Tensor> weights, uint32_t rows, bool swiglu = false) {
  TensorType types[3];
  uint32_t n = 0;
  for (const Tensor& w : weights) {
    if (!formats::is_quantized(w.type)) return false;
    types[n++] = w.type;
  }
  return rows == 1 ? kernels::gemv_fits(types, n, weights.begin()->cols, swiglu)
                   : kernels::gemm_few_rows_fits(weights.begin(), n, rows, swiglu);
}

bool fits(const Model& m, uint32_t rows) {
  for (const Layer& l : m.layers)
    // SwiGLU's products take no biases: few models have them, and those run operation by operation.
    if (l.gate_bias || l.up_bias || !fits({l.q, l.k, l.v}, rows) || !fits({l.attn_output}, rows) ||
        !fits({l.gate, l.up}, rows, true) || !fits({l.down}, rows))
      return false;
  return fits({m.output}, rows);
}

// The products of a step, all in one stream: one row by gemv, which normalizes and quantizes for itself,
// several by gemm_few_rows, whose inputs come tiled.
struct Products {
  const Model& m;
  const Scratch& s;
  TiledActivations tiled, hidden;  // what products read, and what leaves SwiGLU
  cudaStream_t stream;

  // y = W · RMSNorm(x[gather[r]]) for r < rows; swiglu(gate, up) instead if so.
  void normed(std::initializer_list<MatmulJob> jobs, const float* weight, const uint32_t* gather, uint32_t rows,
              bool swiglu = false) const {
    const auto n = static_cast<uint32_t>(jobs.size());
    if (rows > 1) {
      kernels::rmsnorm_tiled(s.x, gather, rows, weight, m.shape.rms_eps, m.shape.d_model, tiled, true, stream);
      kernels::gemm_few_rows(jobs.begin(), n, tiled, rows, swiglu ? &hidden : nullptr, true, stream);
      return;
    }
    GemvInput in;
    in.kind = Input::kNorm;
    in.x = s.x;
    in.gather = gather;
    in.weight = weight;
    in.eps = m.shape.rms_eps;
    kernels::gemv(jobs.begin(), n, in, swiglu, true, stream);
  }

  // x += W · input ⊕ bias, of one row or several.
  void residual(const Tensor& w, const float* bias, const GemvInput& one, const TiledActivations& several,
                uint32_t rows) const {
    const MatmulJob job = {w, bias, s.x, true};
    if (rows == 1) kernels::gemv(&job, 1, one, false, true, stream);
    else kernels::gemm_few_rows(&job, 1, several, rows, nullptr, true, stream);
  }
};

GemvInput given(const Activations& a) {
  GemvInput in;
  in.a = a;
  return in;
}

GemvInput floats(float* x, uint32_t cols) {
  GemvInput in;
  in.kind = Input::kQuantize;
  in.a.cols = cols;
  in.a.x = x;
  return in;
}

}  // namespace

TiledActivations CudaExecutor::tiled(uint32_t buffer, uint32_t rows) const {
  const uint64_t values = tiled_values(shape_), blocks = values / kQuantBlock;
  const uint64_t place = buffer * blocks;
  return {(rows + 7) / 8, tiled_q_.data() + buffer * values, tiled_d_.data() + place, tiled_sum_.data() + place,
          tiled_half_.data() + place};
}

// Rows that are all their sequences' only ones attend with the keys of this step in hand; others find them
// in the cache.
void CudaExecutor::attend_fused(uint32_t layer, const Scratch& s, bool decoding) {
  const StepInput step = carve(input_.data());
  Activations out = {s.attended.cols, s.attended.x};
  if (rows_ == 1) out = s.attended;
  kernels::DecodeAttention a = decode_attention(layer, s.q, out);
  if (rows_ > 1) a.tiled = tiled(0, rows_);
  if (decoding) {
    a.k = s.k;
    a.v = s.v;
    a.rotate = true;
    kernels::attention_decode(a, rows_, true, stream_);
    return;
  }
  kernels::rope_kv(heads_, kv_layer(layer), {s.q, s.k, s.v}, step.slot, step.position, rows_, true, stream_);
  a.row = step.decode_rows;
  if (n_decode_rows_) kernels::attention_decode(a, n_decode_rows_, true, stream_);
  a.row = step.prefill_rows;
  kernels::attention_decode(a, rows_ - n_decode_rows_, true, stream_);
}

void CudaExecutor::launch_fused(const Model& m, const Scratch& s, const uint32_t* logit_rows, uint32_t n_logits,
                                bool decoding, bool recorded) {
  const Products step = {m, s, tiled(0, rows_), tiled(1, rows_), stream_};
  kernels::embed(m.token_embedding, carve(input_.data()).token, rows_, s.x, recorded, stream_);
  for (uint32_t i = 0; i < m.shape.n_layers; ++i) {
    const Layer& l = m.layers[i];
    step.normed({{l.q, l.q_bias, s.q}, {l.k, l.k_bias, s.k}, {l.v, l.v_bias, s.v}}, l.attn_norm, nullptr, rows_);
    attend_fused(i, s, decoding);
    step.residual(l.attn_output, l.attn_output_bias, given(s.attended), step.tiled, rows_);
    step.normed({{l.gate, nullptr, s.gate}, {l.up}}, l.ffn_norm, nullptr, rows_, true);
    step.residual(l.down, l.down_bias, floats(s.gate, s.ffn.cols), step.hidden, rows_);
  }
  if (!n_logits) return;
  const Products last = {m, s, tiled(0, n_logits), {}, stream_};
  last.normed({{m.output, m.output_bias, s.logits}}, m.output_norm, logit_rows, n_logits);
}

void CudaExecutor::prepare(const Model& m, const Scratch& s) {
  const uint32_t most = std::min(kernels::kSmallM, options_.max_batch_tokens);
  while (fused_rows_ < most && fits(m, fused_rows_ + 1)) ++fused_rows_;
  const StepInput in = carve(input_.data());
  for (rows_ = 1; rows_ <= std::min<uint32_t>({kGraphs, fused_rows_, options_.slots}); ++rows_)
    graphs_.push_back(device::Graph::capture(stream_, [&] {
      kernels::begin_step(step_args_.data(), rows_, in.token, in.slot, in.position, step_samples_.data(), stream_);
      launch_fused(m, s, nullptr, rows_, true, true);
      kernels::sample(s.logits, m.output.rows, {}, step_samples_.data(), rows_, sample_sets(), best_.data(),
                      samples_arrived(), sampled_.data(), true, stream_);
    }));
}

// Whether there is such a form for this step; nothing is done if not. If every row is sampled from, the logits may come
// as late as with sample().
bool CudaExecutor::run_fused(const Model& m, const Scratch& s, std::span<const uint32_t> logit_rows) {
  if (rows_ > fused_rows_) return false;  // and their rows were sent: there are no more graphs than fused rows
  const auto n_logits = static_cast<uint32_t>(logit_rows.size());
  bool decoding = tiles_ == 0 && n_logits == rows_;  // then every row samples, in order
  for (uint32_t i = 0; i < n_logits; ++i) decoding = decoding && logit_rows[i] == i;
  if (decoding && is_deferred()) return recorded_ = true;  // launched with its samples
  if (is_deferred()) begin_batch();
  if (decoding) {
    launch_fused(m, s, nullptr, rows_, true);
    return true;
  }
  if (deepest_prefill_ >= kernels::kDecodeShallow) return false;
  launch_fused(m, s, upload_logit_rows(logit_rows), n_logits, tiles_ == 0);
  return true;
}

}  // namespace orcd::gpu
