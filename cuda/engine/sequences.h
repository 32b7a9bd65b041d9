// Every sequence: its tokens and the pages of the KV pool that it holds. Bookkeeping on the host, the same for all
// backends; a page is a number here, and the backend's memory where it computes. Nothing is promised: a sequence takes
// a page when its first token there comes.
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

  // Begins a sequence of up to max_tokens positions, but not more than the context has; it holds no page yet. Throws
  // kInvalid for a slot in use or a sequence of none.
  void open(uint32_t slot, uint32_t max_tokens);

  // A page that holds part of what another sequence's page does.
  struct Copy {
    uint32_t from, to;
  };

  // Opens `to` with the tokens of `from`, whose full pages it shares. A page that is not full is copied, for both go
  // on to write there: the caller has to, before the next step. Throws as open() does, kInvalid if `from` is not open
  // or is longer than max_tokens, and kOutOfMemory if no page is left for the copy.
  std::vector<Copy> fork(uint32_t from, uint32_t to, uint32_t max_tokens);

  // Ends a sequence. The pages that nobody holds any more, until the next call.
  std::span<const uint32_t> close(uint32_t slot);

  // Throws kInvalid unless positions start .. start + n are the next ones of an open slot. Returns the pages that it
  // would have to take for them.
  uint64_t check_append(uint32_t slot, uint32_t start, uint64_t n) const;

  // Pages that nobody holds.
  uint64_t free_pages() const { return free_.size(); }
  // Pages that some sequence holds.
  uint64_t used_pages() const { return holders_.size() - free_.size(); }

  // Appends tokens that check_append() has let pass, if so many pages are free; they are there from then on.
  void append(uint32_t slot, std::span<const uint32_t> tokens);

  // Takes the tokens from position `length` on back: they will come again.
  void truncate(uint32_t slot, uint32_t length);

  std::span<const uint32_t> tokens(uint32_t slot) const { return sequences_[slot].tokens; }
  // Page i has the positions 64 · i .. 64 · i + 63.
  std::span<const uint32_t> pages(uint32_t slot) const { return sequences_[slot].pages; }
  // What open() was asked for, also where that is more than the context: it is the job's, whatever the context is. Of a
  // fork what its parent was opened with.
  uint32_t asked(uint32_t slot) const { return sequences_[slot].asked; }
  uint32_t slots() const { return static_cast<uint32_t>(sequences_.size()); }

 private:
  struct Sequence {
    bool open = false;
    uint32_t asked = 0;            // positions wanted
    uint32_t most = 0;             // positions that it may have
    std::vector<uint32_t> tokens;  // (length)
    std::vector<uint32_t> pages;   // (length / 64, rounded up); more after truncate()
  };
  const Sequence& at(uint32_t slot) const;
  const Sequence& open_at(uint32_t slot) const;
  uint32_t take_page();

  std::vector<Sequence> sequences_;  // (slots)
  std::vector<uint32_t> holders_;    // (pages) sequences that hold each
  std::vector<uint32_t> free_;       // pages that nobody holds
  std::vector<uint32_t> released_;   // of the last close()
  uint32_t context_;
};

}  // namespace orcd
