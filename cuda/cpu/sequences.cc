#include "cpu/sequences.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

namespace orcd::cpu {
namespace {

constexpr uint64_t kPage = 4096;

uint64_t round_up(uint64_t n, uint64_t to) { return (n + to - 1) / to * to; }

}  // namespace

Sequences::Sequences(const ModelShape& s, uint32_t slots, uint32_t context)
    : head_elements_(round_up(context, 2 * kKeyBlock) * s.head_dim),
      slot_bytes_(round_up(uint64_t{s.n_layers} * s.n_kv_heads * 2 * head_elements_ * sizeof(uint16_t), kPage)),
      kv_heads_(s.n_kv_heads),
      slots_(slots),
      seen_(slots, std::vector<uint64_t>((s.vocab + 63) / 64)) {
  const uint64_t bytes = slots * slot_bytes_;
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) {
    throw Error(ErrorKind::kOutOfMemory, "a KV cache of " + std::to_string(bytes) + " bytes: " + std::strerror(errno));
  }
  memory_ = static_cast<uint8_t*>(p);
}

Sequences::~Sequences() { munmap(memory_, slots_ * slot_bytes_); }

void Sequences::open(uint32_t slot) { std::fill(seen_[slot].begin(), seen_[slot].end(), 0); }

void Sequences::close(uint32_t slot) { madvise(memory_ + slot * slot_bytes_, slot_bytes_, MADV_DONTNEED); }

uint16_t* Sequences::keys(uint32_t slot, uint32_t layer, uint32_t kv_head) const {
  auto* base = reinterpret_cast<uint16_t*>(memory_ + slot * slot_bytes_);
  return base + (uint64_t{layer} * kv_heads_ + kv_head) * 2 * head_elements_;
}

uint16_t* Sequences::values(uint32_t slot, uint32_t layer, uint32_t kv_head) const {
  return keys(slot, layer, kv_head) + head_elements_;
}

uint64_t Sequences::bytes_per_token(const ModelShape& s) {
  return uint64_t{s.n_layers} * s.n_kv_heads * 2 * s.head_dim * sizeof(uint16_t);
}

}  // namespace orcd::cpu
