// The CPU backend's operations, each a plain function in the file of its name.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cpu/kernels.h"
#include "cpu/kv_cache.h"
#include "cpu/pool.h"
#include "engine/executor.h"
#include "engine/model.h"
#include "ops/ops.h"

namespace orcd::cpu {

// Instruction sets there are kernels for.
enum class Isa { kPortable, kAvx2, kAvx512 };

Isa best_isa();  // that this processor has
const char* isa_name(Isa isa);
Kernels kernels(Isa isa);

// Calls f(first, end) for pieces of 0 .. n, shared between the threads when the whole takes long enough.
// `nanoseconds`: a guess at the time for one of the n on one thread.
template <class F>
void share(Pool& pool, uint32_t n, double nanoseconds, const F& f) {
  constexpr double kWorthSharing = 4000, kPiece = 2000;  // ns; waking a spinning thread takes some hundred
  const double total = n * nanoseconds;
  const double most = 4.0 * pool.threads();
  const double wanted = total < kWorthSharing ? 1 : total / kPiece;
  const uint32_t pieces = static_cast<uint32_t>(wanted > most ? most : wanted);
  const uint32_t count = pieces < 1 ? 1 : pieces > n ? n : pieces;
  pool.run(count, [&](uint32_t i) {
    const auto first = static_cast<uint32_t>(uint64_t{n} * i / count);
    const auto end = static_cast<uint32_t>(uint64_t{n} * (i + 1) / count);
    if (first < end) f(first, end);
  });
}

// Cosines and sines of a step's rows.
struct Rotation {
  // Divisors: (pairs) or null.
  Rotation(const RopeSpec& spec, const float* divisors, const float* long_divisors);

  RopeSpec spec;
  double magnitude;                               // of cosines and sines
  std::vector<double> frequency, long_frequency;  // (pairs) radians per position; the second with LongRoPE
  std::vector<float> cos, sin;                    // (rows, pairs)
};

// Tokens in the running for a draw, ascending by id.
struct Candidates {
  std::vector<uint32_t> id;     // (n)
  std::vector<float> t;         // (n) logit over temperature
  std::vector<float> weight;    // (n)
  std::vector<uint32_t> place;  // indices into the above
};

struct SampleScratch {
  std::vector<float> t;          // (vocab)
  std::vector<uint64_t> seen;    // a bit per token
  std::vector<uint32_t> counts;  // (vocab) zeros between draws
  std::vector<uint32_t> order;
  Candidates candidates;
};

void embed(Pool&, const Tensor& table, float scale, const Rows& rows, float* x /* (rows, table.cols) */);
void rmsnorm(Pool&, const float* x /* (*, out.cols) */, const uint32_t* gather /* (rows) or null */, uint32_t rows,
             const float* weight /* (out.cols) */, float eps, const Activations& out);
// One row, without quantizing it.
void rmsnorm_row(const float* x /* (cols) */, const float* weight /* (cols) */, uint32_t cols, float eps,
                 float* out /* (cols), may be x */);
void add(Pool&, const float* y /* (rows, cols) */, const BranchEnd& end, uint32_t rows, uint32_t cols,
         float* x /* (rows, cols) */);
void quantize(Pool&, const Activations& a, uint32_t rows);
void quantize_row(const Activations& a, uint32_t row);
void matmul(Pool&, Isa, bool float_activations, std::span<const MatmulArgs> products, const Activations& a,
            uint32_t rows);
// Products of rows `first` .. `end` of a weight matrix, with float activations.
void matmul_float(const MatmulArgs& p, const float* x /* (rows, w.cols) */, uint32_t rows, uint32_t first,
                  uint32_t end);
// One row of W, as in the file, times one row of activations: the contract's chain, written plainly.
float reference_dot(TensorType type, const uint8_t* raw, const Activations& a, uint64_t row);
void rotation_rows(Rotation& r, const Rows& rows, const SequenceStore& sequences);
void rope_kv(Pool&, const ModelShape&, const Rotation&, const Rows&, const SequenceStore&, const KvCache&,
             uint32_t layer, const AttentionInputs&);
void attention(Pool&, Isa, const ModelShape&, const Rows&, const SequenceStore&, const KvCache&, uint32_t layer,
               const AttentionParams&, const float* q /* (rows, n_heads * head_dim) */,
               float* out /* (rows, n_heads * head_dim) */);
void glu(Pool&, Activation, const float* gate /* (rows, out.cols) */, const float* up /* (rows, out.cols) */,
         uint32_t rows, const Activations& out);
void mix(Pool&, Isa, bool float_activations, const Mixture& m, const Activations& normed, uint32_t rows,
         float* y /* (rows, normed.cols) */);
void finish_logits(Pool&, float scale, float cap, uint32_t rows, uint32_t vocab, float* l /* (rows, vocab) */);
// `before`: all tokens of the sequence before the one that is sampled.
uint32_t sample(const float* logits /* (vocab) */, uint32_t vocab, std::span<const uint32_t> before,
                const PlacedSample& draw, SampleScratch& scratch);
// Adds to out what the draw wants beside out.token. `order`: scratch.
void logprobs(const float* logits /* (vocab) */, uint32_t vocab, const PlacedSample& draw, std::vector<uint32_t>& order,
              Sampled& out);

}  // namespace orcd::cpu
