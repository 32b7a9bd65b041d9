// The CPU backend's operations. Each is a plain function in the file of its name; CpuOps hands them what
// they need and owns what outlives a call.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "cpu/kernels.h"
#include "cpu/pool.h"
#include "cpu/sequences.h"
#include "engine/model.h"
#include "ops/ops.h"

namespace orcd::cpu {

// Instruction sets there are kernels for.
enum class Isa { kPortable, kAvx2, kAvx512 };

Isa best_isa();  // that this processor has
const char* isa_name(Isa isa);
Kernels kernels(Isa isa);

// Calls f(first, end) for pieces of 0 .. n, shared between the threads when the whole takes long enough.
// `nanoseconds`: a guess at the time for one of the n on one thread.
template <class F>
void share(Pool& pool, uint32_t n, double nanoseconds, const F& f) {
  constexpr double kWorthSharing = 4000, kPiece = 2000;  // ns; waking a spinning thread takes some hundred
  const double total = n * nanoseconds;
  const double most = 4.0 * pool.threads();
  const double wanted = total < kWorthSharing ? 1 : total / kPiece;
  const uint32_t pieces = static_cast<uint32_t>(wanted > most ? most : wanted);
  const uint32_t count = pieces < 1 ? 1 : pieces > n ? n : pieces;
  pool.run(count, [&](uint32_t i) {
    const auto first = static_cast<uint32_t>(uint64_t{n} * i / count);
    const auto end = static_cast<uint32_t>(uint64_t{n} * (i + 1) / count);
    if (first < end) f(first, end);
  });
}

// Cosines and sines of a step's rows.
struct Rotation {
  uint32_t pairs = 0;            // head_dim / 2
  RopeStyle style = RopeStyle::kNeox;
  std::vector<double> frequency; // (pairs) radians per position
  std::vector<float> cos, sin;   // (rows, pairs)
};

// Tokens in the running for a draw, ascending by id.
struct Candidates {
  std::vector<uint32_t> id;     // (n)
  std::vector<float> t;         // (n) logit over temperature
  std::vector<float> weight;    // (n)
  std::vector<uint32_t> place;  // indices into the above
};

struct SampleScratch {
  std::vector<float> t;  // (vocab)
  Candidates candidates;
};

void embed(Pool&, const Tensor& table, const Rows& rows, float* x /* (rows, table.cols) */);
void rmsnorm(Pool&, const float* x /* (*, out.cols) */, const uint32_t* pick /* (rows) or null */, uint32_t rows,
             const float* weight /* (out.cols) */, float eps, const Activations& out);
void quantise(Pool&, const Activations& a, uint32_t rows);
void quantise_row(const Activations& a, uint32_t row);
void matmul(Pool&, Isa, bool float_activations, std::span<const Product> products, const Activations& a, uint32_t rows);
// Products of rows `first` .. `end` of a weight matrix, with float activations.
void matmul_float(const Product& p, const float* x /* (rows, w.cols) */, uint32_t rows, uint32_t first, uint32_t end);
// One row of W, as in the file, times one row of activations: the contract's chain, written plainly.
float reference_dot(TensorType type, const uint8_t* raw, const Activations& a, uint64_t row);
void rotation_frequencies(Rotation& r, double base, const float* factors /* (pairs) or null */);
void rotation_rows(Rotation& r, const Rows& rows);
void rope_kv(Pool&, const ModelShape&, const Rotation&, const Rows&, Sequences&, uint32_t layer,
             const AttentionInputs&);
void attention(Pool&, Isa, const ModelShape&, const Rows&, const Sequences&, uint32_t layer,
               const float* q /* (rows, n_heads * head_dim) */, float* out /* (rows, n_heads * head_dim) */);
void swiglu(Pool&, const float* gate /* (rows, out.cols) */, const float* up /* (rows, out.cols) */, uint32_t rows,
            const Activations& out);
uint32_t sample(const float* logits /* (vocab) */, uint32_t vocab, std::span<const uint64_t> seen,
                const PlacedDraw& draw, SampleScratch& scratch);

class CpuOps final : public Ops {
 public:
  CpuOps(const Model& model, const EngineOptions& options, Isa isa);

  void* allocate(size_t bytes) override;
  void open_slot(uint32_t slot) override { sequences_.open(slot); }
  void close_slot(uint32_t slot) override { sequences_.close(slot); }
  void begin(const Rows& rows) override;
  void embed(const Tensor& table, float* x) override { cpu::embed(pool_, table, rows_, x); }
  void rmsnorm(const float* x, const uint32_t* pick, uint32_t rows, const float* weight, float eps,
               const Activations& out) override {
    cpu::rmsnorm(pool_, x, pick, rows, weight, eps, out);
  }
  void quantise(const Activations& a, uint32_t rows) override { cpu::quantise(pool_, a, rows); }
  void matmul(std::span<const Product> products, const Activations& a, uint32_t rows) override {
    cpu::matmul(pool_, isa_, float_activations_, products, a, rows);
  }
  void rope_kv(uint32_t layer, const AttentionInputs& in) override {
    cpu::rope_kv(pool_, shape_, rotation_, rows_, sequences_, layer, in);
  }
  void attention(uint32_t layer, const float* q, float* out) override {
    cpu::attention(pool_, isa_, shape_, rows_, sequences_, layer, q, out);
  }
  void swiglu(const float* gate, const float* up, uint32_t rows, const Activations& out) override {
    cpu::swiglu(pool_, gate, up, rows, out);
  }
  void sample(const float* logits, uint32_t vocab, std::span<const PlacedDraw> draws, uint32_t* drawn) override;
  void finish() override {}
  void download(const void* from, size_t bytes, void* to) override;
  bool resident() const override { return false; }

 private:
  ModelShape shape_;
  Isa isa_;
  bool float_activations_;
  Pool pool_;
  Sequences sequences_;
  Rotation rotation_;
  Rows rows_;
  struct Free {
    void operator()(void* p) const;
  };
  std::vector<std::unique_ptr<void, Free>> memory_;
  std::vector<SampleScratch> sample_scratch_;  // (draws of a step)
};

}  // namespace orcd::cpu
