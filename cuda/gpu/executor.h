// Steps on a GPU: operation by operation, each a kernel launch on one stream, or, for few rows, as a chain of fused
// kernels (fused.cu).
#pragma once

#include <cstdint>
#include <vector>

#include "device/buffer.h"
#include "device/stream.h"
#include "engine/executor.h"
#include "engine/model.h"
#include "formats/formats.h"
#include "kernels/launch.h"

namespace orcd::gpu {

// Of the pool: all pages, then their sums.
uint64_t kv_bytes(const ModelShape& shape, const EngineOptions& options);
// Of what else an executor takes beside weights and scratch.
uint64_t table_bytes(const ModelShape& shape, const EngineOptions& options);
ScratchOf scratch_of_device();

class CudaExecutor final : public Executor, public Ops {
 public:
  CudaExecutor(const Model& model, const EngineOptions& options, int ordinal, const uint8_t* image, uint8_t* pool);
  ~CudaExecutor() override;  // waits: finish() may return before the last kernel has ended

  ScratchOf scratch_of() const override;
  void* allocate(size_t bytes) override;
  void prepare(const Model& model, const Scratch& scratch) override;
  void open(uint32_t slot, uint32_t positions) override;
  void close(uint32_t slot) override;
  void release(std::span<const uint32_t> pages) override;
  void copy(uint32_t from, uint32_t to) override;
  void sum(std::span<const PageRows> rows) override;
  void check(std::span<const PageRows> rows, std::span<uint8_t> sound) override;
  void settle() override;
  void begin(const Model& model, const Scratch& scratch, const Step& step) override;
  void finish(const Model& model, const Scratch& scratch, const Step& step, std::span<Sampled> sampled) override;
  void download(const void* from, size_t bytes, void* to) const override;
  bool resident() const override;

  // The rows that operations are about from now on.
  void begin(const Rows& rows, const SequenceStore& sequences);
  void embed(const Tensor& table, float scale, float* x) override;
  void rmsnorm(const float* x, const uint32_t* gather, uint32_t rows, const float* weight, float eps,
               const Activations& out) override;
  void quantize(const Activations& a, uint32_t rows) override;
  void matmul(std::span<const MatmulArgs> products, const Activations& a, uint32_t rows) override;
  void rope_kv(uint32_t layer, const AttentionInputs& in) override;
  void attention(uint32_t layer, const AttentionParams& params, const float* q, float* out) override;
  void glu(Activation activation, const float* gate, const float* up, uint32_t rows, const Activations& out) override;
  void mix(const Mixture& m, const Activations& normed, uint32_t rows, float* y) override;
  void add(const float* y, const BranchEnd& end, uint32_t rows, uint32_t cols, float* x) override;
  void finish_logits(float scale, float cap, uint32_t rows, uint32_t vocab, float* l) override;
  // Has the step's tokens sampled, which finish() brings.
  void sample(const float* logits /* (samples, vocab) */, uint32_t vocab, const Step& step);
  // Waits for everything begun, or at least for the tokens sampled, which come last; throws kDevice if anything that
  // came before them failed.
  void finish(std::span<Sampled> sampled = {} /* (samples) */);

  static uint64_t input_bytes(uint32_t max_rows, uint32_t slots);
  const device::Stream& stream() const { return stream_; }  // for benchmarks: what everything is put into

 private:
  // What a step needs on the device, filled on the host and copied in one piece.
  struct StepInput {
    uint32_t* token;              // (max_rows)
    uint32_t* slot;               // (max_rows)
    uint32_t* position;           // (max_rows)
    uint32_t* place;              // (max_rows) where partial results of attention are (ops/partials.h)
    uint32_t* decode_rows;        // (slots) rows that are a run of their own
    uint32_t* prefill_rows;       // (max_rows) the others
    uint32_t* logit_rows;         // (slots)
    kernels::PrefillTile* tiles;  // (max_rows)
  };
  StepInput carve(uint8_t* base) const;
  kernels::RowPlaces row_places() const;

  void take_rows(const Rows& rows, const SequenceStore& sequences);
  void find_runs(const Rows& rows);
  void place_partials(const Rows& rows);
  bool store_rows(const Rows& rows);
  void send_rows(const Rows& rows);
  void send_pages(uint32_t slot, std::span<const uint32_t> pages);
  void check_pages(std::span<const PageRows> pages);
  void check_parts(std::span<const PageRows> rows);
  void fetch_checked();
  bool run_fused(const Model& model, const Scratch& scratch, std::span<const uint32_t> logit_rows);
  bool is_decoding(std::span<const uint32_t> logit_rows) const;
  const device::Graph* recorded(const Model& model, const Scratch& scratch, const Step& step);
  device::Graph record(const Model& model, const Scratch& scratch, bool draws);
  uint32_t* samples_arrived() const;
  kernels::SampleSets sample_sets() const;
  void forget_replaced(const Rows& rows);
  void mark_seen(uint32_t slot, std::span<const uint32_t> tokens);
  void count_output(uint32_t slot, uint32_t start, std::span<const uint32_t> tokens);
  void place_penalties(const Step& step, uint32_t sample, kernels::SampleArgs& args);
  void send_marks();
  void send_counts();
  void send_biases(std::span<const PlacedSample> samples);
  void send_masks(std::span<const PlacedSample> samples);
  void take_logprobs(std::span<Sampled> sampled) const;
  void send_logprobs(const float* logits, uint32_t vocab, std::span<const PlacedSample> samples, uint32_t first);
  void await_tokens();
  const uint32_t* upload_logit_rows(std::span<const uint32_t> logit_rows);
  void attend_fused(uint32_t layer, const Layer& l, const Scratch& scratch, const Activations& out, bool decoding);
  void make_tables(const Model& model);
  bool rotates_plainly(const Layer& l) const;
  kernels::Rotation rotation(uint32_t kind) const;
  void launch_fused(const Model& model, const Scratch& scratch, const uint32_t* logit_rows, uint32_t n_logits,
                    bool decoding, bool recorded = false);
  kernels::KvLayer kv_layer(uint32_t layer) const;
  kernels::PoolPages pool_pages() const;
  bool is_filled(const Activations& attended) const;
  kernels::Heads heads(const AttentionParams& params) const;
  void attend_rows(kernels::DecodeAttention a, const uint32_t* rows, bool pdl);
  bool are_tiles_slow() const;
  bool attends_row_by_row() const;
  kernels::DecodeAttention decode_attention(uint32_t layer, const AttentionParams& params, const float* q,
                                            const Activations& out) const;

  ModelShape shape_;
  EngineOptions options_;
  int ordinal_;
  const uint8_t* image_;
  device::Stream stream_;
  uint32_t pages_, pages_per_slot_;
  kernels::Heads heads_;

  device::Buffer<float2> rope_;                       // of each kind of layers (context, pairs), LongRoPE's twice
  uint64_t second_rope_ = 0;                          // where the second kind's begins
  device::Buffer<uint32_t> rope_first_;               // LongRoPE: (slots) as Rotation::first has it; else one
  device::Pinned<uint32_t> rope_first_host_;          // the same on the host
  device::Buffer<float> query_scale_;                 // (context) if there is one
  uint8_t* kv_;                                       // the pool's: (layer, page, kv_head, KvPage::bytes())
  unsigned long long* sums_;                          // the pool's: (page, 64)
  device::Buffer<unsigned long long> checked_;        // what checks have found
  device::Pinned<unsigned long long> checked_host_;   // the same on the host
  device::Buffer<uint32_t> page_table_;               // (slot, pages_per_slot)
  device::Pinned<uint32_t> page_rows_;                // the same on the host: what is copied must stay put
  device::Buffer<uint32_t> seen_;                     // (slot, set_words_): each sequence's first seen_length_ tokens
  device::Buffer<uint32_t> masks_;                    // (samples, set_words_) of the step
  device::Pinned<uint32_t> mask_rows_;                // the same on the host
  device::Buffer<uint32_t> counts_;                   // (slot, count_words(vocab)): of what counted_ says
  device::Buffer<TokenBias> biases_;                  // (samples, kMostBiases) of the step
  device::Pinned<TokenBias> bias_rows_;               // the same on the host
  device::Buffer<float> partial_;                     // results of attention by runs (ops/partials.h)
  device::Buffer<uint32_t> arrived_;                  // counters, zero between launches
  device::Buffer<unsigned long long> best_;           // (slots) ranks, zero between launches
  device::Buffer<float> scaled_;                      // (samples at once, scaled_width(vocab)) filtered ones
  device::Buffer<kernels::FilterState> filter_;       // (samples at once)
  device::Pinned<uint32_t> sampled_;                  // (slots) written by the device
  device::Pinned<kernels::Logprobs> logprobs_;        // (slots) likewise, for those that want them
  device::Pinned<kernels::StepArgs> step_args_;       // what a recorded step fetches
  device::Buffer<kernels::SampleArgs> step_samples_;  // where a recorded one finds its samples
  device::Buffer<uint32_t> hidden_arrived_;           // counters, zero between launches
  device::Buffer<uint8_t> input_;
  device::Pinned<uint8_t> input_host_;
  std::vector<device::Buffer<uint8_t>> scratch_;

  uint32_t set_words_;
  std::vector<uint32_t> seen_length_;  // (slots)
  struct Counted {
    uint32_t start, end;  // tokens of an output, by their positions; end 0: the counts are anything
  };
  std::vector<Counted> counted_;             // (slots)
  std::vector<uint32_t> sent_biases_;        // (samples) biases that the device has
  kernels::MarkBatch marks_{}, counting_{};  // tokens on their way into seen_ and counts_
  std::vector<kernels::SampleArgs> draws_;   // (samples) of the step
  uint32_t rows_ = 0, n_decode_rows_ = 0, tiles_ = 0, samples_ = 0;
  std::vector<uint32_t> attend_launches_;  // rows of each launch in which the step's single rows attend
  uint32_t marked_slot_ = 0;               // whose set this step has brought up to date last
  uint32_t counted_slot_ = 0;              // whose counts
  bool has_logprobs_ = false;              // some sample of this step
  uint32_t deepest_prefill_ = 0;           // position of the last row that is not alone in its run
  std::vector<uint32_t> sent_pages_;       // (slots) pages of each sequence that the device knows

  // Steps of decoding of one number of rows, each row of which draws.
  struct Recording {
    device::Graph whole;    // from fetching their rows to drawing their tokens, but for samples with filters
    device::Graph forward;  // without drawing
    uint32_t uses = 0;      // as long as one of the two is missing
  };
  uint32_t fused_rows_ = 0;               // steps of up to so many rows can be fused
  uint32_t few_rows_ = 1;                 // of these, steps whose rows each read all weights for themselves
  bool small_batches_ = false;            // of more, up to kernels::kSmallRows are a small batch
  std::vector<Recording> recordings_;     // (fused rows) by number of rows - 1
  uint32_t may_record_ = 0;               // graphs that may still be made while steps run
  const device::Graph* graph_ = nullptr;  // the present step is this one
  bool pending_ = false;                  // a step was begun that nobody has waited for
};

}  // namespace orcd::gpu
