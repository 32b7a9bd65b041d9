#include "bridge.h"

#include <fcntl.h>

#include <cerrno>
#include <cstring>

#include "cuda-worker/src/ffi.rs.h"

namespace orcd::bridge {
namespace {

template <class T>
std::span<T> span(rust::Slice<T> slice) {
  return {slice.data(), slice.size()};
}

// Makes something new: without memory for it nothing has changed, so that is no loss of the device.
template <class Make>
auto make(const char* what, const Make& f) {
  try {
    return f();
  } catch (const std::bad_alloc&) {
    throw Error(ErrorKind::kOutOfMemory, std::string("host memory for ") + what);
  } catch (const std::length_error&) {
    throw Error(ErrorKind::kOutOfMemory, std::string("host memory for ") + what);
  }
}

int32_t duplicate(int descriptor, const char* what) {
  const int fd = fcntl(descriptor, F_DUPFD_CLOEXEC, 3);
  if (fd >= 0) return fd;
  throw Error(ErrorKind::kOutOfMemory, std::string("a descriptor of ") + what + ": " + std::strerror(errno));
}

}  // namespace

ErrorKind& error_kind_here() {
  thread_local ErrorKind kind = ErrorKind::kDevice;
  return kind;
}

std::unique_ptr<Backend> cpu_backend() { return orcd::cpu_backend(); }

std::unique_ptr<Backend> cuda_backend([[maybe_unused]] uint32_t ordinal) {
#if defined(ORCD_WITH_CUDA)
  return orcd::cuda_backend(static_cast<int>(ordinal));
#else
  throw Error(ErrorKind::kDevice, "this build has no CUDA backend: rebuild with --features cuda, or use --device cpu");
#endif
}

uint64_t required_bytes(const Backend& backend, const ModelShape& shape, rust::Slice<const TensorDesc> tensors,
                        uint64_t image_bytes, const EngineOptions& options) {
  return backend.required_bytes(shape, span(tensors), image_bytes, options);
}

std::unique_ptr<Staging> staging(const Backend& backend, size_t bytes) {
  return make("the buffers that the file is read into", [&] { return backend.staging(bytes); });
}

std::unique_ptr<Weights> allocate(const Backend& backend, uint64_t image_bytes) {
  return make("the weights", [&] { return backend.allocate(image_bytes); });
}

std::unique_ptr<KvMemory> allocate_kv(const Backend& backend, uint64_t bytes) {
  return make("the KV pool", [&] { return backend.allocate_kv(bytes); });
}

std::unique_ptr<Engine> engine(const Backend& backend, const ModelShape& shape, rust::Slice<const TensorDesc> tensors,
                               const Weights& weights, const KvMemory& memory, const EngineOptions& options) {
  return make("the engine", [&] { return backend.engine(shape, span(tensors), weights, memory, options); });
}

rust::Slice<uint8_t> bytes(Staging& staging) {
  const std::span<uint8_t> b = staging.bytes();
  return {b.data(), b.size()};
}

uint64_t write(Weights& weights, const TensorDesc& tensor, uint64_t first_row, rust::Slice<const uint8_t> raw) {
  return weights.write(tensor, first_row, span(raw));
}

void read(const Weights& weights, const TensorDesc& tensor, uint64_t first_row, rust::Slice<uint8_t> raw) {
  weights.read(tensor, first_row, span(raw));
}

int32_t share(const Weights& weights) { return duplicate(weights.fd(), "the weights"); }

int32_t share_kv(const KvMemory& memory) { return duplicate(memory.fd(), "the KV pool"); }

void open(Engine& engine, uint32_t slot, uint32_t max_tokens, rust::Slice<const uint32_t> tokens,
          rust::Slice<const uint32_t> pages) {
  engine.open(slot, max_tokens, span(tokens), span(pages));
}

void grow(Engine& engine, uint32_t slot, rust::Slice<const uint32_t> pages) { engine.grow(slot, span(pages)); }

void release(Engine& engine, rust::Slice<const uint32_t> pages) { engine.release(span(pages)); }

void sum(Engine& engine, rust::Slice<const PageRows> rows) { engine.sum(span(rows)); }

void check(Engine& engine, rust::Slice<const PageRows> rows, rust::Slice<uint8_t> sound) {
  engine.check(span(rows), span(sound));
}

void begin(Engine& engine, rust::Slice<const uint32_t> tokens, rust::Slice<const Run> runs,
           rust::Slice<const SampleRow> samples, rust::Slice<const TokenBias> biases) {
  engine.begin({span(tokens), span(runs), span(samples), span(biases)}, [] { return abandoned(); });
}

void finish(Engine& engine, rust::Slice<const uint32_t> masks, rust::Slice<Sampled> sampled) {
  engine.finish(span(masks), span(sampled));
}

void logits(const Engine& engine, uint32_t draw, rust::Slice<float> to) { engine.logits(draw, span(to)); }

}  // namespace orcd::bridge
