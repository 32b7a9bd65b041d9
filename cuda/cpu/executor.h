// Steps on the processor: the forward pass as it is written, operation by operation.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "cpu/float_attention.h"
#include "cpu/ops.h"

namespace orcd::cpu {

class CpuExecutor final : public Executor, public Ops {
 public:
  CpuExecutor(const Model& model, const EngineOptions& options, const MemfdKvMemory& memory, Isa isa);

  void* allocate(size_t bytes) override;
  void open(uint32_t, uint32_t) override {}
  void close(uint32_t) override {}
  void release(std::span<const uint32_t> pages) override { kv_.release(pages, poison_); }
  void copy(uint32_t from, uint32_t to) override;
  void sum(std::span<const PageRows> rows) override;
  void check(std::span<const PageRows> rows, std::span<uint8_t> sound) override;
  void settle() override {}
  void begin(const Model&, const Scratch&, const Step&) override {}  // there is nobody else to do the work meanwhile
  void finish(const Model& model, const Scratch& scratch, const Step& step, std::span<Sampled> sampled) override;
  void download(const void* from, size_t bytes, void* to) const override;
  bool resident() const override { return false; }

  // The rows that operations are about from now on.
  void begin(const Rows& rows, const SequenceStore& sequences);
  void embed(const Tensor& table, float scale, float* x) override { cpu::embed(pool_, table, scale, rows_, x); }
  void rmsnorm(const float* x, const uint32_t* gather, uint32_t rows, const float* weight, float eps,
               const Activations& out) override {
    cpu::rmsnorm(pool_, x, gather, rows, weight, eps, out);
  }
  void quantize(const Activations& a, uint32_t rows) override { cpu::quantize(pool_, a, rows); }
  void matmul(std::span<const MatmulArgs> products, const Activations& a, uint32_t rows) override {
    cpu::matmul(pool_, isa_, float_activations_, products, a, rows);
  }
  void rope_kv(uint32_t layer, const AttentionInputs& in) override {
    cpu::rope_kv(pool_, shape_, rotations_[in.kind], rows_, *sequences_, kv_, layer, in);
    if (floats_) floats_->append(rows_, *sequences_, layer, in.k, in.v);
  }
  void attention(uint32_t layer, const AttentionParams& params, const float* q, float* out) override {
    if (floats_) return floats_->attend(rows_, *sequences_, layer, params, q, out);
    cpu::attention(pool_, isa_, shape_, rows_, *sequences_, kv_, layer, params, q, out);
  }
  void glu(Activation activation, const float* gate, const float* up, uint32_t rows, const Activations& out) override {
    cpu::glu(pool_, activation, gate, up, rows, out);
  }
  void mix(const Mixture& m, const Activations& normed, uint32_t rows, float* y) override {
    cpu::mix(pool_, isa_, float_activations_, m, normed, rows, y);
  }
  void add(const float* y, const BranchEnd& end, uint32_t rows, uint32_t cols, float* x) override {
    cpu::add(pool_, y, end, rows, cols, x);
  }
  void finish_logits(float scale, float cap, uint32_t rows, uint32_t vocab, float* l) override {
    cpu::finish_logits(pool_, scale, cap, rows, vocab, l);
  }
  void sample(const float* logits /* (samples, vocab) */, uint32_t vocab, std::span<const PlacedSample> samples,
              std::span<Sampled> sampled /* (samples) */);

 private:
  struct Free {
    void operator()(void* p) const;
  };

  ModelShape shape_;
  Isa isa_;
  bool float_activations_, poison_;
  Pool pool_;
  KvCache kv_;
  std::unique_ptr<FloatAttention> floats_;  // with float_activations
  std::array<Rotation, 2> rotations_;       // of each kind of layer
  Rows rows_;
  const SequenceStore* sequences_ = nullptr;  // of the present step
  std::vector<std::unique_ptr<void, Free>> memory_;
  std::vector<SampleScratch> sample_scratch_;  // (samples of a step)
};

}  // namespace orcd::cpu
