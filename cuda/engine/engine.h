// The engine proper: checks each call, keeps the sequences, and has a backend's executor compute the steps.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/executor.h"
#include "engine/model.h"
#include "engine/scratch.h"
#include "engine/sequences.h"
#include "orcd/engine.h"

namespace orcd {

// Throws kInvalid, with the value, for options out of bounds.
void check_options(const EngineOptions& options);

// Draws in a step: each slot takes part at most once.
uint32_t max_samples(const EngineOptions& options);

class Engine {
 public:
  // `other_bytes`: weights and KV, for memory_bytes().
  Engine(Model model, const EngineOptions& options, std::unique_ptr<Executor> executor, uint64_t other_bytes);

  // Begins a sequence of up to max_tokens positions, or as many as the context has, with tokens whose keys and values
  // `pages` hold already.
  void open(uint32_t slot, uint32_t max_tokens, std::span<const uint32_t> tokens, std::span<const uint32_t> pages);
  // Gives it pages for the tokens to come.
  void grow(uint32_t slot, std::span<const uint32_t> pages);
  void close(uint32_t slot);

  // Pages that nobody holds any more, and whose memory may go back to the system.
  void release(std::span<const uint32_t> pages);
  // All of a page into another one.
  void copy(uint32_t from, uint32_t to);
  // Notes sums of what pages have of these positions, in the pool. They are there when the next step has ended, or
  // settle() returns.
  void sum(std::span<const PageRows> rows);
  // Whether positions are what their sums say: 1 or 0 each.
  void check(std::span<const PageRows> rows, std::span<uint8_t> sound);
  // Waits for what was begun.
  void settle();

  // Begins a step that processes all runs as one batch; a GPU is at work when this returns. Nothing of the batch is
  // read later. `abandoned`, if there is one, is asked between layers; once it says yes the step throws kAbandoned.
  // When either half of a step throws, the step is over and nothing has changed.
  void begin(const StepBatch& batch, bool (*abandoned)() = nullptr);
  // Ends it: sampled[i] is what was drawn for samples[i]. `masks` (*, mask_words(vocab)): which tokens may be sampled,
  // for the samples that have the number of one.
  void finish(std::span<const uint32_t> masks, std::span<Sampled> sampled);
  // Copies the logits of draw number `draw` of the last step from the device to `to` (vocab).
  void logits(uint32_t draw, std::span<float> to) const;
  uint64_t memory_bytes() const { return memory_bytes_; }  // weights + KV + scratch
  uint32_t pages() const { return SequenceStore::total_pages(options_); }
  bool resident() const { return executor_->resident(); }

 private:
  void check(const StepBatch& batch) const;
  void check(std::span<const PageRows> rows) const;
  void check_samples(const StepBatch& batch) const;
  void check_biases(const StepBatch& batch) const;
  void flatten(const StepBatch& batch);
  void place_masks(std::span<const uint32_t> masks);
  Step step() const;
  void refuse_during_step() const;
  void take_back();

  Model model_;
  EngineOptions options_;
  SequenceStore sequences_;
  std::unique_ptr<Executor> executor_;
  Scratch scratch_{};
  uint64_t memory_bytes_ = 0;

  // The current step, or the last one, flat.
  bool stepping_ = false;                                 // it was begun and has not ended
  std::vector<Run> runs_;                                 // (runs)
  std::vector<uint32_t> tokens_, row_slots_, positions_;  // (rows)
  std::vector<uint32_t> output_starts_;                   // (rows) of their sequences
  std::vector<uint32_t> logit_rows_;                      // (samples) row whose logits are sampled from
  std::vector<uint32_t> mask_numbers_;                    // (samples) from 1 on; 0: none
  std::vector<TokenBias> biases_;                         // of all samples
  std::vector<PlacedSample> samples_;                     // (samples)
  bool (*abandoned_)() = nullptr;
};

}  // namespace orcd
