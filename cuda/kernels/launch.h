// Every kernel's launcher, with shapes. Pointers are device memory unless marked "host". All run on
// the given stream and check the launch; errors of the run itself show at the step's end.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>

#include "arith/constants.h"
#include "arith/hd.h"
#include "ops/ops.h"

namespace orcd::kernels {

// Rows of a matrix as in the file ↔ the packed image (layout.h). `raw` holds rows
// first .. first + count; `matrix` is the packed matrix' start.
void pack(TensorType type, uint32_t rows, uint32_t cols, uint32_t first, uint32_t count, const uint8_t* raw,
          uint8_t* matrix, cudaStream_t stream);
// All rows, by the processor and in its memory: the bytes that pack() makes.
void pack_on_host(TensorType type, uint32_t rows, uint32_t cols, const uint8_t* raw, uint8_t* matrix);
// Of the packed layout: another one has another version.
uint32_t layout_version();
void unpack(TensorType type, uint32_t rows, uint32_t cols, uint32_t first, uint32_t count, const uint8_t* matrix,
            uint8_t* raw, cudaStream_t stream);

// x[r] = scale · table[token[r]], dequantized
void embed(const Tensor& table, const uint32_t* token /* (rows) */, uint32_t rows, float scale,
           float* x /* (rows, table.cols) */, bool pdl, cudaStream_t stream);

// out[r] = quantized RMSNorm of x[gather[r]]
void rmsnorm(const float* x, const uint32_t* gather /* (rows) or null */, uint32_t rows,
             const float* weight /* (cols) */, float eps, const Activations& out, cudaStream_t stream);

void quantize(const Activations& a, uint32_t rows, cudaStream_t stream);

void glu(Activation activation, const float* gate, const float* up, uint32_t rows, const Activations& out,
         cudaStream_t stream);

// x ⊕ scale · y, y normed before if there is a weight. `y` may be memory that later kernels write.
void add(const float* y /* (rows, cols) */, const BranchEnd& end, uint32_t rows, uint32_t cols,
         float* x /* (rows, cols) */, cudaStream_t stream);

// How a step's places are cut into tiles: of up to so many rows, and how many tiles at most. Expert by expert the last tile
// may have fewer.
struct TilePlan {
  uint32_t rows, count;
};
inline TilePlan tile_plan(uint32_t places, uint32_t experts) {
  const uint32_t rows = places > kTilePlaces * experts ? kMostTilePlaces : kTilePlaces;
  return {rows, std::min(places, places / rows + experts)};
}

// Chooses the rows' experts by the router's logits; gives places and tiles.
void route(const Mixture& m, uint32_t rows, cudaStream_t stream);

// The same of few rows, from the residual stream on: norms them, and multiplies with the router.
struct Router {
  const float* x;     // (rows, w.cols)
  const float* norm;  // (w.cols)
  float eps;
  Tensor w;            // (experts, cols), floats
  const float* bias;   // (experts) or null
  float* logits;       // (rows, experts)
  Activations normed;  // gets the normed rows, in the forms that the experts read
  uint32_t* arrived;   // zero; left zero
};
inline constexpr uint32_t kMostRouted = 64;  // rows
void route_few(const Router& router, const Mixture& m, uint32_t rows, cudaStream_t stream);

// What becomes of what a row's experts give: it is y, or y ⊕ scale · it.
struct MixtureEnd {
  float* y;  // (rows, d_model)
  bool add;
  float scale;
};
// With the experts chosen. `normed` is in the forms that gate and up read.
void mix(const Mixture& m, const Activations& normed, uint32_t rows, const MixtureEnd& end, cudaStream_t stream);

void finish_logits(float scale, float cap, uint32_t rows, uint32_t vocab, float* l /* (rows, vocab) */,
                   cudaStream_t stream);

// What a product reads, as its weights' types want it: those that meet are all with super-blocks or all without.
// kGiven: quantized already. kQuantize: from x. kNorm: RMSNorm of x[gather[r]].
enum class Input : uint32_t { kGiven, kQuantize, kNorm };

struct GemvInput {
  Input kind = Input::kGiven;
  Activations a;                     // (rows, cols); kGiven: blocks or supers; kQuantize: x
  const float* x = nullptr;          // kNorm: (*, cols)
  const uint32_t* gather = nullptr;  // kNorm: (rows) or null
  const float* weight = nullptr;     // kNorm: (cols)
  float eps = 0;
};

struct MatmulJob {
  Tensor w;                     // (n, cols), quantized
  const float* bias = nullptr;  // (n) or null
  float* y = nullptr;           // (rows, n)
  bool add = false;             // y ⊕ W·x
};

// Up to three products on one row or few, all with the same cols: every row reads all weights. With `gated`, jobs are
// gate and up, and jobs[0].y gets what both become together. With `pdl` (programmatic dependent launch) the kernel may
// begin before its predecessor in the stream has ended: it fetches weights, then waits for it.
void gemv(const MatmulJob* jobs /* host */, uint32_t n_jobs, const GemvInput& input, uint32_t rows,
          std::optional<Activation> gated, bool pdl, cudaStream_t stream);

// Whether gemv can take it: all of it fits a block's shared memory.
bool gemv_fits(const TensorType* types /* host */, uint32_t n_jobs, uint32_t cols, bool gated);

// Most rows of a small batch.
inline constexpr uint32_t kSmallRows = 8;

// Up to three products on so few rows with the same cols, in one launch that normalizes or quantizes what they read, as
// `input` says; with `hidden`, jobs are gate and up, and their result is quantized too. May begin before its predecessor in
// the stream has ended.
struct SmallBatch {
  std::span<const MatmulJob> jobs;  // host
  GemvInput input;
  uint32_t rows;
  Activations hidden{};         // (rows, jobs' rows), has blocks or supers, and x where these are; else none
  uint32_t* arrived = nullptr;  // of super-blocks: (hidden.cols / 256), zero; left zero
  Activation activation = Activation::kSwiGlu;  // of a gated unit
};
// Whether there is a form for it: on compute capability 9.0 or later, of weights few enough that all thread blocks run at
// once, each with all of K in its memory. Data may be null.
bool small_batch_fits(const SmallBatch& batch);
void small_batch(const SmallBatch& batch, cudaStream_t stream);

// Most rows of a step that runs as a chain of fused kernels.
inline constexpr uint32_t kSmallM = 256;

// Least rows of a step whose activations are laid out for warpgroups too: fewer are bound by memory anyway.
inline constexpr uint32_t kLeastTiled = 9;

// As a step of so many rows has them.
inline Activations tiled(Activations a, uint32_t rows) {
  if (rows < kLeastTiled) a.supers.tiles = nullptr;
  return a;
}

// Any number of rows, on int8 matrix units where weights are quantized. All products read the same activations.
void matmul(const MatmulArgs* products /* host, (n) */, uint32_t n, const Activations& a, uint32_t rows,
            cudaStream_t stream);

// Float weights, any number of rows.
void matmul_float(const MatmulArgs& product, const Activations& a, uint32_t rows, cudaStream_t stream);

// KV cache of one layer: pages of 64 positions.
struct KvLayer {
  uint8_t* heads;         // (page, kv_head, KvPage::bytes()), see kv_page.cuh
  const uint32_t* pages;  // (slot, pages_per_slot)
  uint32_t pages_per_slot;
};

// The pages of a pool, of all layers.
struct PoolPages {
  uint8_t* memory;       // (layer, page, page_bytes)
  uint64_t layer_bytes;  // from a page in a layer to the same one in the next
  uint32_t page_bytes;   // of a page in a layer
  uint32_t layers;
  uint32_t head_dim;
};
// Pages, and positions of pages, as a kernel's argument.
struct PageBatch {
  static constexpr uint32_t kMost = 512;
  uint32_t count;
  uint32_t page[kMost];
};
struct PageRowsBatch {
  static constexpr uint32_t kMost = 256;
  uint32_t count;
  PageRows rows[kMost];
};
// Notes the sums of these positions (arith/page_sum.h).
void sum_positions(const PoolPages& pool, const PageRowsBatch& rows /* host */,
                   unsigned long long* sums /* (pages, 64) */, cudaStream_t stream);
// Finds them again, without noting them: `damaged` of each that are not what was noted is not zero afterwards.
void check_positions(const PoolPages& pool, const PageRowsBatch& rows /* host */,
                     const unsigned long long* sums /* (pages, 64) */, unsigned long long* damaged /* (kMost), zero */,
                     cudaStream_t stream);
// Finds the sums of whole pages again; and those that were noted, from place kMost on.
void check_pages(const PoolPages& pool, const PageBatch& pages /* host */,
                 const unsigned long long* sums /* (pages, 64) */, unsigned long long* checked /* (2, kMost) */,
                 cudaStream_t stream);
// Copies what is in a page into another one, with its sums.
void copy_page(const PoolPages& pool, uint32_t from, uint32_t to, unsigned long long* sums /* (pages, 64) */,
               cudaStream_t stream);
// Loads the kernels for pages now and not with their first launches, which jobs of a lost worker wait for.
void load_page_kernels();
// Of where the values of a head lie in a page.
uint32_t page_layout(uint32_t head_dim);

struct Heads {
  uint32_t n_heads, n_kv_heads, head_dim;
  RopeStyle style;
  const float2* rope;  // (context, head_dim / 2): cos, sin; of attention that rotates
  float scale;         // arith::score_scale()
};

// How a kind of layer rotates heads, and what else happens to them.
struct Rotation {
  const float2* table;       // (positions, pairs): cos, sin
  uint32_t pairs;            // of the first values of a head
  const uint32_t* first;     // (slots) row of the table where a sequence's position 0 is, or null: the first
  const float* query_scale;  // (positions) or null
  float eps;                 // of the norms
};

// Adds biases, norms heads, rotates q and k in place, appends k and v.
void rope_kv(const Heads& h, const KvLayer& kv, const Rotation& rotation, const AttentionInputs& in,
             const uint32_t* slot, const uint32_t* position, uint32_t rows, bool pdl, cudaStream_t stream);

// Attention of single rows. With `rotate`, q, k and v are as the products left them (biases added) and each row is its
// sequence's last one: the kernel norms and rotates q and k and appends k and v itself.
struct DecodeAttention {
  Heads heads;
  KvLayer kv;
  const float* q;  // (rows, n_heads * head_dim)
  const float* k;  // (rows, n_kv_heads * head_dim), read with rotate
  const float* v;
  const uint32_t* row;  // (count) which rows, or null: from `first` on
  uint32_t first;
  const uint32_t* slot;      // (rows)
  const uint32_t* position;  // (rows)
  float* partial;            // of each row (n_heads, its runs, head_dim + 2): scratch
  const uint32_t* place;     // (rows) where that of a row begins, in runs of all heads (ops/partials.h)
  uint32_t* arrived;         // (count, n_heads), zero; left zero
  uint32_t runs;             // most runs of splits that a row may have
  Activations out;           // (rows, n_heads * head_dim): x, and blocks where there is memory for them
  bool rotate;
  const float* q_norm;  // (head_dim) or null, of `rotate`
  const float* k_norm;  // likewise
  float eps;            // of the norms
  AttentionParams params;
};
// Whether attention_decode can fill blocks: a block of 32 values is of one head.
inline bool decode_fills_blocks(uint32_t head_dim) { return head_dim % kQuantBlock == 0; }
inline constexpr uint32_t kMostHeadsPerKv = 16;  // query heads
// Rows whose position is below this need no partial, place and arrived: any number of them may attend at once.
inline constexpr uint32_t kDecodeShallow = kAttnRun * kAttnSplit;
void attention_decode(const DecodeAttention& a, uint32_t count, bool pdl, cudaStream_t stream);

// Shared memory that a block of attention_prefill takes, bytes. Throws kInvalid for widths of a head that the
// attention kernels don't have.
size_t prefill_shared_bytes(uint32_t head_dim);

// Attention of runs of consecutive rows: tile t covers `count[t]` <= 64 rows from row[t].
struct PrefillTile {
  uint32_t row, count, slot, start;  // start: position of its first row
};
void attention_prefill(const Heads& h, const KvLayer& kv, const float* q, const PrefillTile* tiles, uint32_t n_tiles,
                       const AttentionParams& params, float* out, cudaStream_t stream);

// The same for heads of 256 values, whose results are too many for the registers of one warp.
size_t prefill_wide_shared_bytes();
void attention_prefill_wide(const Heads& h, const KvLayer& kv, const float* q, const PrefillTile* tiles,
                            uint32_t n_tiles, const AttentionParams& params, float* out, cudaStream_t stream);

// One draw as the device sees it. Small, for kSampleBatch of them are one argument.
struct alignas(8) SampleArgs {
  Sampling sampling;
  uint32_t position;
  uint16_t slot, row;  // row: of logits
  uint16_t filtered : 1, masked : 1, biases : 14;
  uint16_t last;                 // the step's row that is sampled after
  uint16_t unmarked, uncounted;  // so many rows up to it are not in the sequence's set, in its counts
};
static_assert(sizeof(SampleArgs) == 56 && kMostBiases < 1 << 14);

// Words of the counts of all tokens: 16 bits each, the even token's first.
constexpr uint32_t count_words(uint32_t vocab) { return (vocab + 1) / 2; }

// Which tokens a draw's penalties cover, which a mask leaves, and what is added to some.
struct SampleSets {
  const uint32_t* seen;     // (slot, words)
  const uint32_t* masks;    // (row of logits, words)
  const uint32_t* counts;   // (slot, count_words)
  const TokenBias* biases;  // (row of logits, kMostBiases) ids ascending
  const uint32_t* token;    // (rows of the step)
  uint32_t words, count_words;
};

inline constexpr uint32_t kSampleBatch = 64;

// Draws as a kernel's argument: no copy before it.
struct alignas(16) SampleBatch {
  SampleArgs draw[kSampleBatch];
};

// Rows of a step, likewise.
struct RowBatch {
  uint32_t count;
  uint32_t token[kSmallM], slot[kSmallM], position[kSmallM];
  uint32_t place[kSmallM];  // as DecodeAttention has it
};

// Everything that a recorded step takes from the host.
struct StepArgs {
  RowBatch rows;
  alignas(16) SampleArgs samples[kSmallM];
};

// Where a step's kernels find its rows.
struct RowPlaces {
  uint32_t *token, *slot, *position, *place;  // (rows)
};

// Stores a step's rows there.
void begin_rows(const RowBatch& rows /* host */, const RowPlaces& to, cudaStream_t stream);

// The same for a step whose rows all draw, in order; its samples too. The order is read when the kernel runs.
void begin_step(const StepArgs* order /* pinned host */, uint32_t rows, const RowPlaces& to,
                SampleArgs* samples /* (rows) */, cudaStream_t stream);

// Tokens for the sets or the counts of their slots, as a kernel's argument.
struct MarkBatch {
  static constexpr uint32_t kMost = 128;
  uint32_t count;
  uint32_t slot[kMost], token[kMost];
};
void mark(const MarkBatch& tokens /* host */, uint32_t* seen /* (slot, words) */, uint32_t words, cudaStream_t stream);
// Counts each as often as it is there, up to arith::kMostCounted.
void count(const MarkBatch& tokens /* host */, uint32_t* counts /* (slot, words) */, uint32_t words,
           cudaStream_t stream);

// Draws without top-k, top-p or min-p. With `stored`, those are the samples. best: (n) scratch, zero; left zero, as
// arrived. sampled: device memory or pinned host memory.
void sample(const float* logits /* (*, vocab) */, uint32_t vocab, const SampleBatch& samples /* host */,
            const SampleArgs* stored /* (n) or null */, uint32_t n, const SampleSets& sets, unsigned long long* best,
            uint32_t* arrived, uint32_t* sampled, bool pdl, cudaStream_t stream);

inline constexpr uint32_t kFilterBins = 4096;

// What the kernels of one draw with top-k, top-p or min-p hand on. Zero before a draw, and left zero but for
// `floor` and `top`.
struct FilterState {
  alignas(16) uint32_t count[kFilterBins];           // tokens, by distance from the largest logit
  alignas(16) unsigned long long mass[kFilterBins];  // their weights, 2^32 for the largest
  unsigned long long best;                           // rank of the best logit, later of the best score
  unsigned long long floor;                          // least rank that top-k and top-p leave
  float top;                                         // the largest logit, over temperature; NaN: they are broken
  uint32_t arrived;                                  // blocks
  uint32_t nonzero;                                  // some logit differs from zero
};

// Values of a row of logits that's kept between those kernels: whole groups of four.
ORCD_HD uint64_t scaled_width(uint32_t vocab) { return (uint64_t{vocab} + 3) / 4 * 4; }

// Loads the kernels of what follows, as load_page_kernels() does its own.
void load_filter_kernels();
// Draws marked `filtered`; the others are left alone.
void sample_filtered(const float* logits /* (*, vocab) */, uint32_t vocab, const SampleBatch& samples /* host */,
                     uint32_t n, const SampleSets& sets, float* scaled /* (n, scaled_width(vocab)) scratch */,
                     FilterState* state /* (n) */, uint32_t* sampled, cudaStream_t stream);

inline constexpr uint32_t kTopLogprobs = 20;

// Draws that want logprobs, as a kernel's argument.
struct LogprobBatch {
  uint32_t count;
  uint32_t row[kSampleBatch], top[kSampleBatch];  // of logits; how many of the most likely tokens
};

// What they get.
struct Logprobs {
  float of_sampled;
  uint32_t count;  // of the two below
  uint32_t token[kTopLogprobs];
  float logprob[kTopLogprobs];
};

// Once the tokens are sampled.
void logprobs(const float* logits /* (*, vocab) */, uint32_t vocab, const LogprobBatch& wanted /* host */,
              const uint32_t* sampled /* by row of logits */, Logprobs* out /* by row of logits */,
              cudaStream_t stream);

}  // namespace orcd::kernels
