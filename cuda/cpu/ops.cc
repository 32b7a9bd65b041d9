#include "cpu/ops.h"

#include <cstdlib>
#include <cstring>
#include <string>

namespace orcd::cpu {

void CpuOps::Free::operator()(void* p) const { std::free(p); }

CpuOps::CpuOps(const Model& model, const EngineOptions& options, Isa isa)
    : shape_(model.shape),
      isa_(isa),
      float_activations_(options.float_activations),
      pool_(options.threads),
      sequences_(model.shape, options.slots, options.context) {
  rotation_.pairs = shape_.head_dim / 2;
  rotation_.style = shape_.rope_style;
  rotation_frequencies(rotation_, shape_.rope_base, model.rope_freqs);
}

void* CpuOps::allocate(size_t bytes) {
  constexpr size_t align = 64;
  const size_t whole = (bytes + align - 1) / align * align;
  memory_.emplace_back(std::aligned_alloc(align, whole));
  void* p = memory_.back().get();
  if (!p) throw Error(ErrorKind::kOutOfMemory, "scratch memory of " + std::to_string(bytes) + " bytes");
  std::memset(p, 0, whole);
  return p;
}

void CpuOps::begin(const Rows& rows) {
  rows_ = rows;
  for (uint32_t r = 0; r < rows.count; ++r) sequences_.note(rows.slot[r], rows.token[r]);
  rotation_rows(rotation_, rows);
}

void CpuOps::sample(const float* logits, uint32_t vocab, std::span<const PlacedDraw> draws, uint32_t* drawn) {
  const auto n = static_cast<uint32_t>(draws.size());
  if (sample_scratch_.size() < n) sample_scratch_.resize(n);
  pool_.run(n, [&](uint32_t i) {
    const std::span<const uint64_t> seen = sequences_.seen(draws[i].slot);
    drawn[i] = cpu::sample(logits + uint64_t{i} * vocab, vocab, seen, draws[i], sample_scratch_[i]);
  });
}

void CpuOps::download(const void* from, size_t bytes, void* to) { std::memcpy(to, from, bytes); }

}  // namespace orcd::cpu
