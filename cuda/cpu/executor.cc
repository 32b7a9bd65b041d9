#include "cpu/executor.h"

#include <cstdlib>
#include <cstring>
#include <string>

#include "engine/forward.h"

namespace orcd::cpu {

namespace {

Rotation rotation(const Model& m, uint32_t kind) {
  const bool divisors = m.has_divisors(kind);
  return Rotation(m.shape.kinds[kind].rope, divisors ? m.rope_freqs : nullptr, divisors ? m.long_rope_freqs : nullptr);
}

}  // namespace

void CpuExecutor::Free::operator()(void* p) const { std::free(p); }

CpuExecutor::CpuExecutor(const Model& model, const EngineOptions& options, const MemfdKvMemory& memory, Isa isa)
    : shape_(model.shape),
      isa_(isa),
      float_activations_(options.float_activations),
      poison_(options.poison),
      pool_(options.threads),
      kv_(model.shape, SequenceStore::total_pages(options), memory),
      floats_(options.float_activations
                  ? std::make_unique<FloatAttention>(model.shape, SequenceStore::total_pages(options))
                  : nullptr),
      rotations_{rotation(model, 0), rotation(model, 1)} {}

void* CpuExecutor::allocate(size_t bytes) {
  constexpr size_t align = 64;
  const size_t whole = (bytes + align - 1) / align * align;
  memory_.emplace_back(std::aligned_alloc(align, whole));
  void* p = memory_.back().get();
  if (!p) throw Error(ErrorKind::kOutOfMemory, "scratch memory of " + std::to_string(bytes) + " bytes");
  std::memset(p, 0, whole);
  return p;
}

void CpuExecutor::copy(uint32_t from, uint32_t to) {
  kv_.copy(from, to);
  if (floats_) floats_->copy(from, to);
}

void CpuExecutor::sum(std::span<const PageRows> rows) {
  pool_.run(static_cast<uint32_t>(rows.size()), [&](uint32_t i) { kv_.sum(rows[i]); });
}

void CpuExecutor::check(std::span<const PageRows> rows, std::span<uint8_t> sound) {
  pool_.run(static_cast<uint32_t>(rows.size()), [&](uint32_t i) { sound[i] = kv_.is_sound(rows[i]); });
}

void CpuExecutor::begin(const Rows& rows, const SequenceStore& sequences) {
  rows_ = rows;
  sequences_ = &sequences;
  for (Rotation& rotation : rotations_) rotation_rows(rotation, rows, sequences);
}

void CpuExecutor::finish(const Model& model, const Scratch& scratch, const Step& step, std::span<Sampled> sampled) {
  begin(step.rows, step.sequences);
  forward(model, scratch, *this, step.rows.count, step.logit_rows, step.abandoned);
  sample(scratch.logits, model.shape.vocab, step.samples, sampled);
}

void CpuExecutor::sample(const float* logits, uint32_t vocab, std::span<const PlacedSample> samples,
                         std::span<Sampled> sampled) {
  const auto n = static_cast<uint32_t>(samples.size());
  if (sample_scratch_.size() < n) sample_scratch_.resize(n);
  pool_.run(n, [&](uint32_t i) {
    const std::span<const uint32_t> tokens = sequences_->tokens(samples[i].slot);
    const std::span<const uint32_t> before = tokens.first(std::min<size_t>(samples[i].position, tokens.size()));
    const float* row = logits + uint64_t{i} * vocab;
    sampled[i].token = cpu::sample(row, vocab, before, samples[i], sample_scratch_[i]);
    cpu::logprobs(row, vocab, samples[i], sample_scratch_[i].order, sampled[i]);
  });
}

void CpuExecutor::download(const void* from, size_t bytes, void* to) const { std::memcpy(to, from, bytes); }

}  // namespace orcd::cpu
