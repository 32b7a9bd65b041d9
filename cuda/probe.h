// Single operations of the CPU backend, for tests that compare them with an independent reference.
#pragma once

#include <cstdint>

#include "orcd/engine.h"
#include "rust/cxx.h"

namespace orcd::probe {

struct Widths;
struct Piece;

// Which form of a matrix product: the instruction sets of cpu/ops.h, or the plain row by row form.
enum class Form : uint32_t { kPortable = 0, kAvx2 = 1, kAvx512 = 2, kReference = 3, kFloatActivations = 4 };

// Whether this machine can run a form.
bool has_form(uint32_t form);

// y = W · x, or y ⊕ W · x
void product(uint32_t form, uint32_t type, uint32_t rows, uint32_t cols,
             rust::Slice<const uint8_t> raw /* as in the file */, rust::Slice<const float> x /* (n, cols) */, bool add,
             uint32_t threads, rust::Slice<float> y /* (n, rows) */);

void dequantize(uint32_t type, rust::Slice<const uint8_t> raw, rust::Slice<float> out);

// d has a value per block of 32, or of 256 with `supers`; sum one per 32; shifts, with `supers`, one per 256: as
// Quantized has them
void quantize(bool supers, rust::Slice<const float> x, rust::Slice<int8_t> q, rust::Slice<float> d,
              rust::Slice<int32_t> sum, rust::Slice<uint32_t> shifts);

void rmsnorm(rust::Slice<const float> x, rust::Slice<const float> weight, float eps, rust::Slice<float> out);

void glu(bool gelu, rust::Slice<const float> gate, rust::Slice<const float> up, rust::Slice<float> out);

// y[i] = exp2, log, sigmoid, tanh, gelu, soft_cap_30 or gumbel of x[i]; gumbel takes the bits of x[i] as the random word
void function(rust::Str name, rust::Slice<const float> x, rust::Slice<float> y);

// binary16 of x[i]
void to_f16(rust::Slice<const float> x, rust::Slice<uint16_t> y);
float from_f16(uint16_t h);

// Rows at positions 0 .. n - 1 of one sequence: rotates q and k in place, then attention of rows first .. n - 1.
// `window`, `soft_cap`: as AttentionParams has them.
void attend(uint32_t form, uint32_t n_heads, uint32_t n_kv_heads, uint32_t head_dim, bool interleaved, double rope_base,
            rust::Slice<const float> freq_factors /* (head_dim / 2) or empty */, uint32_t window, float soft_cap,
            rust::Slice<const float> sinks /* (n_heads) or empty */, uint32_t first,
            rust::Slice<float> q /* (n, n_heads, head_dim) */, rust::Slice<float> k /* (n, n_kv_heads, head_dim) */,
            rust::Slice<float> v /* (n, n_kv_heads, head_dim) */, rust::Slice<float> out /* (n, n_heads, head_dim) */);

// Runs `chunks` chunks on `threads` threads, of which those from number `bad` on throw; then as many again
// that don't. Gives how many of those ran.
uint32_t throwing_chunks(uint32_t threads, uint32_t chunks, uint32_t bad);

// Bytes of scratch, and all its pieces. `backend`: of ScratchOf.
uint64_t scratch(const Widths& widths, uint32_t rows, uint32_t samples, uint32_t backend, rust::Vec<Piece>& pieces);

// As engine/scratch.h has it.
uint32_t feed_forward_group(uint32_t rows, uint32_t most);

// As ops/partials.h has it: the launches. `rows`: empty for the first ones; then place (positions) has all of them.
rust::Vec<uint32_t> place_partials(rust::Slice<const uint32_t> positions, rust::Slice<const uint32_t> rows,
                                   uint64_t room_runs, uint32_t room_rows, rust::Slice<uint32_t> place);

// What the packed sample of a type hashes to in the processor's image (layout_version.h).
uint64_t golden_hash(uint32_t type);

// `mask`: empty if there is none. `biased`: tokens, each with one of `biases`.
uint32_t draw(rust::Slice<const float> logits, rust::Slice<const uint32_t> before, uint32_t output_start,
              rust::Slice<const uint32_t> mask, rust::Slice<const uint32_t> biased, rust::Slice<const float> biases,
              uint32_t position, const Sampling& sampling);
// The logprob of `token`, then those of the most likely ones, as many as `top` has room for.
void logprobs(rust::Slice<const float> logits, uint32_t token, rust::Slice<uint32_t> top /* (n) */,
              rust::Slice<float> logprobs /* (1 + n) */);

}  // namespace orcd::probe
