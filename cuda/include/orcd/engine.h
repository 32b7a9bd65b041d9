// All that Rust sees of the engine, in plain C++ (bridge.cc adapts it to cxx).
//
// Ownership: Weights owns one immutable image (a sealed memfd, or one exportable VMM allocation);
// Engine borrows it and owns everything else (KV cache, scratch, tables). Neither is thread-safe:
// both live on the worker's engine thread. Errors are thrown as orcd::Error.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>

namespace orcd {

enum class ErrorKind : uint8_t {
  kInvalid = 0,      // a precondition of the call is broken: a bug or a bad model; nothing was changed
  kOutOfMemory = 1,  // memory for this call's purpose is not there; the engine is as before
  kDevice = 2,       // the device or its context is lost: the process must end
  kAbandoned = 3,    // the step was given up half-way, as asked; sequences stand where they stood before it
};

class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& what) : std::runtime_error(what), kind(kind) {}
  ErrorKind kind;
};

// GGUF tensor types by their number in the file format.
enum class TensorType : uint32_t {
  kF32 = 0, kF16 = 1, kQ4_0 = 2, kQ4_1 = 3, kQ5_0 = 6, kQ5_1 = 7, kQ8_0 = 8,
  kQ4_K = 12, kQ5_K = 13, kQ6_K = 14, kBF16 = 30,
};

enum class TensorRole : uint32_t {
  kTokenEmbedding = 0,  // (vocab, d_model)
  kOutputNorm,          // (d_model)
  kOutput,              // (vocab, d_model); absent when tied to the embedding
  kRopeFreqs,           // (head_dim / 2), divides the rotation frequencies; optional
  kAttnNorm,            // (d_model), this and all below per layer
  kAttnQ,               // (n_heads * head_dim, d_model)
  kAttnK,               // (n_kv_heads * head_dim, d_model)
  kAttnV,               // (n_kv_heads * head_dim, d_model)
  kAttnQBias,           // (n_heads * head_dim); optional, likewise K and V
  kAttnKBias,
  kAttnVBias,
  kAttnOutput,          // (d_model, n_heads * head_dim)
  kFfnNorm,             // (d_model)
  kFfnGate,             // (d_ff, d_model)
  kFfnUp,               // (d_ff, d_model)
  kFfnDown,             // (d_model, d_ff)
  kAttnOutputBias,      // (d_model); this and all below optional
  kFfnGateBias,         // (d_ff)
  kFfnUpBias,           // (d_ff)
  kFfnDownBias,         // (d_model)
  kOutputBias,          // (vocab), outside of layers
};

// One tensor in the weights image. Vectors have rows = 1.
struct TensorDesc {
  TensorRole role;
  uint32_t layer;   // 0 for tensors outside the layers
  TensorType type;
  uint64_t rows;
  uint64_t cols;    // fastest dimension (ne[0])
  uint64_t offset;  // bytes from the start of the image; a multiple of 256
  uint64_t bytes;   // size in the file and in the image: re-packing is bijective
};

enum class RopeStyle : uint32_t { kNeox = 0, kInterleaved = 1 };

struct ModelShape {
  uint32_t n_layers, d_model, d_ff, n_heads, n_kv_heads, head_dim, vocab;
  RopeStyle rope_style;
  double rope_base;
  float rms_eps;
};

struct EngineOptions {
  uint32_t slots;             // sequences that may be open at once
  uint32_t context;           // tokens per sequence
  uint32_t max_batch_tokens;  // most tokens in one step, all chunks together
  uint32_t threads;           // CPU backend: threads for a step, 0 = one per core
  uint64_t kv_limit_tokens;   // 0 = slots * context; a lower one makes open() run out of memory (tests)
  bool float_activations;     // debug, CPU only: see docs/ARITHMETIC.md
};

struct Sampling {
  float temperature;         // 0 = greedy
  float top_p;               // 1 = off
  uint32_t top_k;            // 0 = off
  float min_p;               // 0 = off
  float repetition_penalty;  // 1 = off
  uint64_t seed;
};

// A run of one sequence's tokens at positions start .. start + tokens.size(). start equals the number
// of tokens of that slot processed before. With sample set, the token that follows the run is drawn.
struct Chunk {
  uint32_t slot;
  uint32_t start;
  std::span<const uint32_t> tokens;
  const Sampling* sample;  // null: nothing is drawn
};

// What is drawn from a row of logits that is broken: one of them is infinite or NaN, or all are zero, which
// is what quantisation makes of activations that are not finite. No vocabulary is as large.
inline constexpr uint32_t kBrokenLogits = 0xfffffffe;

struct DeviceInfo {
  std::string name;            // "NVIDIA H100 80GB HBM3", "cpu (2 threads, avx512-vnni)"
  std::string compute;         // "9.0"; empty on the CPU
  std::string runtime_version; // CUDA runtime, "13.0"; empty on the CPU
  uint64_t memory_total, memory_free;
};

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
  virtual int fd() const = 0;         // shareable handle; owned by this object
  virtual uint64_t bytes() const = 0;
};

class Engine {
 public:
  virtual ~Engine() = default;
  // Reserves KV for up to max_tokens positions of a fresh sequence; kOutOfMemory leaves all as it was.
  virtual void open(uint32_t slot, uint32_t max_tokens) = 0;
  virtual void close(uint32_t slot) = 0;
  // Processes all chunks as one batch (each slot at most once); drawn[i] is set for chunks with sample, to a token
  // or kBrokenLogits.
  // `abandoned`, if there is one, is asked between layers; once it says yes the step throws kAbandoned.
  virtual void step(std::span<const Chunk> chunks, std::span<uint32_t> drawn, bool (*abandoned)() = nullptr) = 0;
  // Copies the logits of the last token of chunk i of the last step, which had sample, from the device to `to` (vocab).
  virtual void logits(uint32_t chunk, std::span<float> to) const = 0;
  virtual uint64_t memory_bytes() const = 0;  // weights + KV + scratch
  virtual bool resident() const = 0;          // every buffer checked to be device memory; false on the CPU
};

struct Backend {  // one per kind of device; names what can be built for it
  virtual ~Backend() = default;
  virtual const char* name() const = 0;          // "cpu" or "cuda", part of the image's identity
  virtual uint32_t layout_version() const = 0;   // of the packing in the image; follows from what it does
  virtual DeviceInfo info() const = 0;
  // Bytes that weights, KV and scratch will need, for the check before loading.
  virtual uint64_t required_bytes(const ModelShape&, std::span<const TensorDesc>, uint64_t image_bytes,
                                  const EngineOptions&) const = 0;
  virtual std::unique_ptr<Staging> staging(size_t bytes) const = 0;
  virtual std::unique_ptr<Weights> allocate(uint64_t image_bytes) const = 0;
  virtual std::unique_ptr<Weights> attach(int fd, uint64_t image_bytes) const = 0;  // takes ownership of fd
  virtual std::unique_ptr<Engine> engine(const ModelShape&, std::span<const TensorDesc>, const Weights&,
                                         const EngineOptions&) const = 0;
};

std::unique_ptr<Backend> cpu_backend();              // throws kInvalid without FMA and F16C
std::unique_ptr<Backend> cuda_backend(int ordinal);  // throws kDevice with the reason; absent without ORCD_WITH_CUDA

}  // namespace orcd
