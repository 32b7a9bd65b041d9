// Which page of the KV cache holds which positions of which sequence. Pages are one attention split long
// and are handed out when a sequence first reaches them; the engine's reservations see to it that they
// never run out. Host side: pure bookkeeping.
#pragma once

#include <cstdint>
#include <vector>

#include "arith/constants.h"
#include "orcd/engine.h"

namespace orcd::gpu {

class KvPages {
 public:
  // `limit_tokens`: positions that may be reserved at once. Each slot may waste most of its last page.
  KvPages(uint32_t slots, uint32_t context, uint64_t limit_tokens)
      : per_slot_((context + kAttnSplit - 1) / kAttnSplit),
        total_(uint32_t(limit_tokens / kAttnSplit) + slots),
        table_(uint64_t{slots} * per_slot_, kNone),
        held_(slots, 0) {
    free_.reserve(total_);
    for (uint32_t page = total_; page > 0; --page) free_.push_back(page - 1);
  }

  // Sees to it that `slot` has the page of `position`; true when the table changed.
  bool cover(uint32_t slot, uint32_t position) {
    const uint32_t wanted = position / kAttnSplit + 1;
    const bool changed = held_[slot] < wanted;
    for (; held_[slot] < wanted; ++held_[slot]) {
      if (free_.empty()) throw Error(ErrorKind::kInvalid, "no KV page left: more positions than reserved");
      table_[uint64_t{slot} * per_slot_ + held_[slot]] = free_.back();
      free_.pop_back();
    }
    return changed;
  }

  void release(uint32_t slot) {
    for (; held_[slot] > 0; --held_[slot]) free_.push_back(table_[uint64_t{slot} * per_slot_ + held_[slot] - 1]);
  }

  const uint32_t* row(uint32_t slot) const { return table_.data() + uint64_t{slot} * per_slot_; }
  uint32_t held(uint32_t slot) const { return held_[slot]; }
  uint32_t per_slot() const { return per_slot_; }
  uint32_t total() const { return total_; }

 private:
  static constexpr uint32_t kNone = 0;  // any valid page: positions behind the held ones are never read

  uint32_t per_slot_, total_;
  std::vector<uint32_t> table_;  // (slot, per_slot)
  std::vector<uint32_t> held_;   // (slot) pages
  std::vector<uint32_t> free_;
};

}  // namespace orcd::gpu
