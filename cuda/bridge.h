// The engine as cxx takes it over to Rust. Nothing of the C++ inside leaks: opaque types here, plain
// shared structs in ffi.rs.
#pragma once

#include <memory>
#include <new>
#include <string>

#include "orcd/engine.h"
#include "rust/cxx.h"

namespace rust::behavior {

// What crosses the border is a message; its first character is the ErrorKind. An exception that is none
// of ours may have left anything half done, so it counts as the loss of the device.
template <typename Try, typename Fail>
static void trycatch(Try&& call, Fail&& fail) noexcept {
  try {
    call();
  } catch (const orcd::Error& e) {
    fail(static_cast<char>('0' + static_cast<int>(e.kind)) + std::string(e.what()));
  } catch (const std::bad_alloc&) {
    fail(static_cast<char>('0' + static_cast<int>(orcd::ErrorKind::kDevice)) + std::string("the host has no memory left for this process"));
  } catch (const std::exception& e) {
    fail(static_cast<char>('0' + static_cast<int>(orcd::ErrorKind::kDevice)) + std::string(e.what()));
  }
}

}  // namespace rust::behavior

namespace orcd::bridge {

struct Shape;
struct Tensor;
struct Options;
struct StepChunk;
struct Device;

class StagingMemory {
 public:
  explicit StagingMemory(std::unique_ptr<Staging> staging) : staging_(std::move(staging)) {}
  rust::Slice<uint8_t> bytes();

 private:
  std::unique_ptr<Staging> staging_;
};

class WeightsImage {
 public:
  explicit WeightsImage(std::unique_ptr<Weights> weights) : weights_(std::move(weights)) {}
  uint64_t write(const Tensor& tensor, uint64_t first_row, rust::Slice<const uint8_t> raw);
  void wait(uint64_t ticket) { weights_->wait(ticket); }
  void read(const Tensor& tensor, uint64_t first_row, rust::Slice<uint8_t> raw) const;
  void seal() { weights_->seal(); }
  int32_t share() const;  // a new descriptor of the image
  uint64_t bytes() const { return weights_->bytes(); }
  const Weights& get() const { return *weights_; }

 private:
  std::unique_ptr<Weights> weights_;
};

// An engine and the weights it borrows.
class RunningEngine {
 public:
  RunningEngine(std::unique_ptr<WeightsImage> weights, std::unique_ptr<Engine> engine)
      : weights_(std::move(weights)), engine_(std::move(engine)) {}
  void open(uint32_t slot, uint32_t max_tokens) { engine_->open(slot, max_tokens); }
  void close(uint32_t slot) { engine_->close(slot); }
  // `tokens`: of all chunks, one after the other.
  void step(rust::Slice<const StepChunk> chunks, rust::Slice<const uint32_t> tokens, rust::Slice<uint32_t> drawn);
  void logits(uint32_t chunk, rust::Slice<float> to) const { engine_->logits(chunk, {to.data(), to.size()}); }
  uint64_t memory_bytes() const { return engine_->memory_bytes(); }
  bool resident() const { return engine_->resident(); }
  int32_t share_weights() const { return weights_->share(); }

 private:
  std::unique_ptr<WeightsImage> weights_;  // outlives engine_
  std::unique_ptr<Engine> engine_;
};

class DeviceBackend {
 public:
  explicit DeviceBackend(std::unique_ptr<Backend> backend) : backend_(std::move(backend)) {}
  rust::Str name() const { return backend_->name(); }
  uint32_t layout_version() const { return backend_->layout_version(); }
  Device info() const;
  uint64_t required_bytes(const Shape& shape, rust::Slice<const Tensor> tensors, uint64_t image_bytes,
                          const Options& options) const;
  std::unique_ptr<StagingMemory> staging(size_t bytes) const;
  std::unique_ptr<WeightsImage> allocate(uint64_t image_bytes) const;
  std::unique_ptr<WeightsImage> attach(int32_t fd, uint64_t image_bytes) const;  // takes the descriptor
  std::unique_ptr<RunningEngine> engine(const Shape& shape, rust::Slice<const Tensor> tensors,
                                        std::unique_ptr<WeightsImage> weights, const Options& options) const;

 private:
  std::unique_ptr<Backend> backend_;
};

std::unique_ptr<DeviceBackend> cpu_backend();
std::unique_ptr<DeviceBackend> cuda_backend(uint32_t ordinal);

}  // namespace orcd::bridge
