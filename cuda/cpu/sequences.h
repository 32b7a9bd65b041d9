// What a sequence leaves behind between steps: its keys and values, and the set of its tokens.
//
// Each slot has room for a whole context; the kernel commits a page when it is first written, and takes
// all of them back when the slot is closed.
#pragma once

#include <cstdint>
#include <vector>

#include "orcd/engine.h"

namespace orcd::cpu {

inline constexpr uint32_t kKeyBlock = 16;  // keys that lie interleaved: lanes of the score computation

class Sequences {
 public:
  Sequences(const ModelShape& shape, uint32_t slots, uint32_t context);
  ~Sequences();
  Sequences(const Sequences&) = delete;
  Sequences& operator=(const Sequences&) = delete;

  void open(uint32_t slot);
  void close(uint32_t slot);

  // (context / 16 rounded up to an even number, head_dim, 16) binary16: keys 16·b .. 16·b + 15 of block b
  uint16_t* keys(uint32_t slot, uint32_t layer, uint32_t kv_head) const;
  // (context, head_dim) binary16
  uint16_t* values(uint32_t slot, uint32_t layer, uint32_t kv_head) const;

  // One bit per token of the vocabulary.
  const std::vector<uint64_t>& seen(uint32_t slot) const { return seen_[slot]; }
  void note(uint32_t slot, uint32_t token) { seen_[slot][token / 64] |= uint64_t{1} << (token % 64); }

  // Bytes that one position takes.
  static uint64_t bytes_per_token(const ModelShape& shape);

 private:
  uint64_t head_elements_;  // of the keys, or the values, of one head
  uint64_t slot_bytes_;     // whole pages
  uint32_t kv_heads_, slots_;
  uint8_t* memory_;         // (slots, slot_bytes_); in a slot: (layer, kv_head, {keys, values}, head_elements_)
  std::vector<std::vector<uint64_t>> seen_;
};

}  // namespace orcd::cpu
