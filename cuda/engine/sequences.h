// Every sequence: its tokens and the pages of the KV pool that hold them. Bookkeeping on the host, the same for all
// backends; a page is a number here, and the backend's memory where it computes. Which pages a sequence gets, and who
// shares them, is decided elsewhere (pool/ of cuda-worker).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "arith/constants.h"
#include "orcd/engine.h"

namespace orcd {

inline constexpr uint32_t kPageTokens = kAttnSplit;  // positions in a page: one attention split

class SequenceStore {
 public:
  explicit SequenceStore(const EngineOptions& options);

  // Pages that the sequences of such an engine may hold together.
  static uint32_t total_pages(const EngineOptions& options);

  // Begins a sequence of up to max_tokens positions, but not more than the context has, with tokens that `pages` hold
  // already. Throws kInvalid for a slot in use, a sequence of none, tokens beyond its positions or pages that are not as
  // many as the tokens take.
  void open(uint32_t slot, uint32_t max_tokens, std::span<const uint32_t> tokens, std::span<const uint32_t> pages);

  // Ends a sequence.
  void close(uint32_t slot);

  // Appends pages for tokens to come. Throws kInvalid for a page that does not exist, or more than the sequence may fill.
  void grow(uint32_t slot, std::span<const uint32_t> pages);

  // Throws kInvalid unless positions start .. start + n are the next ones of an open slot and have their pages.
  void check_append(uint32_t slot, uint32_t start, uint64_t n) const;

  // Appends tokens that check_append() has let pass.
  void append(uint32_t slot, std::span<const uint32_t> tokens);

  // Takes the tokens from position `length` on back: they will come again.
  void truncate(uint32_t slot, uint32_t length);

  // Throws kInvalid for a page that does not exist.
  void check_pages(std::span<const uint32_t> pages) const;

  std::span<const uint32_t> tokens(uint32_t slot) const { return sequences_[slot].tokens; }
  // Page i has the positions 64 · i .. 64 · i + 63.
  std::span<const uint32_t> pages(uint32_t slot) const { return sequences_[slot].pages; }
  // What open() was asked for, also where that is more than the context: it is the job's, whatever the context is.
  uint32_t asked(uint32_t slot) const { return sequences_[slot].asked; }
  uint32_t slots() const { return static_cast<uint32_t>(sequences_.size()); }

 private:
  struct Sequence {
    bool open = false;
    uint32_t asked = 0;            // positions wanted
    uint32_t most = 0;             // positions that it may have
    std::vector<uint32_t> tokens;  // (length)
    std::vector<uint32_t> pages;   // (length / 64, rounded up, or more)
  };
  const Sequence& at(uint32_t slot) const;
  const Sequence& open_at(uint32_t slot) const;

  std::vector<Sequence> sequences_;  // (slots)
  uint32_t pages_;
  uint32_t context_;
};

}  // namespace orcd
