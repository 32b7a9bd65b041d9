#include "engine/sequences.h"

#include <algorithm>
#include <string>

namespace orcd {
namespace {

[[noreturn]] void invalid(uint32_t slot, const std::string& what) {
  throw Error(ErrorKind::kInvalid, "slot " + std::to_string(slot) + " " + what);
}

uint64_t pages_for(uint64_t tokens) { return (tokens + kPageTokens - 1) / kPageTokens; }

}  // namespace

SequenceStore::SequenceStore(const EngineOptions& options)
    : sequences_(options.slots), pages_(total_pages(options)), context_(options.context) {}

uint32_t SequenceStore::total_pages(const EngineOptions& o) {
  // No more than 2^28: 4 096 slots of 2^16 pages.
  return o.kv_pages ? o.kv_pages : static_cast<uint32_t>(o.slots * pages_for(o.context));
}

const SequenceStore::Sequence& SequenceStore::at(uint32_t slot) const {
  if (slot >= sequences_.size()) invalid(slot, "does not exist: there are " + std::to_string(sequences_.size()));
  return sequences_[slot];
}

const SequenceStore::Sequence& SequenceStore::open_at(uint32_t slot) const {
  if (!at(slot).open) invalid(slot, "is not open");
  return sequences_[slot];
}

void SequenceStore::check_pages(std::span<const uint32_t> pages) const {
  for (const uint32_t page : pages) {
    if (page < pages_) continue;
    throw Error(ErrorKind::kInvalid,
                "KV page " + std::to_string(page) + " does not exist: there are " + std::to_string(pages_));
  }
}

void SequenceStore::open(uint32_t slot, uint32_t max_tokens, std::span<const uint32_t> tokens,
                         std::span<const uint32_t> pages) {
  if (at(slot).open) invalid(slot, "is open already");
  if (max_tokens == 0) invalid(slot, "is to be opened for no tokens");
  const uint32_t most = std::min(max_tokens, context_);
  if (tokens.size() > most) {
    invalid(slot, "is to begin with " + std::to_string(tokens.size()) + " tokens, it may have " + std::to_string(most));
  }
  if (pages.size() != pages_for(tokens.size())) {
    invalid(slot, "is to begin with " + std::to_string(tokens.size()) + " tokens in " + std::to_string(pages.size()) +
                      " pages");
  }
  check_pages(pages);
  Sequence& s = sequences_[slot];
  s.tokens.assign(tokens.begin(), tokens.end());
  s.pages.assign(pages.begin(), pages.end());
  s.open = true;
  s.asked = max_tokens;
  s.most = most;
}

void SequenceStore::close(uint32_t slot) {
  open_at(slot);
  sequences_[slot] = {};
}

void SequenceStore::grow(uint32_t slot, std::span<const uint32_t> pages) {
  const Sequence& s = open_at(slot);
  if (s.pages.size() + pages.size() > pages_for(s.most)) {
    invalid(slot, "gets page " + std::to_string(s.pages.size() + pages.size()) + ", its " + std::to_string(s.most) +
                      " positions take " + std::to_string(pages_for(s.most)));
  }
  check_pages(pages);
  std::vector<uint32_t>& own = sequences_[slot].pages;
  own.insert(own.end(), pages.begin(), pages.end());
}

void SequenceStore::check_append(uint32_t slot, uint32_t start, uint64_t n) const {
  const Sequence& s = open_at(slot);
  const uint64_t length = s.tokens.size();
  if (n == 0) invalid(slot, "got a chunk without tokens");
  if (start != length) {
    invalid(slot, "holds " + std::to_string(length) + " tokens, the chunk starts at " + std::to_string(start));
  }
  if (n > s.most - length) {
    invalid(slot, "would grow to " + std::to_string(length + n) + " tokens, it may have " + std::to_string(s.most));
  }
  if (pages_for(length + n) > s.pages.size()) {
    invalid(slot, "would grow to " + std::to_string(length + n) + " tokens, it has " + std::to_string(s.pages.size()) +
                      " pages");
  }
}

void SequenceStore::append(uint32_t slot, std::span<const uint32_t> tokens) {
  Sequence& s = sequences_[slot];
  s.tokens.insert(s.tokens.end(), tokens.begin(), tokens.end());
}

void SequenceStore::truncate(uint32_t slot, uint32_t length) { sequences_[slot].tokens.resize(length); }

}  // namespace orcd
