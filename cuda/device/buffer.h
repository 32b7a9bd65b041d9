// Owners of memory: device memory by cudaMalloc, and page-locked host memory for staging and the
// few control words. All of it is taken while the engine is built; steps allocate nothing.
#pragma once

#include <cstddef>
#include <span>
#include <utility>

#include "device/check.h"

namespace orcd::device {

template <class T>
class Buffer {  // device memory, `count` elements, uninitialized
 public:
  Buffer() = default;
  explicit Buffer(size_t count) : count_(count) {
    if (count) ORCD_CUDA(cudaMalloc(&data_, count * sizeof(T)));
  }
  Buffer(Buffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), count_(std::exchange(other.count_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(count_, other.count_);
    return *this;
  }
  ~Buffer() { cudaFree(data_); }  // nothing to be done about an error here: the context may be gone

  T* data() const { return data_; }
  size_t size() const { return count_; }
  size_t bytes() const { return count_ * sizeof(T); }

  void zero() {
    if (count_) ORCD_CUDA(cudaMemset(data_, 0, bytes()));
  }
  void upload(std::span<const T> host) {  // blocking; for set-up
    ORCD_CUDA(cudaMemcpy(data_, host.data(), host.size_bytes(), cudaMemcpyHostToDevice));
  }

 private:
  T* data_ = nullptr;
  size_t count_ = 0;
};

template <class T>
class Pinned {  // page-locked host memory
 public:
  Pinned() = default;
  explicit Pinned(size_t count) : count_(count) {
    if (count) ORCD_CUDA(cudaMallocHost(&data_, count * sizeof(T)));
  }
  Pinned(Pinned&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), count_(std::exchange(other.count_, 0)) {}
  Pinned& operator=(Pinned&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(count_, other.count_);
    return *this;
  }
  ~Pinned() { cudaFreeHost(data_); }

  T* data() const { return data_; }
  size_t size() const { return count_; }
  T& operator[](size_t i) const { return data_[i]; }

 private:
  T* data_ = nullptr;
  size_t count_ = 0;
};

}  // namespace orcd::device
