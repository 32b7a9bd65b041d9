#include "engine/engine.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

namespace orcd {
namespace {

[[noreturn]] void invalid(const std::string& what) { throw Error(ErrorKind::kInvalid, what); }

}  // namespace

void check_options(const EngineOptions& o) {
  const auto bounded = [](const char* what, uint64_t value, uint64_t max) {
    if (value == 0 || value > max) {
      invalid(std::string(what) + " is " + std::to_string(value) + ", must be 1 to " + std::to_string(max));
    }
  };
  bounded("slots", o.slots, 4096);
  bounded("context", o.context, 1 << 22);
  bounded("max_batch_tokens", o.max_batch_tokens, (1 << 16) - 1);  // most of a grid's second dimension
  if (o.threads > 1024) invalid("threads is " + std::to_string(o.threads) + ", must be 0 to 1024");
}

uint32_t max_samples(const EngineOptions& o) { return std::min(o.slots, o.max_batch_tokens); }

Engine::Engine(Model model, const EngineOptions& options, std::unique_ptr<Executor> executor, uint64_t other_bytes)
    : model_(std::move(model)), options_(options), sequences_(options), executor_(std::move(executor)) {
  const uint32_t rows = options.max_batch_tokens, samples = max_samples(options);
  const uint64_t bytes = scratch_bytes(model_.shape, rows, samples, executor_->scratch_of());
  scratch_ = carve_scratch(model_.shape, rows, samples, executor_->scratch_of(), executor_->allocate(bytes));
  memory_bytes_ = other_bytes + bytes;
  executor_->prepare(model_, scratch_);
}

void Engine::refuse_during_step() const {
  if (stepping_) invalid("a step is under way: it has to be finished first");
}

void Engine::open(uint32_t slot, uint32_t max_tokens, std::span<const uint32_t> tokens,
                  std::span<const uint32_t> pages) {
  refuse_during_step();
  for (const uint32_t token : tokens) {
    if (token >= model_.shape.vocab) {
      invalid("token " + std::to_string(token) + " is not in the vocabulary of " + std::to_string(model_.shape.vocab));
    }
  }
  sequences_.open(slot, max_tokens, tokens, pages);
  try {
    executor_->open(slot, sequences_.asked(slot));
  } catch (...) {
    sequences_.close(slot);
    throw;
  }
}

void Engine::grow(uint32_t slot, std::span<const uint32_t> pages) {
  refuse_during_step();
  sequences_.grow(slot, pages);
}

void Engine::close(uint32_t slot) {
  refuse_during_step();
  sequences_.close(slot);
  executor_->close(slot);
}

void Engine::release(std::span<const uint32_t> pages) {
  sequences_.check_pages(pages);
  executor_->release(pages);
}

void Engine::copy(uint32_t from, uint32_t to) {
  refuse_during_step();
  sequences_.check_pages(std::array{from, to});
  executor_->copy(from, to);
}

void Engine::check(std::span<const PageRows> rows) const {
  for (const PageRows& r : rows) {
    sequences_.check_pages({&r.page, 1});
    if (r.from < r.to && r.to <= kPageTokens) continue;
    invalid("positions " + std::to_string(r.from) + " to " + std::to_string(r.to) + " of KV page " +
            std::to_string(r.page) + ": a page has " + std::to_string(kPageTokens));
  }
}

void Engine::sum(std::span<const PageRows> rows) {
  check(rows);
  executor_->sum(rows);
}

void Engine::check(std::span<const PageRows> rows, std::span<uint8_t> sound) {
  refuse_during_step();
  check(rows);
  if (sound.size() != rows.size()) invalid("there must be one place for each");
  executor_->check(rows, sound);
}

void Engine::settle() {
  refuse_during_step();
  executor_->settle();
}

void Engine::check(const StepBatch& batch) const {
  if (batch.runs.empty()) invalid("a step needs a run");
  uint64_t rows = 0;
  std::vector<bool> seen(sequences_.slots());
  for (const Run& r : batch.runs) {
    sequences_.check_append(r.slot, r.start, r.n_tokens);
    if (seen[r.slot]) invalid("slot " + std::to_string(r.slot) + " takes part twice in a step");
    seen[r.slot] = true;
    rows += r.n_tokens;
  }
  if (rows != batch.tokens.size()) {
    invalid("the runs have " + std::to_string(rows) + " tokens, the step " + std::to_string(batch.tokens.size()));
  }
  if (rows > options_.max_batch_tokens) {
    invalid("a step of " + std::to_string(rows) + " tokens exceeds max_batch_tokens " +
            std::to_string(options_.max_batch_tokens));
  }
  for (const uint32_t token : batch.tokens) {
    if (token >= model_.shape.vocab) {
      invalid("token " + std::to_string(token) + " is not in the vocabulary of " + std::to_string(model_.shape.vocab));
    }
  }
  check_samples(batch);
  check_biases(batch);
}

void Engine::check_samples(const StepBatch& batch) const {
  const uint32_t most = max_samples(options_);
  if (batch.samples.size() > most) {
    invalid("a step samples " + std::to_string(batch.samples.size()) + " tokens, at most " + std::to_string(most) +
            " fit");
  }
  uint64_t next = 0;  // the first row that may draw
  for (const SampleRow& d : batch.samples) {
    const auto refuse = [&d](const std::string& why) { invalid("row " + std::to_string(d.row) + why); };
    if (d.row >= batch.tokens.size())
      refuse(" is to be sampled from, there are " + std::to_string(batch.tokens.size()));
    if (d.row < next) refuse(" is sampled from after a later one");
    next = uint64_t{d.row} + 1;
    if (d.top_logprobs > Sampled{}.top.size())
      refuse(" wants the logprobs of " + std::to_string(d.top_logprobs) + " tokens, at most " +
             std::to_string(Sampled{}.top.size()) + " are given");
  }
}

void Engine::check_biases(const StepBatch& batch) const {
  const uint32_t vocab = model_.shape.vocab;
  for (const SampleRow& d : batch.samples) {
    if (d.n_biases == 0) continue;
    const auto refuse = [&d](const std::string& why) { invalid("row " + std::to_string(d.row) + why); };
    if (d.n_biases > kMostBiases)
      refuse(" has " + std::to_string(d.n_biases) + " biases, at most " + std::to_string(kMostBiases) + " are taken");
    if (uint64_t{d.first_bias} + d.n_biases > batch.biases.size()) refuse(" has biases that are not there");
    uint64_t next = 0;  // the first token that may follow
    for (const TokenBias& b : batch.biases.subspan(d.first_bias, d.n_biases)) {
      const std::string token = "token " + std::to_string(b.token);
      if (b.token >= vocab) refuse(" has a bias of " + token + ", the vocabulary has " + std::to_string(vocab));
      if (b.token < next) refuse(" has the bias of " + token + " after that of a later token, or twice");
      if (!(std::abs(b.bias) <= std::numeric_limits<float>::max()))
        refuse(" has a bias of " + token + " that is not finite");
      next = uint64_t{b.token} + 1;
    }
  }
}

void Engine::flatten(const StepBatch& batch) {
  row_slots_.clear(), positions_.clear(), output_starts_.clear();
  logit_rows_.clear(), mask_numbers_.clear(), samples_.clear();
  runs_.assign(batch.runs.begin(), batch.runs.end());
  tokens_.assign(batch.tokens.begin(), batch.tokens.end());
  biases_.assign(batch.biases.begin(), batch.biases.end());
  for (const Run& r : batch.runs) {
    row_slots_.insert(row_slots_.end(), r.n_tokens, r.slot);
    output_starts_.insert(output_starts_.end(), r.n_tokens, r.output_start);
    for (uint32_t p = r.start; p < r.start + r.n_tokens; ++p) positions_.push_back(p);
  }
  for (const SampleRow& d : batch.samples) {
    logit_rows_.push_back(d.row);
    mask_numbers_.push_back(d.mask);
    const std::span<const TokenBias> all = biases_;
    const auto biases = d.n_biases == 0 ? all.first(0) : all.subspan(d.first_bias, d.n_biases);
    samples_.push_back({row_slots_[d.row], positions_[d.row] + 1, nullptr, d.logprobs, d.top_logprobs, d.sampling,
                        output_starts_[d.row], biases});
  }
}

Step Engine::step() const {
  const Rows rows{static_cast<uint32_t>(tokens_.size()), tokens_.data(), row_slots_.data(), positions_.data()};
  const bool masked = std::any_of(mask_numbers_.begin(), mask_numbers_.end(), [](uint32_t number) { return number; });
  return {rows, logit_rows_, samples_, sequences_, abandoned_, masked};
}

// Gives each sample its mask.
void Engine::place_masks(std::span<const uint32_t> masks) {
  const uint32_t vocab = model_.shape.vocab, words = mask_words(vocab);
  if (masks.size() % words != 0) {
    invalid("a mask for " + std::to_string(vocab) + " tokens has " + std::to_string(words) + " words, all have " +
            std::to_string(masks.size()));
  }
  for (size_t i = 0; i < samples_.size(); ++i) {
    const uint32_t number = mask_numbers_[i];
    if (number == 0) continue;
    const std::string mask = "mask " + std::to_string(number) + " of row " + std::to_string(logit_rows_[i]);
    if (uint64_t{number} * words > masks.size()) invalid(mask + " is not there");
    const auto allowed = masks.subspan(uint64_t{number - 1} * words, words);
    const uint32_t last = vocab % 32 == 0 ? ~0u : (1u << vocab % 32) - 1;
    const bool any = std::any_of(allowed.begin(), allowed.end() - 1, [](uint32_t word) { return word != 0; });
    if (!any && !(allowed.back() & last)) invalid(mask + " allows no token");
    samples_[i].mask = allowed.data();
  }
}

void Engine::take_back() {
  stepping_ = false;
  for (const Run& r : runs_) sequences_.truncate(r.slot, r.start);
}

void Engine::begin(const StepBatch& batch, bool (*abandoned)()) {
  refuse_during_step();
  check(batch);
  flatten(batch);
  abandoned_ = abandoned;
  try {
    size_t first = 0;
    for (const Run& r : runs_) {
      sequences_.append(r.slot, std::span(tokens_).subspan(first, r.n_tokens));
      first += r.n_tokens;
    }
    executor_->begin(model_, scratch_, step());
    stepping_ = true;
  } catch (...) {
    take_back();
    throw;
  }
}

void Engine::finish(std::span<const uint32_t> masks, std::span<Sampled> sampled) {
  if (!stepping_) invalid("no step is under way");
  try {
    if (sampled.size() != samples_.size()) invalid("there must be one place per draw");
    place_masks(masks);
    std::fill(sampled.begin(), sampled.end(), Sampled{});
    executor_->finish(model_, scratch_, step(), sampled);
    stepping_ = false;
  } catch (...) {
    take_back();
    throw;
  }
}

void Engine::logits(uint32_t draw, std::span<float> to) const {
  if (draw >= samples_.size()) {
    invalid("the last step drew " + std::to_string(samples_.size()) + " tokens, there is no draw " +
            std::to_string(draw));
  }
  const size_t vocab = model_.shape.vocab;
  if (to.size() != vocab)
    invalid("logits() gives " + std::to_string(vocab) + " values, there is room for " + std::to_string(to.size()));
  executor_->download(scratch_.logits + draw * vocab, vocab * sizeof(float), to.data());
}

}  // namespace orcd
