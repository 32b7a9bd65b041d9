// What computes a step, one form per kind of device. How it does that (threads, graphs, fused kernels, waiting) shows
// in nothing but its speed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "engine/scratch.h"
#include "engine/sequences.h"
#include "ops/ops.h"
#include "orcd/engine.h"

namespace orcd {

// A draw with its place.
struct PlacedSample {
  uint32_t slot;         // whose tokens before `position` penalties cover
  uint32_t position;     // absolute position of the token being sampled
  const uint32_t* mask;  // (mask_words(vocab)) the tokens that may be sampled; null: all. Known to finish() alone
  bool logprobs;
  uint32_t top_logprobs;
  Sampling sampling;
  uint32_t output_start = 0;            // position from which penalties for tokens of the output count
  std::span<const TokenBias> biases{};  // (at most kMostBiases) ids ascending
};

// A step as its rows, checked.
struct Step {
  Rows rows;
  std::span<const uint32_t> logit_rows;   // (samples) the rows whose logits are sampled from, ascending
  std::span<const PlacedSample> samples;  // (samples)
  const SequenceStore& sequences;         // with the step's tokens
  bool (*abandoned)() = nullptr;          // asked between layers; once it says yes the step throws kAbandoned
  bool masked = false;                    // some sample has a mask, which finish() brings
};

class Executor {
 public:
  virtual ~Executor() = default;

  virtual ScratchOf scratch_of() const { return ScratchOf::kCpu; }

  // Zeroed memory, 64-byte aligned, owned by this object until it dies.
  virtual void* allocate(size_t bytes) = 0;

  // Called once, when the model's and all other memory is there: what would make a first step slow.
  virtual void prepare(const Model&, const Scratch&) {}

  // What the sequences of the store have beside their pages, which it has opened or closed before.
  // `positions`: SequenceStore::asked.
  virtual void open(uint32_t slot, uint32_t positions) = 0;
  virtual void close(uint32_t slot) = 0;

  // As the engine's functions of these names.
  virtual void release(std::span<const uint32_t> pages) = 0;
  virtual void copy(uint32_t from, uint32_t to) = 0;
  virtual void sum(std::span<const PageRows> rows) = 0;
  virtual void check(std::span<const PageRows> rows, std::span<uint8_t> sound) = 0;
  virtual void settle() = 0;

  // A step has two halves, so that the host has its hands free while a device computes. begin() starts the forward
  // pass over the rows, and the draws where nothing is missing; on the CPU it does nothing. finish() gets the same step,
  // with its masks, does the rest and waits: the logits of the sampled rows are in scratch.logits afterwards.
  // Either throws whatever failed by then, and the step is over without a token; what was written to the KV cache is
  // written again, the same, by the step that repeats it. What a step points to stays as it is until then.
  virtual void begin(const Model&, const Scratch&, const Step&) = 0;
  virtual void finish(const Model&, const Scratch&, const Step&, std::span<Sampled> sampled /* (samples) */) = 0;

  // Copies from the backend's memory to the host.
  virtual void download(const void* from, size_t bytes, void* to /* host */) const = 0;

  // Whether every buffer is found to be device memory; false on the CPU.
  virtual bool resident() const = 0;
};

}  // namespace orcd
