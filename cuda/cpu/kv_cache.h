// Keys and values of all sequences, by page. The kernel commits memory when a page is first written, and takes it back
// when the page is released.
#pragma once

#include <cstdint>
#include <span>

#include "engine/sequences.h"

namespace orcd::cpu {

inline constexpr uint32_t kKeyBlock = 16;  // keys that lie interleaved: lanes of the score computation

class KvCache {
 public:
  KvCache(const ModelShape& shape, uint32_t pages);
  ~KvCache();
  KvCache(const KvCache&) = delete;
  KvCache& operator=(const KvCache&) = delete;

  void copy(SequenceStore::Copy pages);
  void release(std::span<const uint32_t> pages);

  // (64 / 16, head_dim, 16) binary16: keys 16·b .. 16·b + 15 of block b
  uint16_t* keys(uint32_t page, uint32_t layer, uint32_t kv_head) const;
  // (64, head_dim) binary16
  uint16_t* values(uint32_t page, uint32_t layer, uint32_t kv_head) const;

  // From the keys, or values, of a page to those of the next one, in elements.
  uint64_t page_stride() const { return page_bytes_ / sizeof(uint16_t); }

  // Bytes of so many pages.
  static uint64_t bytes(const ModelShape& shape, uint32_t pages);

 private:
  uint64_t head_elements_;  // of the keys, or the values, of one head in a page
  uint64_t page_bytes_;     // whole pages of the system
  uint64_t bytes_;
  uint32_t kv_heads_;
  uint8_t* memory_;  // (pages, page_bytes_); in a page: (layer, kv_head, {keys, values}, head_elements_)
};

}  // namespace orcd::cpu
