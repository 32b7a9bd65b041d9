// All that Rust sees of the engine, in plain C++ (bridge.h adapts it to cxx). The values that cross are defined
// in types.rs, for both sides.
//
// Ownership: Weights owns one immutable image (a sealed memfd, or one exportable VMM allocation), KvMemory the pages of
// all sequences likewise; Engine borrows both and owns everything else (scratch, tables). None is thread-safe: all live
// on the worker's engine thread. Errors are thrown as orcd::Error.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>

#include "cuda-worker/src/ffi/types.rs.h"

namespace orcd {

class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& what) : std::runtime_error(what), kind(kind) {}
  ErrorKind kind;
};

// One batch. Every run is of another sequence; samples are in the order of their rows.
struct StepBatch {
  std::span<const uint32_t> tokens;  // of all runs, one after the other
  std::span<const Run> runs;
  std::span<const SampleRow> samples;
  std::span<const TokenBias> biases;  // of all samples that have some
};

// Words of a set of tokens: bit i % 32 of word i / 32 stands for token i.
constexpr uint32_t mask_words(uint32_t vocab) { return (vocab + 31) / 32; }

// What is sampled from a row of logits that is broken: one of them is infinite or NaN, or all are zero, which
// is what quantization makes of activations that are not finite. No vocabulary is as large.
inline constexpr uint32_t kBrokenLogits = 0xfffffffe;

// Most biases of one sample.
inline constexpr uint32_t kMostBiases = 1024;

// Host memory that the device copies from at its full speed.
class Staging {
 public:
  virtual ~Staging() = default;
  virtual std::span<uint8_t> bytes() = 0;
};

// The immutable weights image. allocate → write every tensor → seal; or attach to a sealed one.
class Weights {
 public:
  virtual ~Weights() = default;
  // `raw` holds whole rows of `desc` as stored in the file, beginning at row `first_row`. Returns a number
  // that rises with each call. `raw` in Staging may still be read until `wait` has returned for that
  // number; any other memory has been read when this returns.
  virtual uint64_t write(const TensorDesc& desc, uint64_t first_row, std::span<const uint8_t> raw) = 0;
  // Waits until what write number `ticket` and all before it were given has been read.
  virtual void wait(uint64_t ticket) = 0;
  // Ends writing: the image becomes read-only for every process that maps it.
  virtual void seal() = 0;
  // Reads rows back in the file's layout (tests: re-packing loses nothing).
  virtual void read(const TensorDesc& desc, uint64_t first_row, std::span<uint8_t> raw) const = 0;
  virtual int fd() const = 0;  // shareable handle; owned by this object
  virtual uint64_t bytes() const = 0;
};

// The memory of the pool's pages, and of a sum of what is in each. It outlives the process that made it, as long as
// somebody holds its descriptor, and whoever maps it can write to it: who may is not decided here.
class KvMemory {
 public:
  virtual ~KvMemory() = default;
  virtual int fd() const = 0;  // shareable handle; owned by this object
  virtual uint64_t bytes() const = 0;
};

class Engine;  // engine/engine.h

struct Backend {  // one per kind of device; names what can be built for it
  virtual ~Backend() = default;
  virtual const char* name() const = 0;         // "cpu" or "cuda", part of the image's identity
  virtual uint32_t layout_version() const = 0;  // of the packing in the image; follows from what it does
  virtual std::string device_name() const = 0;  // "NVIDIA H100 80GB HBM3", "cpu (2 threads, avx512-vnni)"
  virtual DeviceInfo info() const = 0;
  // Of where the values of a head lie in a page; follows from what computes it.
  virtual uint32_t page_layout(const ModelShape&) const = 0;
  // Bytes of the pool, with its sums.
  virtual uint64_t kv_bytes(const ModelShape&, const EngineOptions&) const = 0;
  // Bytes that weights, KV and scratch will need, for the check before loading.
  virtual uint64_t required_bytes(const ModelShape&, std::span<const TensorDesc>, uint64_t image_bytes,
                                  const EngineOptions&) const = 0;
  virtual std::unique_ptr<Staging> staging(size_t bytes) const = 0;
  virtual std::unique_ptr<Weights> allocate(uint64_t image_bytes) const = 0;
  virtual std::unique_ptr<Weights> attach(int fd, uint64_t image_bytes) const = 0;  // takes ownership of fd
  virtual std::unique_ptr<KvMemory> allocate_kv(uint64_t bytes) const = 0;
  virtual std::unique_ptr<KvMemory> attach_kv(int fd, uint64_t bytes) const = 0;  // takes ownership of fd
  virtual std::unique_ptr<Engine> engine(const ModelShape&, std::span<const TensorDesc>, const Weights&,
                                         const KvMemory&, const EngineOptions&) const = 0;
};

std::unique_ptr<Backend> cpu_backend();              // throws kInvalid without FMA and F16C
std::unique_ptr<Backend> cuda_backend(int ordinal);  // throws kDevice with the reason; absent without ORCD_WITH_CUDA

}  // namespace orcd
