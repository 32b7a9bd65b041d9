// What both sides of the bridge number alike: the compiler compares these with the enums of types.rs.
#pragma once

#include <cstdint>

namespace orcd {

enum class ErrorKind : uint8_t {
  kInvalid = 0,      // a precondition of the call is broken: a bug or a bad model; nothing was changed
  kOutOfMemory = 1,  // memory for this call's purpose is not there; the engine is as before
  kDevice = 2,       // the device or its context is lost: the process must end
  kAbandoned = 3,    // the step was given up half-way, as asked; sequences stand where they stood before it
};

// GGUF tensor types by their number in the file format.
enum class TensorType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kBF16 = 30,
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
  kAttnOutput,      // (d_model, n_heads * head_dim)
  kFfnNorm,         // (d_model)
  kFfnGate,         // (d_ff, d_model)
  kFfnUp,           // (d_ff, d_model)
  kFfnDown,         // (d_model, d_ff)
  kAttnOutputBias,  // (d_model); this and all below optional
  kFfnGateBias,     // (d_ff)
  kFfnUpBias,       // (d_ff)
  kFfnDownBias,     // (d_model)
  kOutputBias,      // (vocab), outside of layers
};

enum class RopeStyle : uint32_t { kNeox = 0, kInterleaved = 1 };

}  // namespace orcd
