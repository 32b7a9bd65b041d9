// Every kernel's launcher, with shapes. Pointers are device memory unless marked "host". All run on
// the given stream and check the launch; errors of the run itself show at the step's end.
#pragma once

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "ops/ops.h"

namespace orcd::kernels {

// Rows of a matrix as in the file ↔ the packed image (layout.h). `raw` holds rows
// first .. first + count; `matrix` is the packed matrix' start.
void pack(TensorType type, uint32_t rows, uint32_t cols, uint32_t first, uint32_t count,
          const uint8_t* raw, uint8_t* matrix, cudaStream_t stream);
void unpack(TensorType type, uint32_t rows, uint32_t cols, uint32_t first, uint32_t count,
            const uint8_t* matrix, uint8_t* raw, cudaStream_t stream);

// x[r] = table[token[r]], dequantised
void embed(const Tensor& table, const uint32_t* token /* (rows) */, uint32_t rows,
           float* x /* (rows, table.cols) */, bool overlap, cudaStream_t stream);

// out[r] = quantised RMSNorm of x[pick[r]]
void rmsnorm(const float* x, const uint32_t* pick /* (rows) or null */, uint32_t rows,
             const float* weight /* (cols) */, float eps, const Activations& out, cudaStream_t stream);

void quantise(const Activations& a, uint32_t rows, cudaStream_t stream);

void swiglu(const float* gate, const float* up, uint32_t rows, const Activations& out,
            cudaStream_t stream);

// What a product reads. kGiven: quantised already. kQuantise: from x. kNorm: RMSNorm of x[pick[r]].
enum class Input : uint32_t { kGiven, kQuantise, kNorm };

struct MatvecInput {
  Input kind = Input::kGiven;
  Activations a;                   // kGiven: q, d, sum, half; kQuantise: x
  const float* x = nullptr;        // kNorm: (*, cols)
  const uint32_t* pick = nullptr;  // kNorm: (rows) or null
  const float* weight = nullptr;   // kNorm: (cols)
  float eps = 0;
};

struct MatvecJob {
  Tensor w;                     // (n, cols), quantised
  const float* bias = nullptr;  // (n) or null
  float* y = nullptr;           // (rows, n)
  bool add = false;             // y ⊕ W·x
};

inline constexpr uint32_t kMatvecRows = 8;

// Up to three products on up to kMatvecRows rows, all with the same cols. With `swiglu`, jobs are gate
// and up, and jobs[0].y gets gate · sigmoid(gate) · up. With `overlap` the kernel may begin before its
// predecessor in the stream has ended: it fetches weights, then waits for it.
void matvec(const MatvecJob* jobs /* host */, uint32_t n_jobs, const MatvecInput& input, uint32_t rows,
            bool swiglu, bool overlap, cudaStream_t stream);

// Whether matvec can take it: few enough rows, and all of it fits a block's shared memory.
bool matvec_fits(const TensorType* types /* host */, uint32_t n_jobs, uint32_t cols, uint32_t rows, Input input,
                 bool swiglu);

// Any number of rows, on int8 matrix units. Quantised weights.
void matmul(const Product& product, const Activations& a, uint32_t rows, cudaStream_t stream);

// Float weights, any number of rows.
void matmul_float(const Product& product, const Activations& a, uint32_t rows, cudaStream_t stream);

// KV cache of one layer: pages of 64 positions.
struct KvLayer {
  __half* k;                // (page, kv_head, head_dim / 8, 64, 8)
  __half* v;                // (page, kv_head, 64 / 8, head_dim, 8)
  const uint32_t* pages;    // (slot, pages_per_slot)
  uint32_t pages_per_slot;
};

struct Heads {
  uint32_t n_heads, n_kv_heads, head_dim;
  RopeStyle style;
  const float2* rope;  // (context, head_dim / 2): cos, sin
  float scale;         // float(log2(e) / sqrt(head_dim))
};

// Adds biases, rotates q and k in place, appends k and v.
void rope_kv(const Heads& h, const KvLayer& kv, const AttentionInputs& in, const uint32_t* slot,
             const uint32_t* position, uint32_t rows, cudaStream_t stream);

// Attention of rows that are each a sequence's last token. With `rotate`, q, k and v are as the
// products left them (biases added): the kernel rotates q and k and appends k and v itself.
struct DecodeAttention {
  Heads heads;
  KvLayer kv;
  const float* q;  // (rows, n_heads * head_dim)
  const float* k;  // (rows, n_kv_heads * head_dim), read with rotate
  const float* v;
  const uint32_t* row;       // (count) which rows, or null: 0 .. count
  const uint32_t* slot;      // (rows)
  const uint32_t* position;  // (rows)
  float* partial;            // (count, n_heads, splits, head_dim + 2) scratch
  uint32_t* arrived;         // (count, n_heads), zero; left zero
  uint32_t splits;           // most splits a row may have: partial's size
  float* out;                // (rows, n_heads * head_dim)
  bool rotate;
};
void attention_decode(const DecodeAttention& a, uint32_t count, bool overlap, cudaStream_t stream);

// Attention of runs of consecutive rows: tile t covers `count[t]` <= 64 rows from row[t].
struct PrefillTile {
  uint32_t row, count, slot, start;  // start: position of its first row
};
void attention_prefill(const Heads& h, const KvLayer& kv, const float* q, const PrefillTile* tiles,
                       uint32_t n_tiles, float* out, cudaStream_t stream);

// One draw as the device sees it.
struct DeviceDraw {
  uint32_t slot, position, row, filtered;  // row: of logits
  float inverse_temperature;               // 0: greedy
  float top_p, min_p, penalty;
  uint32_t top_k, seed_low, seed_high, pad;
};

// Sets the bits of the rows' tokens in their slots' sets.
void mark(const uint32_t* token, const uint32_t* slot, uint32_t rows, uint32_t* seen /* (slot, words) */,
          uint32_t words, bool overlap, cudaStream_t stream);

// Draws without top-k, top-p or min-p. best: (draws) scratch, zero; left zero.
void sample(const float* logits /* (draws, vocab) */, uint32_t vocab, const DeviceDraw* draws, uint32_t n,
            const uint32_t* seen, uint32_t words, unsigned long long* best, uint32_t* arrived,
            uint32_t* drawn, bool overlap, cudaStream_t stream);

// Draws marked `filtered`; the others are left alone.
void sample_filtered(const float* logits, uint32_t vocab, const DeviceDraw* draws, uint32_t n,
                     const uint32_t* seen, uint32_t words, float* scaled /* (draws, vocab) */,
                     uint32_t* drawn, cudaStream_t stream);

}  // namespace orcd::kernels
