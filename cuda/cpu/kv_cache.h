// Keys and values of all sequences, by page, in the memory of a pool. The kernel commits memory when a page is first
// written, and takes it back when the page is released.
#pragma once

#include <cstdint>
#include <memory>
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

// A memfd of fixed size, mapped for reading and writing.
class MemfdKvMemory final : public KvMemory {
 public:
  static std::unique_ptr<MemfdKvMemory> allocate(uint64_t bytes);
  // Takes ownership of fd. Throws kInvalid unless it has this size for good.
  static std::unique_ptr<MemfdKvMemory> attach(int fd, uint64_t bytes);
  ~MemfdKvMemory() override;
  MemfdKvMemory(const MemfdKvMemory&) = delete;
  MemfdKvMemory& operator=(const MemfdKvMemory&) = delete;

  int fd() const override { return fd_; }
  uint64_t bytes() const override { return bytes_; }
  uint8_t* data() const { return data_; }

 private:
  MemfdKvMemory(int fd, uint64_t bytes) : fd_(fd), bytes_(bytes) {}
  void map();

  int fd_;
  uint64_t bytes_;
  uint8_t* data_ = nullptr;
};

// Of where values lie in a HeadPage.
uint32_t page_layout(uint32_t head_dim);

class KvCache {
 public:
  KvCache(const ModelShape& shape, uint32_t pages, const MemfdKvMemory& memory);

  void copy(uint32_t from, uint32_t to);  // with its sums
  // Gives their memory back to the system, or fills them so that whoever reads them is found out.
  void release(std::span<const uint32_t> pages, bool poison);
  void sum(const PageRows& rows);
  bool is_sound(const PageRows& rows) const;

  // One KV head in a page.
  uint8_t* head(uint32_t page, uint32_t layer, uint32_t kv_head) const;

  // From a head in a page to the same one in the next page, bytes.
  uint64_t page_stride() const { return page_bytes_; }

  // Bytes of so many pages and their sums.
  static uint64_t bytes(const ModelShape& shape, uint32_t pages);

 private:
  uint64_t sum_of(uint32_t page) const;
  uint64_t sum_of(uint32_t page, uint32_t position) const;

  uint64_t head_bytes_;  // of one head in a page
  uint64_t used_bytes_;  // of all heads in a page
  uint64_t page_bytes_;  // whole pages of the system
  uint32_t head_dim_, kv_heads_;
  uint8_t* memory_;  // (pages, page_bytes_); in a page: (layer, kv_head, head_bytes_)
  uint64_t* sums_;   // (pages, 64) of each position
};

}  // namespace orcd::cpu
