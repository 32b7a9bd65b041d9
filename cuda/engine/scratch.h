// Memory for the values between operations, sized once for the largest step.
#pragma once

#include <cstdint>

#include "engine/model.h"
#include "ops/ops.h"

namespace orcd {

struct Scratch {
  float* x;              // (rows, d_model) the residual stream
  Activations normed;    // (rows, d_model) input of the attention and feed-forward products
  float* branch;         // (rows, d_model) what those give, where it changes before it is added; memory of normed.x
  float* q;              // (rows, n_heads * head_dim)
  float* k;              // (rows, n_kv_heads * head_dim)
  float* v;              // (rows, n_kv_heads * head_dim)
  Activations attended;  // (rows, n_heads * head_dim)
  float* gate;           // (rows, d_ff)
  float* up;             // (rows, d_ff)
  Activations ffn;       // (rows, d_ff)
  float* logits;         // (samples, vocab)
  // With experts; those above that are (rows, d_ff) have a row for each expert that a row takes.
  float* router;    // (rows, n_experts)
  Mixture mixture;  // its scratch
};

// Whose operations have it. kWarpgroups: a GPU whose products read the tiles of activations (ops/tiles.h).
enum class ScratchOf { kCpu, kGpu, kWarpgroups };

// Bytes of it for steps of up to `rows` rows and `samples` samples.
uint64_t scratch_bytes(const ModelShape& shape, uint32_t rows, uint32_t samples, ScratchOf backend);

// The same pieces of `memory`, which is as large.
Scratch carve_scratch(const ModelShape& shape, uint32_t rows, uint32_t samples, ScratchOf backend, void* memory);

}  // namespace orcd
