// The engine proper: checks each call, keeps the sequences' lengths, and runs steps on a backend's Ops.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/model.h"
#include "engine/scratch.h"
#include "engine/slots.h"
#include "ops/ops.h"
#include "orcd/engine.h"

namespace orcd {

// Throws kInvalid, with the value, for options out of bounds.
void check_options(const EngineOptions& options);

// KV positions that may be reserved at once.
uint64_t kv_limit(const EngineOptions& options);

// Draws in a step: each slot takes part at most once.
uint32_t max_draws(const EngineOptions& options);

class StepEngine final : public Engine {
 public:
  // `other_bytes`: weights and KV, for memory_bytes().
  StepEngine(Model model, const EngineOptions& options, std::unique_ptr<Ops> ops, uint64_t other_bytes);

  void open(uint32_t slot, uint32_t max_tokens) override;
  void close(uint32_t slot) override;
  void step(std::span<const Chunk> chunks, std::span<uint32_t> drawn, bool (*abandoned)()) override;
  void logits(uint32_t chunk, std::span<float> to) const override;
  uint64_t memory_bytes() const override;
  bool resident() const override { return ops_->resident(); }

 private:
  void check(std::span<const Chunk> chunks, std::span<const uint32_t> drawn) const;
  void flatten(std::span<const Chunk> chunks);

  Model model_;
  EngineOptions options_;
  Slots slots_;
  std::unique_ptr<Ops> ops_;
  Scratch scratch_;
  uint64_t memory_bytes_;

  // The current step, flat.
  std::vector<uint32_t> tokens_, row_slots_, positions_;  // (rows)
  std::vector<uint32_t> pick_;                            // (draws) row whose logits are drawn from
  std::vector<Draw> draws_;                               // (draws)
  std::vector<uint32_t> drawn_;                           // (draws)

  static constexpr uint32_t kNoDraw = UINT32_MAX;
  std::vector<uint32_t> draw_of_chunk_;  // (chunks) of the last step; kNoDraw without sample
};

}  // namespace orcd
