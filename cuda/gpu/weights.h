// The weights image in device memory: packed by the device as the file's rows arrive, then read-only.
#pragma once

#include <memory>

#include "device/buffer.h"
#include "device/stream.h"
#include "device/vmm.h"
#include "orcd/engine.h"

namespace orcd::gpu {

class VmmWeights final : public Weights {
 public:
  static std::unique_ptr<VmmWeights> allocate(int ordinal, uint64_t bytes);
  static std::unique_ptr<VmmWeights> attach(int ordinal, int fd, uint64_t bytes);  // takes ownership of fd
  ~VmmWeights() override;

  void write(const TensorDesc& desc, uint64_t first_row, std::span<const uint8_t> raw) override;
  void seal() override;
  void read(const TensorDesc& desc, uint64_t first_row, std::span<uint8_t> raw) const override;
  int fd() const override { return fd_; }
  uint64_t bytes() const override { return bytes_; }

  const uint8_t* image() const { return memory_.data(); }
  bool sealed() const { return sealed_; }

 private:
  // A piece of the file on its way: host memory, then device memory, then packed into the image.
  struct Lane {
    device::Pinned<uint8_t> host;
    device::Buffer<uint8_t> device;
    device::Event packed;
    bool busy = false;
  };
  static constexpr uint32_t kLanes = 3;
  static constexpr size_t kLaneBytes = 8 << 20;

  VmmWeights(device::Vmm memory, uint64_t bytes) : memory_(std::move(memory)), bytes_(bytes) {}
  Lane& next_lane(size_t bytes);

  device::Vmm memory_;
  uint64_t bytes_;
  int fd_ = -1;
  bool sealed_ = false;
  device::Stream stream_;
  Lane lanes_[kLanes];
  uint32_t turn_ = 0;
};

}  // namespace orcd::gpu
