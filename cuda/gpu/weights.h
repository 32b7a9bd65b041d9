// The weights image in device memory: packed by the device as the file's rows arrive, then read-only.
#pragma once

#include <memory>

#include "device/buffer.h"
#include "device/stream.h"
#include "device/vmm.h"
#include "orcd/engine.h"

namespace orcd::gpu {

class PinnedStaging final : public Staging {
 public:
  explicit PinnedStaging(size_t bytes) : bytes_(bytes) {}
  std::span<uint8_t> bytes() override { return {bytes_.data(), bytes_.size()}; }

 private:
  device::Pinned<uint8_t> bytes_;
};

class VmmWeights final : public Weights {
 public:
  static std::unique_ptr<VmmWeights> allocate(int ordinal, uint64_t bytes);
  static std::unique_ptr<VmmWeights> attach(int ordinal, int fd, uint64_t bytes);  // takes ownership of fd
  ~VmmWeights() override;

  uint64_t write(const TensorDesc& desc, uint64_t first_row, std::span<const uint8_t> raw) override;
  void wait(uint64_t ticket) override;
  void seal() override;
  void read(const TensorDesc& desc, uint64_t first_row, std::span<uint8_t> raw) const override;
  int fd() const override { return fd_; }
  uint64_t bytes() const override { return bytes_; }

  const uint8_t* image() const { return memory_.data(); }
  bool sealed() const { return sealed_; }

 private:
  // Rows of the file in device memory, between their copy and their place in the image.
  struct Lane {
    device::Buffer<uint8_t> raw;
    device::Event copied, packed;
  };
  static constexpr uint32_t kLanes = 4;
  static constexpr size_t kLaneBytes = 2 << 20;
  static constexpr uint32_t kTickets = 64;

  VmmWeights(device::Vmm memory, uint64_t bytes) : memory_(std::move(memory)), bytes_(bytes) {}
  Lane& next_lane(size_t bytes);
  const device::Event& read_of(uint64_t ticket) const { return read_[ticket % kTickets]; }

  device::Vmm memory_;
  uint64_t bytes_;
  int fd_ = -1;
  bool sealed_ = false;
  device::Stream copies_, packing_;
  Lane lanes_[kLanes];
  uint32_t turn_ = 0;
  uint64_t written_ = 0;          // number of the last write
  device::Event read_[kTickets];  // of write n at n % kTickets, for `wait`
};

}  // namespace orcd::gpu
