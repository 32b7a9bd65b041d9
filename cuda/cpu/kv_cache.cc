#include "cpu/kv_cache.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <string>

namespace orcd::cpu {
namespace {

constexpr uint64_t kSystemPage = 4096;

uint64_t page_bytes(const ModelShape& s) {
  const uint64_t bytes = uint64_t{s.n_layers} * s.n_kv_heads * HeadPage{s.head_dim}.bytes();
  return (bytes + kSystemPage - 1) / kSystemPage * kSystemPage;
}

}  // namespace

KvCache::KvCache(const ModelShape& s, uint32_t pages)
    : head_bytes_(HeadPage{s.head_dim}.bytes()),
      page_bytes_(page_bytes(s)),
      bytes_(bytes(s, pages)),
      kv_heads_(s.n_kv_heads) {
  void* p = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) {
    throw Error(ErrorKind::kOutOfMemory, "a KV cache of " + std::to_string(bytes_) + " bytes: " + std::strerror(errno));
  }
  memory_ = static_cast<uint8_t*>(p);
}

KvCache::~KvCache() { munmap(memory_, bytes_); }

void KvCache::copy(SequenceStore::Copy pages) {
  std::memcpy(memory_ + pages.to * page_bytes_, memory_ + pages.from * page_bytes_, page_bytes_);
}

void KvCache::release(std::span<const uint32_t> pages) {
  for (const uint32_t page : pages) madvise(memory_ + page * page_bytes_, page_bytes_, MADV_DONTNEED);
}

uint8_t* KvCache::head(uint32_t page, uint32_t layer, uint32_t kv_head) const {
  return memory_ + page * page_bytes_ + (uint64_t{layer} * kv_heads_ + kv_head) * head_bytes_;
}

uint64_t KvCache::bytes(const ModelShape& shape, uint32_t pages) { return pages * page_bytes(shape); }

}  // namespace orcd::cpu
