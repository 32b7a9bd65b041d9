#include "engine/sequences.h"

#include <algorithm>
#include <string>

namespace orcd {
namespace {

[[noreturn]] void invalid(uint32_t slot, const std::string& what) {
  throw Error(ErrorKind::kInvalid, "slot " + std::to_string(slot) + " " + what);
}

uint64_t pages_for(uint64_t tokens) { return (tokens + kPageTokens - 1) / kPageTokens; }

uint64_t limit_tokens(const EngineOptions& o) {
  const uint64_t all = uint64_t{o.slots} * o.context;
  return o.kv_limit_tokens == 0 ? all : std::min(all, o.kv_limit_tokens);
}

}  // namespace

SequenceStore::SequenceStore(const EngineOptions& options)
    : sequences_(options.slots),
      holders_(total_pages(options)),
      context_(options.context),
      limit_(limit_tokens(options)) {
  free_.reserve(holders_.size());
  for (auto page = static_cast<uint32_t>(holders_.size()); page > 0; --page) free_.push_back(page - 1);
}

uint32_t SequenceStore::total_pages(const EngineOptions& o) {
  // Each sequence may waste most of its last page.
  const uint64_t most = uint64_t{o.slots} * pages_for(o.context);
  return static_cast<uint32_t>(std::min(most, limit_tokens(o) / kPageTokens + o.slots));
}

const SequenceStore::Sequence& SequenceStore::at(uint32_t slot) const {
  if (slot >= sequences_.size()) invalid(slot, "does not exist: there are " + std::to_string(sequences_.size()));
  return sequences_[slot];
}

const SequenceStore::Sequence& SequenceStore::open_at(uint32_t slot) const {
  if (!at(slot).open) invalid(slot, "is not open");
  return sequences_[slot];
}

void SequenceStore::open(uint32_t slot, uint32_t max_tokens) {
  if (at(slot).open) invalid(slot, "is open already");
  if (max_tokens == 0) invalid(slot, "is to be opened for no tokens");
  const uint32_t asked = max_tokens;
  max_tokens = std::min(max_tokens, context_);
  const uint64_t left = limit_ - reserved_;
  if (max_tokens > left) {
    throw Error(ErrorKind::kOutOfMemory, "the KV cache has " + std::to_string(left) + " of " + std::to_string(limit_) +
                                             " positions free, the sequence needs " + std::to_string(max_tokens));
  }
  reserved_ += max_tokens;
  sequences_[slot].open = true;
  sequences_[slot].reserved = max_tokens;
  sequences_[slot].asked = asked;
}

std::vector<SequenceStore::Copy> SequenceStore::fork(uint32_t from, uint32_t to, uint32_t max_tokens) {
  const Sequence& parent = open_at(from);
  if (parent.tokens.size() > max_tokens) {
    invalid(from, "holds " + std::to_string(parent.tokens.size()) + " tokens, " + std::to_string(max_tokens) +
                      " are to be reserved for another one like it");
  }
  open(to, max_tokens);
  Sequence& child = sequences_[to];
  child.tokens = parent.tokens;
  child.asked = parent.asked;
  const size_t full = parent.tokens.size() / kPageTokens;
  child.pages.assign(parent.pages.begin(), parent.pages.begin() + static_cast<ptrdiff_t>(full));
  for (const uint32_t page : child.pages) ++holders_[page];
  if (parent.tokens.size() % kPageTokens == 0) return {};
  child.pages.push_back(take_page());
  return {{parent.pages[full], child.pages[full]}};
}

std::span<const uint32_t> SequenceStore::close(uint32_t slot) {
  open_at(slot);
  Sequence& s = sequences_[slot];
  released_.clear();
  for (const uint32_t page : s.pages) {
    if (--holders_[page] == 0) released_.push_back(page);
  }
  free_.insert(free_.end(), released_.rbegin(), released_.rend());
  reserved_ -= s.reserved;
  s = {};
  return released_;
}

void SequenceStore::check_append(uint32_t slot, uint32_t start, uint64_t n) const {
  const Sequence& s = open_at(slot);
  const uint64_t length = s.tokens.size();
  if (n == 0) invalid(slot, "got a chunk without tokens");
  if (start != length) {
    invalid(slot, "holds " + std::to_string(length) + " tokens, the chunk starts at " + std::to_string(start));
  }
  if (n > s.reserved - length) {
    invalid(slot,
            "would grow to " + std::to_string(length + n) + " tokens, " + std::to_string(s.reserved) + " are reserved");
  }
}

void SequenceStore::append(uint32_t slot, std::span<const uint32_t> tokens) {
  Sequence& s = sequences_[slot];
  s.tokens.insert(s.tokens.end(), tokens.begin(), tokens.end());
  while (s.pages.size() < pages_for(s.tokens.size())) s.pages.push_back(take_page());
}

void SequenceStore::truncate(uint32_t slot, uint32_t length) { sequences_[slot].tokens.resize(length); }

uint32_t SequenceStore::take_page() {
  // Reservations see to it that there is one.
  if (free_.empty()) throw Error(ErrorKind::kInvalid, "no KV page is left: more positions than reserved");
  const uint32_t page = free_.back();
  free_.pop_back();
  holders_[page] = 1;
  return page;
}

}  // namespace orcd
