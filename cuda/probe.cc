#include "probe.h"

#include <algorithm>
#include <atomic>
#include <numeric>
#include <string>
#include <vector>

#include "arith/by_127.h"
#include "arith/exp2.h"
#include "arith/gumbel.h"
#include "arith/tanh.h"
#include "bridge.h"
#include "cpu/ops.h"
#include "cpu/pack.h"
#include "cuda-worker/src/ffi.rs.h"
#include "engine/layout_version.h"
#include "engine/scratch.h"
#include "formats/formats.h"
#include "ops/partials.h"
#include "ops/tiles.h"

namespace orcd::probe {
namespace {

// Activations and their memory.
struct Inputs {
  explicit Inputs(uint32_t rows, uint32_t cols) : blocks(uint64_t{rows} * cols), supers(blocks.q.size()) {
    a.cols = cols;
    if (cols % kQuantBlock == 0) a.blocks = blocks.view();
    if (cols % kSuperBlock == 0) a.supers = supers.view();
  }
  struct Memory {
    explicit Memory(uint64_t values) : q(values), d(values / 32), sum(values / 32), shifts(values / 256) {}
    Quantized view() { return {q.data(), d.data(), sum.data(), shifts.data()}; }
    std::vector<int8_t> q;
    std::vector<float> d;
    std::vector<int32_t> sum;
    std::vector<uint32_t> shifts;
  };
  Memory blocks, supers;
  Activations a;
};

// The pieces of scratch, whose sizes follow from their shapes here once more.
class Pieces {
 public:
  Pieces(const void* base, rust::Vec<Piece>& to) : base_(static_cast<const uint8_t*>(base)), to_(to) {}

  void set_use(Use use) { use_ = use; }

  template <class T>
  void add(const T* at, uint64_t count) {
    if (!at || count == 0) return;
    const uint64_t begin = reinterpret_cast<const uint8_t*>(at) - base_;
    to_.push_back({use_, begin, begin + count * sizeof(T)});
  }
  void add(const Quantized& q, uint64_t rows, uint64_t cols, uint64_t width) {
    if (!q.q) return;
    add(q.q, rows * cols);
    add(q.d, rows * cols / width);
    add(q.sum, rows * cols / kQuantBlock);
    if (q.shifts) add(q.shifts, rows * cols / width);
    if (q.tiles) add(q.tiles, tiles_bytes(rows, static_cast<uint32_t>(cols)));
  }
  // But for the floats.
  void add_quantized(const Activations& a, uint64_t rows) {
    add(a.blocks, rows, a.cols, kQuantBlock);
    add(a.supers, rows, a.cols, kSuperBlock);
  }
  void add(const Activations& a, uint64_t rows) {
    add(a.x, rows * a.cols);
    add_quantized(a, rows);
  }

 private:
  const uint8_t* base_;
  rust::Vec<Piece>& to_;
  Use use_ = Use::Always;
};

float apply(const std::string& name, float x) {
  if (name == "exp2") return arith::exp2(x);
  if (name == "by_127") return arith::by_127(x);
  if (name == "log") return arith::log(x);
  if (name == "sigmoid") return arith::sigmoid(x);
  if (name == "tanh") return arith::tanh(x);
  if (name == "gelu") return arith::gelu(x);
  if (name == "soft_cap_30") return arith::soft_cap(x, 30.0f, 1.0f / 30.0f);
  if (name == "gumbel") return arith::gumbel(arith::bits_of(x));
  throw Error(ErrorKind::kInvalid, "no function " + name);
}

}  // namespace

bool has_form(uint32_t form) {
  return form == uint32_t(Form::kPortable) || form > uint32_t(Form::kAvx512) || form <= uint32_t(cpu::best_isa());
}

void product(uint32_t form, uint32_t type_id, uint32_t rows, uint32_t cols, rust::Slice<const uint8_t> raw,
             rust::Slice<const float> x, bool add, uint32_t threads, rust::Slice<float> y) {
  const auto type = static_cast<TensorType>(type_id);
  const uint64_t row_bytes = formats::row_bytes(type, cols);
  const auto n = static_cast<uint32_t>(x.size() / cols);
  std::vector<float> copy(x.begin(), x.end());
  Inputs in(n, cols);
  in.a.x = copy.data();
  cpu::Pool pool(threads);
  cpu::quantize(pool, in.a, n);
  if (form == uint32_t(Form::kReference)) {
    for (uint64_t r = 0; r < n; ++r) {
      for (uint64_t i = 0; i < rows; ++i) {
        const float value = cpu::reference_dot(type, raw.data() + i * row_bytes, in.a, r);
        y[r * rows + i] = add ? y[r * rows + i] + value : value;
      }
    }
    return;
  }
  std::vector<uint8_t> packed(rows * row_bytes);
  for (uint64_t i = 0; i < rows; ++i) cpu::pack_row(type, rows, cols, i, raw.data() + i * row_bytes, packed.data());
  const MatmulArgs p[] = {{{type, rows, cols, packed.data()}, y.data(), add}};
  const bool floats = form == uint32_t(Form::kFloatActivations);
  cpu::matmul(pool, floats ? cpu::Isa::kPortable : static_cast<cpu::Isa>(form), floats, p, in.a, n);
}

void dequantize(uint32_t type, rust::Slice<const uint8_t> raw, rust::Slice<float> out) {
  formats::dequantize(static_cast<TensorType>(type), raw.data(), 0, static_cast<uint32_t>(out.size()), out.data());
}

void quantize(bool supers, rust::Slice<const float> x, rust::Slice<int8_t> q, rust::Slice<float> d,
              rust::Slice<int32_t> sum, rust::Slice<uint32_t> shifts) {
  std::vector<float> copy(x.begin(), x.end());
  Activations a;
  a.cols = static_cast<uint32_t>(x.size());
  a.x = copy.data();
  (supers ? a.supers : a.blocks) = {q.data(), d.data(), sum.data(), shifts.data()};
  cpu::quantize_row(a, 0);
}

void rmsnorm(rust::Slice<const float> x, rust::Slice<const float> weight, float eps, rust::Slice<float> out) {
  Activations a;
  a.cols = static_cast<uint32_t>(x.size());
  a.x = out.data();
  cpu::Pool pool(1);
  cpu::rmsnorm(pool, x.data(), nullptr, 1, weight.data(), eps, a);
}

void glu(bool gelu, rust::Slice<const float> gate, rust::Slice<const float> up, rust::Slice<float> out) {
  Activations a;
  a.cols = static_cast<uint32_t>(gate.size());
  a.x = out.data();
  cpu::Pool pool(1);
  cpu::glu(pool, gelu ? Activation::kGeGlu : Activation::kSwiGlu, gate.data(), up.data(), 1, a);
}

void function(rust::Str name, rust::Slice<const float> x, rust::Slice<float> y) {
  const std::string which(name);
  for (size_t i = 0; i < x.size(); ++i) y[i] = apply(which, x[i]);
}

void to_f16(rust::Slice<const float> x, rust::Slice<uint16_t> y) {
  for (size_t i = 0; i < x.size(); ++i) y[i] = arith::f32_to_f16(x[i]);
}

float from_f16(uint16_t h) { return arith::f16_to_f32(h); }

void attend(uint32_t form, uint32_t n_heads, uint32_t n_kv_heads, uint32_t head_dim, bool interleaved, double rope_base,
            rust::Slice<const float> freq_factors, uint32_t window, float soft_cap, rust::Slice<const float> sinks,
            uint32_t first, rust::Slice<float> q, rust::Slice<float> k, rust::Slice<float> v, rust::Slice<float> out) {
  const auto n = static_cast<uint32_t>(q.size() / (n_heads * head_dim));
  ModelShape shape{};
  shape.n_layers = 1;
  shape.n_heads = n_heads, shape.n_kv_heads = n_kv_heads, shape.head_dim = head_dim;
  RopeSpec rope{};
  rope.pairs = head_dim / 2;
  rope.style = interleaved ? RopeStyle::kInterleaved : RopeStyle::kNeox;
  rope.base = rope_base;
  rope.attn_factor = 1;
  EngineOptions one{};
  one.slots = 1;
  one.context = n;
  SequenceStore sequences(one);
  const uint32_t pages = SequenceStore::total_pages(one);
  const auto memory = cpu::MemfdKvMemory::allocate(cpu::KvCache::bytes(shape, pages));
  cpu::KvCache kv(shape, pages, *memory);
  std::vector<uint32_t> all(pages);
  std::iota(all.begin(), all.end(), 0);
  kv.release(all, true);
  cpu::Rotation rotation(rope, freq_factors.empty() ? nullptr : freq_factors.data(), nullptr);
  std::vector<uint32_t> zeros(n), positions(n);
  for (uint32_t p = 0; p < n; ++p) positions[p] = p;
  const Rows rows{n, zeros.data(), zeros.data(), positions.data()};
  sequences.open(0, n, {}, {});
  sequences.grow(0, all);
  sequences.append(0, zeros);
  cpu::rotation_rows(rotation, rows, sequences);
  cpu::Pool pool(2);
  const auto isa = static_cast<cpu::Isa>(form);
  AttentionInputs in;
  in.q = q.data(), in.k = k.data(), in.v = v.data();
  cpu::rope_kv(pool, shape, rotation, rows, sequences, kv, 0, in);
  const AttentionParams params = {window, soft_cap, sinks.empty() ? nullptr : sinks.data()};
  const Rows attended{n - first, zeros.data(), zeros.data(), positions.data() + first};
  const uint64_t at = uint64_t{first} * n_heads * head_dim;
  cpu::attention(pool, isa, shape, attended, sequences, kv, 0, params, q.data() + at, out.data() + at);
}

uint32_t throwing_chunks(uint32_t threads, uint32_t chunks, uint32_t bad) {
  cpu::Pool pool(threads);
  std::atomic<uint32_t> ran{0};
  std::string thrown;
  try {
    pool.run(chunks, [&](uint32_t i) {
      if (i >= bad) throw Error(ErrorKind::kOutOfMemory, "a chunk has thrown");
    });
  } catch (const Error& e) {
    thrown = e.what();
  }
  pool.run(chunks, [&](uint32_t) { ran += 1; });
  if (!thrown.empty()) throw Error(ErrorKind::kOutOfMemory, thrown + ", and " + std::to_string(ran) + " ran after it");
  return ran;
}

uint64_t scratch(const Widths& widths, uint32_t rows, uint32_t samples, uint32_t backend_id, rust::Vec<Piece>& pieces) {
  ModelShape shape = {};
  shape.d_model = widths.d_model, shape.d_ff = widths.d_ff, shape.vocab = widths.vocab;
  shape.n_heads = widths.n_heads, shape.n_kv_heads = widths.n_kv_heads, shape.head_dim = widths.head_dim;
  shape.n_experts = widths.n_experts, shape.n_experts_used = widths.n_experts_used;
  const auto backend = static_cast<ScratchOf>(backend_id);
  const uint64_t bytes = scratch_bytes(shape, rows, samples, backend);
  std::vector<uint8_t> memory(bytes);
  const Scratch s = carve_scratch(shape, rows, samples, backend, memory.data());
  Pieces p(memory.data(), pieces);
  p.add(s.x, uint64_t{rows} * shape.d_model);
  p.add(s.normed, std::max(rows, samples));
  p.set_use(Use::Attention);
  p.add(s.q, uint64_t{rows} * shape.n_heads * shape.head_dim);
  p.add(s.k, uint64_t{rows} * shape.n_kv_heads * shape.head_dim);
  p.add(s.v, uint64_t{rows} * shape.n_kv_heads * shape.head_dim);
  p.add(s.attended, rows);
  p.set_use(Use::FeedForward);
  const uint64_t places = uint64_t{s.ffn_rows} * std::max(1u, shape.n_experts_used);
  p.add(s.gate, places * shape.d_ff);
  p.add(s.up, places * shape.d_ff);
  if (s.ffn.x != s.gate) p.add(s.ffn.x, places * shape.d_ff);
  p.add_quantized(s.ffn, places);
  if (shape.n_experts) {
    const Mixture& m = s.mixture;
    p.add(s.router, uint64_t{rows} * shape.n_experts);
    p.add(m.expert, places), p.add(m.place, places), p.add(m.row, places), p.add(m.weight, places);
    p.add(m.end, shape.n_experts);
    p.add(m.tiles, most_tiles(places, shape.n_experts));
    if (m.input.x) p.add(m.input, places);
    p.add(m.given, places * shape.d_model);
  }
  p.set_use(Use::Logits);
  p.add(s.logits, uint64_t{samples} * shape.vocab);
  return bytes;
}

uint32_t feed_forward_group(uint32_t rows, uint32_t most) { return orcd::feed_forward_group(rows, most); }

rust::Vec<uint32_t> place_partials(rust::Slice<const uint32_t> positions, rust::Slice<const uint32_t> rows,
                                   uint64_t room_runs, uint32_t room_rows, rust::Slice<uint32_t> place) {
  const auto count = static_cast<uint32_t>(rows.empty() ? positions.size() : rows.size());
  std::vector<uint32_t> launches;
  orcd::place_partials(positions.data(), rows.empty() ? nullptr : rows.data(), count, {room_runs, room_rows},
                       place.data(), launches);
  rust::Vec<uint32_t> out;
  for (const uint32_t n : launches) out.push_back(n);
  return out;
}

uint64_t golden_hash(uint32_t type) { return golden_hashes(static_cast<TensorType>(type)).tile; }

uint32_t draw(rust::Slice<const float> logits, rust::Slice<const uint32_t> before, uint32_t output_start,
              rust::Slice<const uint32_t> mask, rust::Slice<const uint32_t> biased, rust::Slice<const float> biases,
              uint32_t position, const Sampling& sampling) {
  cpu::SampleScratch scratch;
  const auto vocab = static_cast<uint32_t>(logits.size());
  const uint32_t* masked = mask.empty() ? nullptr : mask.data();
  std::vector<TokenBias> added;
  for (size_t i = 0; i < biased.size(); ++i) added.push_back({biased[i], biases[i]});
  const PlacedSample draw = {0, position, masked, false, 0, sampling, output_start, added};
  return cpu::sample(logits.data(), vocab, {before.data(), before.size()}, draw, scratch);
}

void logprobs(rust::Slice<const float> logits, uint32_t token, rust::Slice<uint32_t> top, rust::Slice<float> logprobs) {
  std::vector<uint32_t> order;
  Sampled out = {};
  out.token = token;
  const PlacedSample draw = {0, 0, nullptr, true, static_cast<uint32_t>(top.size()), {}};
  cpu::logprobs(logits.data(), static_cast<uint32_t>(logits.size()), draw, order, out);
  logprobs[0] = out.logprob;
  for (size_t i = 0; i < top.size(); ++i) top[i] = out.top[i].token, logprobs[1 + i] = out.top[i].logprob;
}

}  // namespace orcd::probe
