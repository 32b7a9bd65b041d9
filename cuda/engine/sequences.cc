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
    : sequences_(options.slots), holders_(total_pages(options)), context_(options.context) {
  free_.reserve(holders_.size());
  for (auto page = static_cast<uint32_t>(holders_.size()); page > 0; --page) free_.push_back(page - 1);
}

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

void SequenceStore::open(uint32_t slot, uint32_t max_tokens) {
  if (at(slot).open) invalid(slot, "is open already");
  if (max_tokens == 0) invalid(slot, "is to be opened for no tokens");
  sequences_[slot].open = true;
  sequences_[slot].asked = max_tokens;
  sequences_[slot].most = std::min(max_tokens, context_);
}

std::vector<SequenceStore::Copy> SequenceStore::fork(uint32_t from, uint32_t to, uint32_t max_tokens) {
  const Sequence& parent = open_at(from);
  if (parent.tokens.size() > max_tokens) {
    invalid(from, "holds " + std::to_string(parent.tokens.size()) + " tokens, another one like it is to have " +
                      std::to_string(max_tokens) + " at most");
  }
  open(to, max_tokens);
  const bool copies = parent.tokens.size() % kPageTokens != 0;
  if (copies && free_.empty()) {
    sequences_[to] = {};
    throw Error(ErrorKind::kOutOfMemory, "all " + std::to_string(holders_.size()) +
                                             " KV pages are taken, and a fork needs one for its last tokens");
  }
  Sequence& child = sequences_[to];
  child.tokens = parent.tokens;
  child.asked = parent.asked;
  const size_t full = parent.tokens.size() / kPageTokens;
  child.pages.assign(parent.pages.begin(), parent.pages.begin() + static_cast<ptrdiff_t>(full));
  for (const uint32_t page : child.pages) ++holders_[page];
  if (!copies) return {};
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
  s = {};
  return released_;
}

uint64_t SequenceStore::check_append(uint32_t slot, uint32_t start, uint64_t n) const {
  const Sequence& s = open_at(slot);
  const uint64_t length = s.tokens.size();
  if (n == 0) invalid(slot, "got a chunk without tokens");
  if (start != length) {
    invalid(slot, "holds " + std::to_string(length) + " tokens, the chunk starts at " + std::to_string(start));
  }
  if (n > s.most - length) {
    invalid(slot, "would grow to " + std::to_string(length + n) + " tokens, it may have " + std::to_string(s.most));
  }
  const uint64_t pages = pages_for(length + n);
  return pages > s.pages.size() ? pages - s.pages.size() : 0;
}

void SequenceStore::append(uint32_t slot, std::span<const uint32_t> tokens) {
  Sequence& s = sequences_[slot];
  s.tokens.insert(s.tokens.end(), tokens.begin(), tokens.end());
  while (s.pages.size() < pages_for(s.tokens.size())) s.pages.push_back(take_page());
}

void SequenceStore::truncate(uint32_t slot, uint32_t length) { sequences_[slot].tokens.resize(length); }

uint32_t SequenceStore::take_page() {
  if (free_.empty()) throw Error(ErrorKind::kOutOfMemory, "no KV page is left");  // the callers have looked
  const uint32_t page = free_.back();
  free_.pop_back();
  holders_[page] = 1;
  return page;
}

}  // namespace orcd
