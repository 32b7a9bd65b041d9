// The engine as cxx takes it over to Rust: functions for what cxx can't bind as it stands in orcd/engine.h.
#pragma once

#include <memory>
#include <new>

#include "engine/engine.h"
#include "orcd/engine.h"
#include "rust/cxx.h"

namespace orcd::bridge {

// Of the last error that left for Rust on this thread, beside its message.
ErrorKind& error_kind_here();

}  // namespace orcd::bridge

namespace rust::behavior {

// An exception that is none of ours may have left anything half done, so it counts as the loss of the device.
template <typename Try, typename Fail>
static void trycatch(Try&& call, Fail&& fail) noexcept {
  orcd::ErrorKind& kind = orcd::bridge::error_kind_here();
  kind = orcd::ErrorKind::kDevice;
  try {
    call();
  } catch (const orcd::Error& e) {
    kind = e.kind;
    fail(e.what());
  } catch (const std::bad_alloc&) {
    fail("the host has no memory left for this process");
  } catch (const std::exception& e) {
    fail(e.what());
  }
}

}  // namespace rust::behavior

namespace orcd::bridge {

inline ErrorKind error_kind() { return error_kind_here(); }

std::unique_ptr<Backend> cpu_backend();
std::unique_ptr<Backend> cuda_backend(uint32_t ordinal);
inline rust::Str name(const Backend& backend) { return backend.name(); }
inline rust::String device_name(const Backend& backend) { return backend.device_name(); }
uint64_t required_bytes(const Backend& backend, const ModelShape& shape, rust::Slice<const TensorDesc> tensors,
                        uint64_t image_bytes, const EngineOptions& options);
std::unique_ptr<Staging> staging(const Backend& backend, size_t bytes);
std::unique_ptr<Weights> allocate(const Backend& backend, uint64_t image_bytes);
std::unique_ptr<KvMemory> allocate_kv(const Backend& backend, uint64_t bytes);
// The engine reads `weights`, and uses `memory`, as long as it lives.
std::unique_ptr<Engine> engine(const Backend& backend, const ModelShape& shape, rust::Slice<const TensorDesc> tensors,
                               const Weights& weights, const KvMemory& memory, const EngineOptions& options);

rust::Slice<uint8_t> bytes(Staging& staging);

uint64_t write(Weights& weights, const TensorDesc& tensor, uint64_t first_row, rust::Slice<const uint8_t> raw);
void read(const Weights& weights, const TensorDesc& tensor, uint64_t first_row, rust::Slice<uint8_t> raw);
int32_t share(const Weights& weights);     // a new descriptor of the image
int32_t share_kv(const KvMemory& memory);  // of the pool

void open(Engine& engine, uint32_t slot, uint32_t max_tokens, rust::Slice<const uint32_t> tokens,
          rust::Slice<const uint32_t> pages);
void grow(Engine& engine, uint32_t slot, rust::Slice<const uint32_t> pages);
void release(Engine& engine, rust::Slice<const uint32_t> pages);
void sum(Engine& engine, rust::Slice<const PageRows> rows);
void check(Engine& engine, rust::Slice<const PageRows> rows, rust::Slice<uint8_t> sound);

void begin(Engine& engine, rust::Slice<const uint32_t> tokens, rust::Slice<const Run> runs,
           rust::Slice<const SampleRow> samples, rust::Slice<const TokenBias> biases);
void finish(Engine& engine, rust::Slice<const uint32_t> masks, rust::Slice<Sampled> sampled);
void logits(const Engine& engine, uint32_t draw, rust::Slice<float> to);

}  // namespace orcd::bridge
