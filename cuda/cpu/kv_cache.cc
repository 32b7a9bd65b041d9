#include "cpu/kv_cache.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <numeric>
#include <string>

#include "arith/page_sum.h"
#include "engine/layout_version.h"

namespace orcd::cpu {
namespace {

constexpr uint64_t kSystemPage = 4096;
// Nobody can take memory away from under a process that has it mapped.
constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

uint64_t used_bytes(const ModelShape& s) { return uint64_t{s.n_layers} * s.n_kv_heads * HeadPage{s.head_dim}.bytes(); }

uint64_t page_bytes(const ModelShape& s) { return (used_bytes(s) + kSystemPage - 1) / kSystemPage * kSystemPage; }

[[noreturn]] void failed(ErrorKind kind, const std::string& what) {
  throw Error(kind, what + ": " + std::strerror(errno));
}

std::string pool_of(uint64_t bytes) { return "a KV pool of " + std::to_string(bytes) + " bytes"; }

}  // namespace

std::unique_ptr<MemfdKvMemory> MemfdKvMemory::allocate(uint64_t bytes) {
  const int fd = memfd_create("orcd-kv", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) failed(ErrorKind::kOutOfMemory, pool_of(bytes));
  std::unique_ptr<MemfdKvMemory> memory(new MemfdKvMemory(fd, bytes));
  if (ftruncate(fd, static_cast<off_t>(bytes)) != 0) failed(ErrorKind::kOutOfMemory, pool_of(bytes));
  if (fcntl(fd, F_ADD_SEALS, kSeals) != 0) failed(ErrorKind::kDevice, "sealing the size of the KV pool");
  memory->map();
  return memory;
}

std::unique_ptr<MemfdKvMemory> MemfdKvMemory::attach(int fd, uint64_t bytes) {
  std::unique_ptr<MemfdKvMemory> memory(new MemfdKvMemory(fd, bytes));
  const int seals = fcntl(fd, F_GET_SEALS);
  if (seals < 0 || (seals & kSeals) != kSeals) throw Error(ErrorKind::kInvalid, "the KV pool's size is not sealed");
  struct stat info{};
  if (fstat(fd, &info) != 0) failed(ErrorKind::kInvalid, "the KV pool cannot be examined");
  if (bytes == 0 || static_cast<uint64_t>(info.st_size) != bytes) {
    throw Error(ErrorKind::kInvalid,
                "the KV pool has " + std::to_string(info.st_size) + " bytes, expected " + std::to_string(bytes));
  }
  memory->map();
  return memory;
}

MemfdKvMemory::~MemfdKvMemory() {
  if (data_) munmap(data_, bytes_);
  close(fd_);
}

void MemfdKvMemory::map() {
  void* p = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd_, 0);
  if (p == MAP_FAILED) failed(ErrorKind::kOutOfMemory, "mapping " + pool_of(bytes_));
  data_ = static_cast<uint8_t*>(p);
}

uint32_t page_layout(uint32_t head_dim) {
  const HeadPage page{head_dim};
  LayoutHash hash;
  for (uint32_t token = 0; token < kPageTokens; ++token) {
    for (uint32_t d = 0; d < head_dim; ++d) hash.add(page.key(token, d)), hash.add(page.value(token, d));
    hash.add(page.key_scale(token)), hash.add(page.value_scale(token));
  }
  return hash.value();
}

KvCache::KvCache(const ModelShape& s, uint32_t pages, const MemfdKvMemory& memory)
    : head_bytes_(HeadPage{s.head_dim}.bytes()),
      used_bytes_(used_bytes(s)),
      page_bytes_(page_bytes(s)),
      head_dim_(s.head_dim),
      kv_heads_(s.n_kv_heads),
      memory_(memory.data()),
      sums_(reinterpret_cast<uint64_t*>(memory_ + pages * page_bytes_)) {
  if (memory.bytes() == bytes(s, pages)) return;
  throw Error(ErrorKind::kInvalid, "the KV pool has " + std::to_string(memory.bytes()) + " bytes, its pages take " +
                                       std::to_string(bytes(s, pages)));
}

void KvCache::copy(uint32_t from, uint32_t to) {
  std::memcpy(memory_ + to * page_bytes_, memory_ + from * page_bytes_, page_bytes_);
  std::copy_n(sums_ + uint64_t{from} * kPageTokens, kPageTokens, sums_ + uint64_t{to} * kPageTokens);
}

void KvCache::release(std::span<const uint32_t> pages, bool poison) {
  for (const uint32_t page : pages) {
    uint8_t* begin = memory_ + page * page_bytes_;
    if (poison) std::memset(begin, 0xff, page_bytes_);  // scales that are NaN
    else madvise(begin, page_bytes_, MADV_REMOVE);
  }
}

uint64_t KvCache::sum_of(uint32_t page) const {
  const auto* words = reinterpret_cast<const uint32_t*>(memory_ + page * page_bytes_);
  return arith::page_sum(words, used_bytes_ / 4);
}

// The bytes of one position alone.
uint64_t KvCache::sum_of(uint32_t page, uint32_t position) const {
  const uint8_t* memory = memory_ + page * page_bytes_;
  const HeadPage head{head_dim_};
  uint64_t sum = arith::empty_position_sum(used_bytes_ / 4);
  const auto add_word = [&](uint32_t offset) {
    uint32_t word = 0;
    std::memcpy(&word, memory + offset, sizeof(word));
    sum += arith::page_sum_of(word, offset / 4);
  };
  for (uint32_t begin = 0; begin < used_bytes_; begin += head_bytes_) {
    for (uint32_t d = 0; d < head_dim_; d += 2) add_word(begin + head.key(position, d));
    for (uint32_t d = 0; d < head_dim_; ++d) {
      const uint32_t offset = begin + head.value(position, d);
      sum += arith::page_sum_of_byte(memory[offset], offset);
    }
    add_word(begin + head.key_scale(position));
    add_word(begin + head.value_scale(position));
  }
  return sum;
}

void KvCache::sum(const PageRows& rows) {
  for (uint32_t p = rows.from; p < rows.to; ++p) sums_[uint64_t{rows.page} * kPageTokens + p] = sum_of(rows.page, p);
}

bool KvCache::is_sound(const PageRows& rows) const {
  const uint64_t* sums = sums_ + uint64_t{rows.page} * kPageTokens;
  if (rows.to - rows.from == kPageTokens)
    return std::accumulate(sums, sums + kPageTokens, uint64_t{0}) == sum_of(rows.page);
  for (uint32_t p = rows.from; p < rows.to; ++p)
    if (sums[p] != sum_of(rows.page, p)) return false;
  return true;
}

uint8_t* KvCache::head(uint32_t page, uint32_t layer, uint32_t kv_head) const {
  return memory_ + page * page_bytes_ + (uint64_t{layer} * kv_heads_ + kv_head) * head_bytes_;
}

uint64_t KvCache::bytes(const ModelShape& shape, uint32_t pages) {
  return pages * (page_bytes(shape) + kPageTokens * sizeof(uint64_t));
}

}  // namespace orcd::cpu
