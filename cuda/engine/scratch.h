// Memory for the values between operations, sized once for the largest step. What is not in use at the same time is the
// same memory: a layer's attention, its feed-forward part, and what comes after the last layer have one piece in turn.
// That is safe on a GPU too, where kernels begin before their predecessors have ended: none writes before pdl_wait(), which
// returns when the kernel before has ended, and that had to wait likewise for the one before it.
#pragma once

#include <cstdint>

#include "engine/model.h"
#include "ops/ops.h"

namespace orcd {

// A feed-forward part without experts takes all rows of a step at once if gates and values of the largest step are no
// more than kFeedForwardBytes. Else, for values as wide as d_ff are most of the scratch, it takes so many rows at most, one
// group after the other: as many fill a device, but for one or two hundredths of its speed.
inline constexpr uint64_t kFeedForwardBytes = 160 << 20;
inline constexpr uint32_t kFeedForwardRows = 1024;

struct Scratch {
  // All along.
  float* x;            // (rows, d_model) the residual stream
  Activations normed;  // (rows, d_model) input of the attention and feed-forward products
  float* branch;       // (rows, d_model) what those give, where it changes before it is added; memory of normed.x
  // Attention.
  float* q;              // (rows, n_heads * head_dim)
  float* k;              // (rows, n_kv_heads * head_dim)
  float* v;              // (rows, n_kv_heads * head_dim)
  Activations attended;  // (rows, n_heads * head_dim)
  // Feed-forward part.
  uint32_t ffn_rows;  // that it takes at once; with experts those below have a row for each expert that a row takes
  float* gate;        // (ffn_rows, d_ff)
  float* up;          // (ffn_rows, d_ff)
  Activations ffn;    // (ffn_rows, d_ff); on a GPU x is the memory of gate
  float* router;      // (rows, n_experts)
  Mixture mixture;    // its scratch
  // After the last layer, until the next step begins.
  float* logits;  // (samples, vocab)
};

// How many rows of a step's `rows` a feed-forward part takes at once, at most `most`: groups of about the same size, for
// weights are read for each, and of whole tiles.
uint32_t feed_forward_group(uint32_t rows, uint32_t most);

// Whose operations have it. kWarpgroups: a GPU whose products read the tiles of activations (ops/tiles.h).
enum class ScratchOf { kCpu, kGpu, kWarpgroups };

// Bytes of it for steps of up to `rows` rows and `samples` samples.
uint64_t scratch_bytes(const ModelShape& shape, uint32_t rows, uint32_t samples, ScratchOf backend);

// The same pieces of `memory`, which is as large.
Scratch carve_scratch(const ModelShape& shape, uint32_t rows, uint32_t samples, ScratchOf backend, void* memory);

}  // namespace orcd
