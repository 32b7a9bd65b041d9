// The KV pool in device memory: one exportable allocation.
#pragma once

#include <unistd.h>

#include <memory>
#include <utility>

#include "device/vmm.h"
#include "orcd/engine.h"

namespace orcd::gpu {

class VmmKvMemory final : public KvMemory {
 public:
  static std::unique_ptr<VmmKvMemory> allocate(int ordinal, uint64_t bytes) {
    std::unique_ptr<VmmKvMemory> m(new VmmKvMemory(device::Vmm::create(ordinal, bytes), bytes));
    m->fd_ = m->memory_.export_fd();
    return m;
  }

  // Takes ownership of fd.
  static std::unique_ptr<VmmKvMemory> attach(int ordinal, int fd, uint64_t bytes) {
    const Descriptor owned{fd};
    std::unique_ptr<VmmKvMemory> m(new VmmKvMemory(device::Vmm::import(ordinal, fd, bytes, true), bytes));
    m->fd_ = owned.release();
    return m;
  }

  ~VmmKvMemory() override {
    if (fd_ >= 0) close(fd_);
  }
  VmmKvMemory(const VmmKvMemory&) = delete;
  VmmKvMemory& operator=(const VmmKvMemory&) = delete;

  int fd() const override { return fd_; }
  uint64_t bytes() const override { return bytes_; }
  uint8_t* data() const { return memory_.data(); }

 private:
  // Closed unless somebody takes it.
  struct Descriptor {
    mutable int fd;
    ~Descriptor() {
      if (fd >= 0) close(fd);
    }
    int release() const { return std::exchange(fd, -1); }
  };

  VmmKvMemory(device::Vmm memory, uint64_t bytes) : memory_(std::move(memory)), bytes_(bytes) {}

  device::Vmm memory_;
  uint64_t bytes_;
  int fd_ = -1;
};

}  // namespace orcd::gpu
