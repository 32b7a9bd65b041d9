#include "cpu/weights.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <string>
#include <thread>

#include "cpu/pack.h"
#include "engine/model.h"
#include "formats/formats.h"

namespace orcd::cpu {
namespace {

constexpr uint64_t kPackBytes = 64 << 10;  // of a write that one thread packs at a time

constexpr int kSeals = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

constexpr uint64_t kPage = 4096;

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23  // Linux 5.14
#endif

[[noreturn]] void failed(ErrorKind kind, const std::string& what) {
  throw Error(kind, what + ": " + std::strerror(errno));
}

// Seals a memfd that nobody has mapped for writing. The kernel says EBUSY while it holds a page of it for itself, as it
// does for a moment when memory is short or the processors are busy, so that answer counts only if it stays.
bool seal_fd(int fd) {
  constexpr int kTries = 200;
  constexpr std::chrono::milliseconds kPause(10);
  for (int i = 0; i < kTries; ++i) {
    if (fcntl(fd, F_ADD_SEALS, kSeals) == 0) return true;
    if (errno != EBUSY) return false;
    std::this_thread::sleep_for(kPause);
  }
  errno = EBUSY;
  return false;
}

}  // namespace

std::unique_ptr<MemfdWeights> MemfdWeights::allocate(uint64_t bytes) {
  if (bytes == 0) throw Error(ErrorKind::kInvalid, "an empty weights image");
  const int fd = memfd_create("orcd-weights", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) failed(ErrorKind::kOutOfMemory, "memfd_create");
  std::unique_ptr<MemfdWeights> w(new MemfdWeights(fd, bytes));
  if (ftruncate(fd, static_cast<off_t>(bytes)) != 0) {
    failed(ErrorKind::kOutOfMemory, "a weights image of " + std::to_string(bytes) + " bytes");
  }
  w->map(PROT_READ | PROT_WRITE);
  w->packers_ = std::make_unique<Pool>(0);
  return w;
}

std::unique_ptr<MemfdWeights> MemfdWeights::attach(int fd, uint64_t bytes) {
  std::unique_ptr<MemfdWeights> w(new MemfdWeights(fd, bytes));
  const int seals = fcntl(fd, F_GET_SEALS);
  if (seals < 0 || (seals & kSeals) != kSeals) throw Error(ErrorKind::kInvalid, "the weights image is not sealed");
  struct stat info{};
  if (fstat(fd, &info) != 0) failed(ErrorKind::kInvalid, "the weights image cannot be examined");
  if (bytes == 0 || static_cast<uint64_t>(info.st_size) != bytes) {
    throw Error(ErrorKind::kInvalid,
                "the weights image has " + std::to_string(info.st_size) + " bytes, expected " + std::to_string(bytes));
  }
  w->sealed_ = true;
  w->map(PROT_READ);
  return w;
}

MemfdWeights::~MemfdWeights() {
  unmap();
  close(fd_);
}

void MemfdWeights::map(int protection) {
  void* p = mmap(nullptr, bytes_, protection, MAP_SHARED, fd_, 0);
  if (p == MAP_FAILED) failed(ErrorKind::kOutOfMemory, "mapping " + std::to_string(bytes_) + " bytes of weights");
  image_ = static_cast<uint8_t*>(p);
  // Fewer TLB misses where the kernel allows it for shared memory; no harm where not.
  madvise(image_, bytes_, MADV_HUGEPAGE);
}

void MemfdWeights::unmap() {
  if (image_) munmap(image_, bytes_);
  image_ = nullptr;
}

// ftruncate has promised memory that the kernel may not have: a write to such a page would end the process
// with SIGBUS. Asked for beforehand, it is an error that can be told. Piece by piece, by the threads that
// write: as a whole before reading, it would cost its time twice.
void MemfdWeights::reserve(uint64_t at, uint64_t n) {
  const uint64_t first = at / kPage * kPage;
  if (madvise(image_ + first, at + n - first, MADV_POPULATE_WRITE) == 0) return;
  const bool unknown = errno == EINVAL;  // an older kernel
  if (unknown && fallocate(fd_, 0, static_cast<off_t>(at), static_cast<off_t>(n)) == 0) return;
  if (unknown && (errno == EOPNOTSUPP || errno == ENOSYS)) return;
  failed(ErrorKind::kOutOfMemory, "memory for bytes " + std::to_string(at) + " to " + std::to_string(at + n) +
                                      " of the " + std::to_string(bytes_) + " bytes of weights");
}

uint64_t MemfdWeights::write(const TensorDesc& d, uint64_t first_row, std::span<const uint8_t> raw) {
  if (sealed_) throw Error(ErrorKind::kInvalid, "the weights image is sealed");
  const uint64_t n = rows_in(d, first_row, raw.size(), bytes_), row = formats::row_bytes(d.type, d.cols);
  // Rows don't touch each other's bytes, so threads may share them in any way.
  const uint64_t at_once = std::max<uint64_t>(1, kPackBytes / row);
  packers_->run(static_cast<uint32_t>((n + at_once - 1) / at_once), [&](uint32_t part) {
    const uint64_t end = std::min(n, (part + 1) * at_once);
    // Whole tiles: rows of one lie interleaved.
    const uint64_t from = (first_row + part * at_once) / kTileRows * kTileRows;
    const uint64_t to = std::min(d.rows, (first_row + end + kTileRows - 1) / kTileRows * kTileRows);
    reserve(d.offset + from * row, (to - from) * row);
    for (uint64_t i = part * at_once; i < end; ++i) {
      pack_row(d.type, d.rows, d.cols, first_row + i, raw.data() + i * row, image_ + d.offset);
    }
  });
  return 0;
}

void MemfdWeights::seal() {
  if (sealed_) return;
  packers_.reset();
  unmap();  // a writable mapping forbids F_SEAL_WRITE
  if (!seal_fd(fd_)) failed(ErrorKind::kDevice, "sealing the weights image");
  sealed_ = true;
  map(PROT_READ);
}

void MemfdWeights::read(const TensorDesc& d, uint64_t first_row, std::span<uint8_t> raw) const {
  const uint64_t n = rows_in(d, first_row, raw.size(), bytes_), row = formats::row_bytes(d.type, d.cols);
  for (uint64_t i = 0; i < n; ++i) {
    unpack_row(d.type, d.rows, d.cols, first_row + i, image_ + d.offset, raw.data() + i * row);
  }
}

}  // namespace orcd::cpu
