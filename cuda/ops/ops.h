// Every operation of a forward pass, with its shapes. docs/ARITHMETIC.md says what each computes, to the bit. Pointers
// are to the backend's own memory unless marked "host".
//
// A step is a flat list of rows: one row is one token of one sequence. All results of a row depend on
// that row and its sequence alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "orcd/engine.h"

namespace orcd {

// A tensor of the weights image, in the backend's own packing. Vectors have rows = 1.
struct Tensor {
  TensorType type = TensorType::kF32;
  uint32_t rows = 0;              // outputs of a product
  uint32_t cols = 0;              // inputs, the fastest dimension of the file
  const uint8_t* data = nullptr;  // null: absent

  explicit operator bool() const { return data != nullptr; }
};

// The rows of a step. Host memory.
struct Rows {
  uint32_t count = 0;
  const uint32_t* token = nullptr;     // (count)
  const uint32_t* slot = nullptr;      // (count)
  const uint32_t* position = nullptr;  // (count), ascending by one within a chunk
};

// int8 values of a matrix, with a scale for each of its blocks: of 32 values, or of 256 (super-blocks), of which each
// 32 have a shift: value = d · (q << shift).
struct Quantized {
  int8_t* q = nullptr;  // (rows, cols); null: nobody reads it
  float* d = nullptr;   // (rows, cols / 32 or cols / 256)
  // (rows, cols / 32) a = Σ q. With super-blocks Σ (q << shift) of both halves, 16 bits each, the first one low: int16
  // on the processor, binary16 on a GPU, which holds them exactly.
  int32_t* sum = nullptr;
  uint32_t* shifts = nullptr;  // (rows, cols / 256), super-blocks alone; laid out as arith::shift_place() has it
  uint8_t* tiles =
      nullptr;  // super-blocks alone, where the device has matrix units for it: all of this again (tiles.h)
};

// A matrix that products read: as floats, and quantized as their weights' types want it.
struct Activations {
  uint32_t cols = 0;
  float* x = nullptr;  // (rows, cols)
  Quantized blocks;    // cols % 32 = 0
  Quantized supers;    // cols % 256 = 0: what types with super-blocks read
  bool floats = true;  // whether x is read too: else an operation that quantizes its result need not write it
};

// y = W · x for one weight matrix.
struct MatmulArgs {
  Tensor w;                     // (n, k)
  float* y = nullptr;           // (rows, n)
  bool add = false;             // y ⊕ W·x instead of W·x: the residual
  const float* bias = nullptr;  // (n) or null; added to the whole product, before the residual
};

struct AttentionInputs {
  float* q = nullptr;             // (rows, n_heads * head_dim)
  float* k = nullptr;             // (rows, n_kv_heads * head_dim)
  float* v = nullptr;             // (rows, n_kv_heads * head_dim)
  const float* q_bias = nullptr;  // (n_heads * head_dim) or null
  const float* k_bias = nullptr;  // (n_kv_heads * head_dim) or null
  const float* v_bias = nullptr;  // (n_kv_heads * head_dim) or null
  const float* q_norm = nullptr;  // (head_dim) or null: weight of an RMSNorm of each query head
  const float* k_norm = nullptr;  // (head_dim) or null: of each key head
  uint32_t kind = 0;              // of ModelShape's: how they are rotated
};

// What a layer's attention has beside its heads, as docs/ARITHMETIC.md defines it.
struct AttentionParams {
  uint32_t window = 0;           // keys that a row sees, its own the last of them; 0: all up to its own
  float soft_cap = 0;            // of the scores, positive and finite; 0: none
  const float* sinks = nullptr;  // (n_heads), taken within ±2^100; null: none

  bool plain() const { return window == 0 && soft_cap == 0 && sinks == nullptr; }
};

// Most experts of a layer, and most that a row takes.
inline constexpr uint32_t kMostExperts = 1024;
inline constexpr uint32_t kMostExpertsUsed = 64;

// Places `first` .. `end` of one expert, which are multiplied together; none where both are the same.
struct ExpertTile {
  uint32_t expert, first, end;
};

// Feed-forward parts of which each row takes some. `place` is among the step's rows · used pairs of a row and an expert:
// those of one expert lie together.
struct Mixture {
  const float* logits = nullptr;  // (rows, experts) of the router
  uint32_t experts = 0, used = 0;
  float scale = 1;  // multiplies weights
  Activation activation = Activation::kSwiGlu;
  Tensor gate, up, down;             // all experts' rows, one after the other
  const float* gate_bias = nullptr;  // (experts, d_ff) or null, likewise up
  const float* up_bias = nullptr;
  const float* down_bias = nullptr;  // (experts, d_model) or null
  // Scratch.
  uint32_t* expert = nullptr;                // (rows, used)
  uint32_t* place = nullptr;                 // (rows, used) of each rank
  uint32_t* row = nullptr;                   // (places)
  float* weight = nullptr;                   // (rows, used)
  uint32_t* end = nullptr;                   // CPU: (experts) behind the last place of each
  Activations input;                         // CPU: (places, d_model)
  ExpertTile* tiles = nullptr;               // GPU: (most_tiles)
  float *gated = nullptr, *upped = nullptr;  // (places, d_ff)
  Activations hidden;                        // (places, d_ff)
  float* given = nullptr;                    // (places, d_model)
};

// Most places of a tile where experts have few, and where they have many.
inline constexpr uint32_t kTilePlaces = 8, kMostTilePlaces = 32;

// Most tiles of a step.
constexpr uint64_t most_tiles(uint64_t places, uint32_t experts) { return places / kTilePlaces + experts; }

// What happens to what a part of a layer gives before the residual stream gets it.
struct BranchEnd {
  const float* norm = nullptr;  // (cols) or null
  float eps = 0;
  float scale = 1;
};

// On the rows of one step, which its backend knows from before.
class Ops {
 public:
  virtual ~Ops() = default;

  // x[r] = scale · table[token of row r]
  virtual void embed(const Tensor& table, float scale, float* x /* (rows, table.cols) */) = 0;

  // out[r] = quantized RMSNorm of x[gather[r]] (x[r] without gather), r < rows. Here and below that is in the forms
  // that `out` has memory for.
  virtual void rmsnorm(const float* x /* (*, out.cols) */, const uint32_t* gather /* host, (rows) or null */,
                       uint32_t rows, const float* weight /* (out.cols) */, float eps, const Activations& out) = 0;

  // Fills blocks and supers from x.
  virtual void quantize(const Activations& a, uint32_t rows) = 0;

  // All products read the same activations.
  virtual void matmul(std::span<const MatmulArgs> products, const Activations& a, uint32_t rows) = 0;

  // Adds biases, norms heads, rotates q and k in place, appends k and v of every row to its sequence's cache.
  virtual void rope_kv(uint32_t layer, const AttentionInputs& in) = 0;

  // out[r] = attention of q[r] over the cached positions 0 .. position of row r, or those in its window
  virtual void attention(uint32_t layer, const AttentionParams& params, const float* q /* (rows, n_heads * head_dim) */,
                         float* out /* (rows, n_heads * head_dim) */) = 0;

  // out.x = silu or gelu(gate) · up, quantized
  virtual void glu(Activation activation, const float* gate /* (rows, out.cols) */,
                   const float* up /* (rows, out.cols) */, uint32_t rows, const Activations& out) = 0;

  // y[r] = Σ weight · expert(normed[r]) over the experts that the router's logits choose
  virtual void mix(const Mixture& m, const Activations& normed, uint32_t rows, float* y /* (rows, normed.cols) */) = 0;

  // x ⊕ scale · y, y normed before if there is a weight.
  virtual void add(const float* y /* (rows, cols) */, const BranchEnd& end, uint32_t rows, uint32_t cols,
                   float* x /* (rows, cols) */) = 0;

  // l = cap · tanh(scale · l / cap), without a cap scale · l.
  virtual void finish_logits(float scale, float cap, uint32_t rows, uint32_t vocab, float* l /* (rows, vocab) */) = 0;
};

}  // namespace orcd
