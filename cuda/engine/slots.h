// Which sequences are open, how long each is, and how many KV positions are promised in all.
#pragma once

#include <cstdint>
#include <vector>

namespace orcd {

class Slots {
 public:
  // `limit_tokens`: KV positions that may be reserved at once, all slots together.
  Slots(uint32_t slots, uint32_t context, uint64_t limit_tokens);

  // Reserves max_tokens positions. Throws kInvalid for a slot in use or too long a sequence,
  // kOutOfMemory when not enough positions are left.
  void open(uint32_t slot, uint32_t max_tokens);
  void close(uint32_t slot);

  // Throws kInvalid unless positions start .. start + n are the next ones of an open slot.
  void check_append(uint32_t slot, uint32_t start, uint64_t n) const;
  void append(uint32_t slot, uint32_t n);

  uint64_t limit_tokens() const { return limit_; }
  uint32_t count() const { return static_cast<uint32_t>(slots_.size()); }

 private:
  struct Slot {
    bool open = false;
    uint32_t reserved = 0;  // positions promised
    uint32_t length = 0;    // positions filled
  };
  const Slot& at(uint32_t slot) const;

  std::vector<Slot> slots_;
  uint32_t context_;
  uint64_t limit_;
  uint64_t reserved_ = 0;
};

}  // namespace orcd
