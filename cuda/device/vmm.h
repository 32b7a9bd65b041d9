// One exportable allocation of device memory (CUDA virtual memory management): it can be handed to
// another process as a file descriptor, and lives as long as somebody holds the descriptor.
#pragma once

#include <cstdint>

#include "device/check.h"

namespace orcd::device {

class Vmm {
 public:
  // A fresh allocation of at least `bytes`, mapped for reading and writing.
  static Vmm create(int ordinal, uint64_t bytes);
  // The allocation of `fd` (which stays the caller's), mapped read-only or for writing too.
  static Vmm import(int ordinal, int fd, uint64_t bytes, bool writable = false);

  Vmm(Vmm&& other) noexcept;
  Vmm& operator=(Vmm&& other) noexcept;
  ~Vmm();

  void make_read_only();  // a stray write faults from now on
  int export_fd() const;  // a new descriptor, owned by the caller
  uint8_t* data() const { return reinterpret_cast<uint8_t*>(address_); }
  uint64_t mapped_bytes() const { return mapped_; }

 private:
  Vmm() = default;
  void map(int writable);

  int ordinal_ = 0;
  uint64_t handle_ = 0;   // CUmemGenericAllocationHandle
  uint64_t address_ = 0;  // CUdeviceptr
  uint64_t mapped_ = 0;   // bytes, a multiple of the allocation granularity
};

// Whether [p, ...) is plain memory of this device: neither managed nor on the host.
bool is_device_memory(const void* p, int ordinal);

}  // namespace orcd::device
