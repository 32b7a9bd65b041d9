// Keys and values of all sequences, by page. The kernel commits memory when a page is first written, and takes it back
// when the page is released.
#pragma once

#include <cstdint>
#include <span>

#include "engine/sequences.h"

namespace orcd::cpu {

inline constexpr uint32_t kKeyBlock = 16;  // keys that lie interleaved: lanes of the score computation

// Where a KV head's keys and values lie in a page. Integers of two dimensions of a key, or of two keys in a dimension,
// lie side by side: what a multiply-add of pairs takes.
struct HeadPage {
  uint32_t head_dim;

  // (4, head_dim / 2, 16, 2) int16
  uint32_t key(uint32_t token, uint32_t d) const {
    return ((token / kKeyBlock * (head_dim / 2) + d / 2) * kKeyBlock + token % kKeyBlock) * 4 + d % 2 * 2;
  }
  // (32, head_dim, 2) int8
  uint32_t value(uint32_t token, uint32_t d) const {
    return kPageTokens * head_dim * 2 + (token / 2 * head_dim + d) * 2 + token % 2;
  }
  // (64) float, and the same of the values behind them
  uint32_t key_scale(uint32_t token) const { return (kPageTokens * head_dim * 3 + token * 4 + 3) / 4 * 4; }
  uint32_t value_scale(uint32_t token) const { return key_scale(kPageTokens + token); }
  uint32_t bytes() const { return key_scale(2 * kPageTokens); }
};

class KvCache {
 public:
  KvCache(const ModelShape& shape, uint32_t pages);
  ~KvCache();
  KvCache(const KvCache&) = delete;
  KvCache& operator=(const KvCache&) = delete;

  void copy(SequenceStore::Copy pages);
  void release(std::span<const uint32_t> pages);

  // One KV head in a page.
  uint8_t* head(uint32_t page, uint32_t layer, uint32_t kv_head) const;

  // From a head in a page to the same one in the next page, bytes.
  uint64_t page_stride() const { return page_bytes_; }

  // Bytes of so many pages.
  static uint64_t bytes(const ModelShape& shape, uint32_t pages);

 private:
  uint64_t head_bytes_;  // of one head in a page
  uint64_t page_bytes_;  // whole pages of the system
  uint64_t bytes_;
  uint32_t kv_heads_;
  uint8_t* memory_;  // (pages, page_bytes_); in a page: (layer, kv_head, head_bytes_)
};

}  // namespace orcd::cpu
