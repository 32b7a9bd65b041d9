// Steps of few rows as a chain of fused kernels, each of which fetches its weights before its predecessor
// has ended (programmatic dependent launch): five a layer for one row, eight and more for many. Same operations in
// the same order as forward.cc, so the same bits. Steps that decode some sequences run as graphs, recorded
// once, from fetching their rows to drawing their tokens, but for samples with top-k, top-p or min-p.
#include <algorithm>
#include <initializer_list>
#include <optional>
#include <utility>

#include "engine/forward.h"
#include "gpu/executor.h"

namespace orcd::gpu {
namespace {

using kernels::GemvInput;
using kernels::Input;
using kernels::MatmulJob;

// Steps of up to so many rows may be prompts, or have such: more do better with the attention of long ones.
constexpr uint32_t kMostPrefilled = 64;

static_assert(kernels::kSmallM <= kFeedForwardRows, "feed-forward parts take all rows at once here");

// Steps of decoding up to so many sequences are recorded while the model is loaded: one stream is to be fast from its
// first token on.
constexpr uint32_t kEarlyGraphs = 32;
// Others are when they come again and again, at most so many: each takes a few milliseconds, and some memory that
// the device's driver finds for itself.
constexpr uint32_t kLateGraphs = 64;
constexpr uint32_t kUsesToRecord = 8;

bool fits(std::initializer_list<Tensor> weights, bool gated = false) {
  TensorType types[3];
  uint32_t n = 0;
  for (const Tensor& w : weights) {
    if (!formats::is_quantized(w.type)) return false;
    types[n++] = w.type;
  }
  return kernels::gemv_fits(types, n, weights.begin()->cols, gated);
}

// Whether one row can be fused; more can then, too.
bool fits(const Model& m) {
  for (const Layer& l : m.layers) {
    if (!fits({l.q, l.k, l.v}) || !fits({l.attn_output})) return false;
    if (l.router) continue;
    // Gated products take no biases: few models have them, and those run operation by operation.
    if (l.gate_bias || l.up_bias || !fits({l.gate, l.up}, true) || !fits({l.down})) return false;
  }
  return fits({m.output});
}

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

// So many rows are few for this model: gemv reads all weights for each of them, from the second on out of the L2 cache,
// but takes half the kernels.
uint32_t few_rows(const Model& m) {
  constexpr uint64_t kMostBytes = uint64_t{48} << 20;  // that all rows read of a layer: fewer bytes than latencies
  constexpr uint32_t kMost = 4;
  uint64_t most = 1;
  for (const Layer& l : m.layers) {
    uint64_t bytes = 0;
    for (const Tensor& w : {l.q, l.k, l.v, l.attn_output, l.gate, l.up, l.down})
      if (!l.router || w.rows <= m.shape.d_model + m.q_width()) bytes += w.rows * formats::row_bytes(w.type, w.cols);
    most = std::max(most, bytes);
  }
  return std::clamp<uint32_t>(uint32_t(kMostBytes / most), 1, kMost);
}

GemvInput normed_input(const float* x, const float* weight, const uint32_t* gather, float eps, uint32_t cols) {
  GemvInput in;
  in.kind = Input::kNorm;
  in.a.cols = cols;
  in.x = x;
  in.gather = gather;
  in.weight = weight;
  in.eps = eps;
  return in;
}

// Whether few rows of this model are a small batch in all products of its layers.
bool has_small_batches(const Model& m, const Scratch& s) {
  // Rows of more values are normalized once, rather than by every thread block.
  constexpr uint32_t kMostNormed = 1024;
  if (m.shape.d_model > kMostNormed || m.shape.n_experts) return false;
  const auto fits = [&](std::initializer_list<Tensor> weights, Input kind, const Activations& hidden) {
    std::vector<MatmulJob> jobs;
    for (const Tensor& w : weights) jobs.push_back({w});
    GemvInput in;
    in.kind = kind;
    return kernels::small_batch_fits({jobs, in, kernels::kSmallRows, hidden});
  };
  for (const Layer& l : m.layers)
    if (!fits({l.q, l.k, l.v}, Input::kNorm, {}) || !fits({l.attn_output}, Input::kGiven, {}) ||
        !fits({l.gate, l.up}, Input::kNorm, read_by({l.down}, s.ffn)) || !fits({l.down}, Input::kGiven, {}))
      return false;
  return true;
}

// The products of a step, all in one stream. Few rows by gemv, which normalizes, quantizes and gates for
// itself; a small batch by kernels that do so too; more by matmul, with kernels between that do so.
struct Products {
  const Model& m;
  const Scratch& s;
  uint32_t few;
  bool small;
  uint32_t* arrived;
  cudaStream_t stream;

  // y = W · RMSNorm(x[gather[r]]) for r < rows.
  void normed(std::initializer_list<MatmulJob> jobs, const float* weight, const uint32_t* gather, uint32_t rows) const {
    if (rows <= few) return normed_few(jobs, weight, gather, rows, {});
    if (small) return kernels::small_batch({{jobs.begin(), jobs.size()}, input(weight, gather), rows}, stream);
    MatmulArgs products[3];
    Tensor weights[3];
    uint32_t n = 0;
    for (const MatmulJob& j : jobs) weights[n] = j.w, products[n++] = {j.w, j.y, j.add, j.bias};
    const Activations normed = read_by(std::span<const Tensor>(weights, n), s.normed);
    kernels::rmsnorm(s.x, gather, rows, weight, m.shape.rms_eps, normed, stream);
    kernels::matmul(products, n, normed, rows, stream);
  }

  // x += W · what gate · RMSNorm(x) and up · RMSNorm(x) become ⊕ bias.
  void feed_forward(const Layer& l, uint32_t rows) const {
    const MatmulJob gate = {l.gate, nullptr, s.gate}, up = {l.up, nullptr, s.up};
    const Activations hidden = read_by({l.down}, s.ffn);
    if (rows <= few) {
      normed_few({gate, up}, l.ffn_norm, nullptr, rows, m.shape.activation);
    } else if (small) {
      Activations out = hidden;
      out.x = s.gate, out.supers.tiles = nullptr;
      const MatmulJob both[] = {gate, up};
      kernels::small_batch({both, input(l.ffn_norm, nullptr), rows, out, arrived, m.shape.activation}, stream);
    } else {
      normed({gate, up}, l.ffn_norm, nullptr, rows);
      kernels::glu(m.shape.activation, s.gate, s.up, rows, hidden, stream);
    }
    residual(l.down, l.down_bias, l.post_ffn_norm, floats(s.gate, s.ffn.cols), hidden, rows);
  }

  // x += what the experts give of RMSNorm(x).
  void experts(const Layer& l, uint32_t rows) const {
    const Mixture mixture = mixture_of(l, m, s);
    Activations normed = read_by({l.gate, l.up}, s.normed);
    normed.supers.tiles = nullptr;
    if (rows <= kernels::kMostRouted) {
      const kernels::Router router = {s.x,           l.ffn_norm, m.shape.rms_eps, l.router,
                                      l.router_bias, s.router,   normed,          arrived};
      kernels::route_few(router, mixture, rows, stream);
    } else {
      normed.floats = true;
      kernels::rmsnorm(s.x, nullptr, rows, l.ffn_norm, m.shape.rms_eps, normed, stream);
      kernels::matmul_float({l.router, s.router, false, l.router_bias}, normed, rows, stream);
      kernels::route(mixture, rows, stream);
    }
    const bool plain = !l.post_ffn_norm;
    kernels::mix(mixture, normed, rows, {plain ? s.x : s.branch, plain, m.shape.residual_scale}, stream);
    if (!plain) end_branch(l.post_ffn_norm, rows);
  }

  // x += W · input ⊕ bias, or what `norm` makes of it: of few rows `input_of_few`, of more `input`.
  void residual(const Tensor& w, const float* bias, const float* norm, const GemvInput& input_of_few,
                const Activations& input, uint32_t rows) const {
    const bool changes = m.changes_branches();
    float* y = changes ? s.branch : s.x;
    const MatmulJob job = {w, bias, y, !changes};
    const MatmulArgs product = {w, y, !changes, bias};
    if (rows <= few) kernels::gemv(&job, 1, input_of_few, rows, {}, true, stream);
    else if (small) kernels::small_batch({{&job, 1}, given(input), rows}, stream);
    else kernels::matmul(&product, 1, input, rows, stream);
    if (changes) end_branch(norm, rows);
  }

 private:
  void end_branch(const float* norm, uint32_t rows) const {
    kernels::add(s.branch, {norm, m.shape.rms_eps, m.shape.residual_scale}, rows, m.shape.d_model, s.x, stream);
  }

  void normed_few(std::initializer_list<MatmulJob> jobs, const float* weight, const uint32_t* gather, uint32_t rows,
                  std::optional<Activation> gated) const {
    kernels::gemv(jobs.begin(), static_cast<uint32_t>(jobs.size()), input(weight, gather), rows, gated, true, stream);
  }

  GemvInput input(const float* weight, const uint32_t* gather) const {
    return normed_input(s.x, weight, gather, m.shape.rms_eps, m.shape.d_model);
  }
};

}  // namespace

// Rows that are all their sequences' only ones attend with the keys of this step in hand; others find them
// in the cache.
void CudaExecutor::attend_fused(uint32_t layer, const Layer& l, const Scratch& s, const Activations& out,
                                bool decoding) {
  const StepInput step = carve(input_.data());
  kernels::DecodeAttention a = decode_attention(layer, l.attention, s.q, out);
  if (decoding && rotates_plainly(l)) {
    a.k = s.k;
    a.v = s.v;
    a.rotate = true;
    a.q_norm = l.q_norm, a.k_norm = l.k_norm, a.eps = shape_.rms_eps;
    a.heads.rope = rotation(l.kind).table;
    attend_rows(a, nullptr, true);
  } else {
    AttentionInputs in = {s.q, s.k, s.v};
    in.q_norm = l.q_norm, in.k_norm = l.k_norm, in.kind = l.kind;
    rope_kv(layer, in);
    if (decoding) attend_rows(a, nullptr, true);
  }
  if (!decoding) {
    attend_rows(a, step.decode_rows, true);
    // Shallow ones, or run_fused() had refused the step: no number of them is too many.
    a.row = step.prefill_rows;
    kernels::attention_decode(a, rows_ - n_decode_rows_, true, stream_);
  }
  if (rows_ > few_rows_ && !is_filled(out)) kernels::quantize(out, rows_, stream_);
}

// Whether attention can rotate a layer's queries and keys itself.
bool CudaExecutor::rotates_plainly(const Layer& l) const {
  const kernels::Rotation r = rotation(l.kind);
  return r.pairs == shape_.head_dim / 2 && !r.first && !r.query_scale;
}

// Whether attention leaves its results quantized. Super-blocks are of several heads, and so of several thread blocks, as
// blocks are of some widths of a head: of few rows, these are quantized by who reads them.
bool CudaExecutor::is_filled(const Activations& attended) const {
  return !attended.supers.q && kernels::decode_fills_blocks(shape_.head_dim);
}

void CudaExecutor::launch_fused(const Model& m, const Scratch& s, const uint32_t* logit_rows, uint32_t n_logits,
                                bool decoding, bool recorded) {
  const bool small = small_batches_ && rows_ > few_rows_ && rows_ <= kernels::kSmallRows;
  const Products step = {m, s, few_rows_, small, hidden_arrived_.data(), stream_};
  kernels::embed(m.token_embedding, carve(input_.data()).token, rows_, m.shape.embedding_scale, s.x, recorded, stream_);
  for (uint32_t i = 0; i < m.shape.n_layers; ++i) {
    const Layer& l = m.layers[i];
    step.normed({{l.q, l.q_bias, s.q}, {l.k, l.k_bias, s.k}, {l.v, l.v_bias, s.v}}, l.attn_norm, nullptr, rows_);
    const Activations attended = read_by({l.attn_output}, s.attended);
    attend_fused(i, l, s, attended, decoding);
    step.residual(l.attn_output, l.attn_output_bias, l.post_attn_norm,
                  is_filled(attended) ? given(s.attended) : floats(s.attended.x, s.attended.cols), attended, rows_);
    if (l.router) step.experts(l, rows_);
    else step.feed_forward(l, rows_);
  }
  if (!n_logits) return;
  const Products last = {m, s, 1, false, nullptr, stream_};  // of so many weights that no two rows are few
  last.normed({{m.output, m.output_bias, s.logits}}, m.output_norm, logit_rows, n_logits);
  if (m.finishes_logits())
    kernels::finish_logits(m.shape.logit_scale, m.shape.logit_soft_cap, n_logits, m.output.rows, s.logits, stream_);
}

device::Graph CudaExecutor::record(const Model& m, const Scratch& s, bool draws) {
  attend_launches_ = {rows_};
  return device::Graph::capture(stream_, [&] {
    kernels::begin_step(step_args_.data(), rows_, row_places(), step_samples_.data(), stream_);
    launch_fused(m, s, nullptr, rows_, true, true);
    if (!draws) return;
    kernels::sample(s.logits, m.output.rows, {}, step_samples_.data(), rows_, sample_sets(), best_.data(),
                    samples_arrived(), sampled_.data(), true, stream_);
  });
}

void CudaExecutor::prepare(const Model& m, const Scratch& s) {
  kernels::load_page_kernels();
  kernels::load_filter_kernels();
  if (fits(m)) fused_rows_ = std::min(kernels::kSmallM, options_.max_batch_tokens);
  few_rows_ = few_rows(m);
  small_batches_ = has_small_batches(m, s);
  recordings_.resize(fused_rows_);
  may_record_ = kLateGraphs;
  for (rows_ = 1; rows_ <= std::min({kEarlyGraphs, fused_rows_, options_.slots}); ++rows_) {
    recordings_[rows_ - 1].whole = record(m, s, true);
    recordings_[rows_ - 1].whole.upload(stream_);
  }
}

// Whether every row is alone in its run and draws.
bool CudaExecutor::is_decoding(std::span<const uint32_t> logit_rows) const {
  if (tiles_ || logit_rows.size() != rows_) return false;
  for (uint32_t i = 0; i < rows_; ++i)
    if (logit_rows[i] != i) return false;
  return true;
}

// The graph that is this step, without its draws if these wait for masks; null if it is none. One that is missing is
// recorded when steps like it have come a few times.
const device::Graph* CudaExecutor::recorded(const Model& m, const Scratch& s, const Step& step) {
  // In a graph all rows attend in one launch.
  if (rows_ > fused_rows_ || attend_launches_.size() != 1 || !is_decoding(step.logit_rows)) return nullptr;
  Recording& recording = recordings_[rows_ - 1];
  device::Graph& graph = step.masked ? recording.forward : recording.whole;
  if (graph) return &graph;
  if (may_record_ == 0 || ++recording.uses < kUsesToRecord) return nullptr;
  --may_record_;
  try {
    device::Graph recorded = record(m, s, !step.masked);
    recorded.upload(stream_);
    graph = std::move(recorded);
  } catch (const Error& e) {
    if (e.kind != ErrorKind::kOutOfMemory) throw;
    may_record_ = 0;  // it goes without
    return nullptr;
  }
  return &graph;
}

// Whether there is such a form for this step; nothing is done if not.
bool CudaExecutor::run_fused(const Model& m, const Scratch& s, std::span<const uint32_t> logit_rows) {
  if (rows_ > fused_rows_) return false;
  if (is_decoding(logit_rows)) {
    launch_fused(m, s, nullptr, rows_, true);
    return true;
  }
  if (deepest_prefill_ >= kernels::kDecodeShallow || (tiles_ && rows_ > kMostPrefilled)) return false;
  launch_fused(m, s, upload_logit_rows(logit_rows), static_cast<uint32_t>(logit_rows.size()), tiles_ == 0);
  return true;
}

}  // namespace orcd::gpu
