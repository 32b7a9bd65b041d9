#include "engine/slots.h"

#include <string>

#include "orcd/engine.h"

namespace orcd {
namespace {

[[noreturn]] void invalid(uint32_t slot, const std::string& what) {
  throw Error(ErrorKind::kInvalid, "slot " + std::to_string(slot) + " " + what);
}

}  // namespace

Slots::Slots(uint32_t slots, uint32_t context, uint64_t limit_tokens)
    : slots_(slots), context_(context), limit_(limit_tokens) {}

const Slots::Slot& Slots::at(uint32_t slot) const {
  if (slot >= slots_.size()) invalid(slot, "does not exist: there are " + std::to_string(slots_.size()));
  return slots_[slot];
}

void Slots::open(uint32_t slot, uint32_t max_tokens) {
  if (at(slot).open) invalid(slot, "is open already");
  if (max_tokens == 0 || max_tokens > context_) {
    invalid(slot, "cannot hold " + std::to_string(max_tokens) + " tokens: the context is " + std::to_string(context_));
  }
  const uint64_t left = limit_ - reserved_;
  if (max_tokens > left) {
    throw Error(ErrorKind::kOutOfMemory, "the KV cache has " + std::to_string(left) + " of " + std::to_string(limit_) +
                                             " positions free, the sequence needs " + std::to_string(max_tokens));
  }
  reserved_ += max_tokens;
  slots_[slot] = {true, max_tokens, 0};
}

void Slots::close(uint32_t slot) {
  if (!at(slot).open) invalid(slot, "is not open");
  reserved_ -= slots_[slot].reserved;
  slots_[slot] = {};
}

void Slots::check_append(uint32_t slot, uint32_t start, uint64_t n) const {
  const Slot& s = at(slot);
  if (!s.open) invalid(slot, "is not open");
  if (n == 0) invalid(slot, "got a chunk without tokens");
  if (start != s.length) {
    invalid(slot, "holds " + std::to_string(s.length) + " tokens, the chunk starts at " + std::to_string(start));
  }
  if (n > s.reserved - s.length) {
    invalid(slot, "would grow to " + std::to_string(s.length + n) + " tokens, " + std::to_string(s.reserved) +
                      " are reserved");
  }
}

void Slots::append(uint32_t slot, uint32_t n) { slots_[slot].length += n; }

}  // namespace orcd
