#include "engine/engine.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "engine/forward.h"

namespace orcd {
namespace {

[[noreturn]] void invalid(const std::string& what) { throw Error(ErrorKind::kInvalid, what); }

void check_sampling(const Sampling& s) {
  const auto within = [](const char* what, float value, float low, float high) {
    if (!(value >= low && value <= high)) invalid(std::string(what) + " " + std::to_string(value) + " is out of range");
  };
  within("temperature", s.temperature, 0.0f, 1e6f);
  within("top_p", s.top_p, 0.0f, 1.0f);
  within("min_p", s.min_p, 0.0f, 1.0f);
  within("repetition_penalty", s.repetition_penalty, 1e-6f, 1e6f);
}

}  // namespace

void check_options(const EngineOptions& o) {
  const auto bounded = [](const char* what, uint64_t value, uint64_t max) {
    if (value == 0 || value > max) {
      invalid(std::string(what) + " is " + std::to_string(value) + ", must be 1 to " + std::to_string(max));
    }
  };
  bounded("slots", o.slots, 4096);
  bounded("context", o.context, 1 << 22);
  bounded("max_batch_tokens", o.max_batch_tokens, 1 << 16);
  if (o.threads > 1024) invalid("threads is " + std::to_string(o.threads) + ", must be 0 to 1024");
}

uint64_t kv_limit(const EngineOptions& o) {
  const uint64_t all = uint64_t{o.slots} * o.context;
  return o.kv_limit_tokens == 0 ? all : std::min(all, o.kv_limit_tokens);
}

uint32_t max_draws(const EngineOptions& o) { return std::min(o.slots, o.max_batch_tokens); }

StepEngine::StepEngine(Model model, const EngineOptions& options, std::unique_ptr<Ops> ops, uint64_t other_bytes)
    : model_(std::move(model)),
      options_(options),
      slots_(options.slots, options.context, kv_limit(options)),
      ops_(std::move(ops)),
      scratch_(allocate_scratch(model_.shape, options.max_batch_tokens, max_draws(options), *ops_)),
      memory_bytes_(other_bytes + scratch_bytes(model_.shape, options.max_batch_tokens, max_draws(options))) {
  ops_->prepare(model_, scratch_);
}

void StepEngine::open(uint32_t slot, uint32_t max_tokens) {
  slots_.open(slot, max_tokens);
  try {
    ops_->open_slot(slot);
  } catch (...) {
    slots_.close(slot);
    throw;
  }
}

void StepEngine::close(uint32_t slot) {
  slots_.close(slot);
  ops_->close_slot(slot);
}

void StepEngine::check(std::span<const Chunk> chunks, std::span<const uint32_t> drawn) const {
  if (chunks.empty()) invalid("a step needs a chunk");
  if (drawn.size() != chunks.size()) invalid("drawn must have one place per chunk");
  uint64_t rows = 0;
  std::vector<bool> seen(slots_.count());
  for (const Chunk& c : chunks) {
    slots_.check_append(c.slot, c.start, c.tokens.size());
    if (seen[c.slot]) invalid("slot " + std::to_string(c.slot) + " takes part twice in a step");
    seen[c.slot] = true;
    for (const uint32_t token : c.tokens) {
      if (token >= model_.shape.vocab) {
        invalid("token " + std::to_string(token) + " is not in the vocabulary of " + std::to_string(model_.shape.vocab));
      }
    }
    if (c.sample) check_sampling(*c.sample);
    rows += c.tokens.size();
  }
  if (rows > options_.max_batch_tokens) {
    invalid("a step of " + std::to_string(rows) + " tokens exceeds max_batch_tokens " + std::to_string(options_.max_batch_tokens));
  }
}

void StepEngine::flatten(std::span<const Chunk> chunks) {
  tokens_.clear(), row_slots_.clear(), positions_.clear();
  pick_.clear(), draws_.clear(), draw_of_chunk_.clear();
  for (const Chunk& c : chunks) {
    tokens_.insert(tokens_.end(), c.tokens.begin(), c.tokens.end());
    const auto end = c.start + static_cast<uint32_t>(c.tokens.size());
    for (uint32_t p = c.start; p < end; ++p) {
      row_slots_.push_back(c.slot);
      positions_.push_back(p);
    }
    draw_of_chunk_.push_back(c.sample ? static_cast<uint32_t>(draws_.size()) : kNoDraw);
    if (!c.sample) continue;
    pick_.push_back(static_cast<uint32_t>(tokens_.size()) - 1);
    draws_.push_back({c.slot, end, *c.sample});
  }
}

void StepEngine::step(std::span<const Chunk> chunks, std::span<uint32_t> drawn, bool (*abandoned)()) {
  check(chunks, drawn);
  flatten(chunks);
  const Rows rows{static_cast<uint32_t>(tokens_.size()), tokens_.data(), row_slots_.data(), positions_.data()};
  try {
    forward(model_, scratch_, *ops_, rows, pick_, abandoned);
  } catch (const Error& e) {
    // What was begun still reads the host's buffers, which the next step fills again.
    if (e.kind == ErrorKind::kAbandoned) ops_->finish();
    throw;
  }
  drawn_.resize(draws_.size());
  if (!draws_.empty()) ops_->sample(scratch_.logits, model_.shape.vocab, draws_, drawn_.data());
  ops_->finish();
  for (size_t i = 0; i < chunks.size(); ++i) {
    slots_.append(chunks[i].slot, static_cast<uint32_t>(chunks[i].tokens.size()));
    if (draw_of_chunk_[i] != kNoDraw) drawn[i] = drawn_[draw_of_chunk_[i]];
  }
}

void StepEngine::logits(uint32_t chunk, std::span<float> to) const {
  if (chunk >= draw_of_chunk_.size() || draw_of_chunk_[chunk] == kNoDraw) {
    invalid("chunk " + std::to_string(chunk) + " of the last step drew nothing");
  }
  const size_t vocab = model_.shape.vocab;
  if (to.size() != vocab) invalid("logits() gives " + std::to_string(vocab) + " values, there is room for " + std::to_string(to.size()));
  ops_->download(scratch_.logits + draw_of_chunk_[chunk] * vocab, vocab * sizeof(float), to.data());
}

uint64_t StepEngine::memory_bytes() const { return memory_bytes_; }

}  // namespace orcd
