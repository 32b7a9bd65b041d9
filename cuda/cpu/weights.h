// The weights image of the CPU backend: a memfd, sealed once written, so that it outlives the process
// that built it and nobody can change it.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "cpu/pool.h"
#include "orcd/engine.h"

namespace orcd::cpu {

class HostStaging final : public Staging {
 public:
  explicit HostStaging(size_t bytes) : bytes_(bytes) {}
  std::span<uint8_t> bytes() override { return bytes_; }

 private:
  std::vector<uint8_t> bytes_;
};

class MemfdWeights final : public Weights {
 public:
  static std::unique_ptr<MemfdWeights> allocate(uint64_t bytes);
  // Takes ownership of fd. Throws kInvalid unless it is sealed and of this size.
  static std::unique_ptr<MemfdWeights> attach(int fd, uint64_t bytes);
  ~MemfdWeights() override;
  MemfdWeights(const MemfdWeights&) = delete;
  MemfdWeights& operator=(const MemfdWeights&) = delete;

  uint64_t write(const TensorDesc& desc, uint64_t first_row, std::span<const uint8_t> raw) override;
  void wait(uint64_t) override {}
  void seal() override;
  void read(const TensorDesc& desc, uint64_t first_row, std::span<uint8_t> raw) const override;
  int fd() const override { return fd_; }
  uint64_t bytes() const override { return bytes_; }

  bool sealed() const { return sealed_; }
  const uint8_t* image() const { return image_; }

 private:
  MemfdWeights(int fd, uint64_t bytes) : fd_(fd), bytes_(bytes) {}
  void map(int protection);
  void unmap();
  // Has the kernel put memory behind `n` bytes of the image; throws kOutOfMemory if it has none.
  void reserve(uint64_t at, uint64_t n);

  int fd_;
  uint64_t bytes_;
  uint8_t* image_ = nullptr;  // (bytes_)
  bool sealed_ = false;
  std::unique_ptr<Pool> packers_;  // while the image is written
};

}  // namespace orcd::cpu
