// The CUDA backend's operations: each a kernel launch on one stream. A step of few rows runs as a chain of
// fused kernels instead (fused.cu).
#pragma once

#include <cstdint>
#include <vector>

#include "arith/blocks.h"
#include "device/buffer.h"
#include "device/stream.h"
#include "engine/model.h"
#include "engine/scratch.h"
#include "gpu/kv_pages.h"
#include "kernels/launch.h"
#include "ops/ops.h"

namespace orcd::gpu {

// Device memory beside weights and scratch.
struct KvBytes {
  uint64_t cache, tables;
};
KvBytes kv_bytes(const ModelShape& shape, const EngineOptions& options);

// Values that kFewRows rows of the widest product take, tiled.
uint64_t tiled_values(const ModelShape& shape);

class CudaOps final : public Ops {
 public:
  CudaOps(const Model& model, const EngineOptions& options, int ordinal, const uint8_t* image);
  ~CudaOps() override;  // waits: finish() may return before the last kernel has ended

  void* allocate(size_t bytes) override;
  void open_slot(uint32_t slot) override;
  void close_slot(uint32_t slot) override;
  void prepare(const Model& model, const Scratch& scratch) override;
  void begin(const Rows& rows) override;
  bool forward_fused(const Model& model, const Scratch& scratch, std::span<const uint32_t> pick) override;
  void embed(const Tensor& table, float* x) override;
  void rmsnorm(const float* x, const uint32_t* pick, uint32_t rows, const float* weight, float eps,
               const Activations& out) override;
  void quantise(const Activations& a, uint32_t rows) override;
  void matmul(std::span<const Product> products, const Activations& a, uint32_t rows) override;
  void rope_kv(uint32_t layer, const AttentionInputs& in) override;
  void attention(uint32_t layer, const float* q, float* out) override;
  void swiglu(const float* gate, const float* up, uint32_t rows, const Activations& out) override;
  void sample(const float* logits, uint32_t vocab, std::span<const PlacedDraw> draws, uint32_t* drawn) override;
  void finish() override;
  void download(const void* from, size_t bytes, void* to) override;
  bool resident() const override;

  static uint64_t input_bytes(uint32_t max_rows, uint32_t slots);
  const device::Stream& stream() const { return stream_; }  // for benchmarks: what everything is put into

 private:
  // What a step needs on the device, filled on the host and copied in one piece.
  struct StepInput {
    uint32_t* token;               // (max_rows)
    uint32_t* slot;                // (max_rows)
    uint32_t* position;            // (max_rows)
    uint32_t* single;              // (slots) rows that are a run of their own
    uint32_t* grouped;             // (max_rows) the others
    uint32_t* pick;                // (slots)
    kernels::PrefillTile* tiles;   // (max_rows)
  };
  StepInput carve(uint8_t* base) const;

  void find_runs(const Rows& rows);
  kernels::TiledActivations tiled(uint32_t buffer, uint32_t rows) const;
  void send_rows(const Rows& rows);
  bool held_back() const;
  void begin_batch();
  uint32_t* draws_arrived() const;
  void await_tokens();
  const uint32_t* upload_pick(std::span<const uint32_t> pick);
  void attend_fused(uint32_t layer, const Scratch& scratch, bool decoding);
  void launch_fused(const Model& model, const Scratch& scratch, const uint32_t* pick, uint32_t picked, bool decoding,
                    bool recorded = false);
  kernels::KvLayer kv_layer(uint32_t layer) const;
  kernels::DecodeAttention decode_attention(uint32_t layer, const float* q, const Activations& out) const;

  ModelShape shape_;
  EngineOptions options_;
  int ordinal_;
  const uint8_t* image_;
  device::Stream stream_;
  KvPages pages_;
  kernels::Heads heads_;

  device::Buffer<float2> rope_;          // (context, head_dim / 2)
  device::Buffer<__half> kv_;            // (layer, 2, page, kv_head, 64 * head_dim)
  device::Buffer<int8_t> tiled_q_;       // (2, ...) inputs of products on few rows
  device::Buffer<float> tiled_d_;
  device::Buffer<int32_t> tiled_sum_;
  device::Buffer<int32_t> tiled_half_;
  device::Buffer<uint32_t> page_table_;  // (slot, pages_per_slot)
  device::Pinned<uint32_t> page_rows_;   // the same on the host: what is copied must stay put
  device::Buffer<uint32_t> seen_;        // (slot, seen_words_): set of each sequence's tokens
  device::Buffer<float> partial_;        // attention splits
  device::Buffer<uint32_t> arrived_;     // counters, zero between launches
  device::Buffer<unsigned long long> best_;  // (slots) ranks, zero between launches
  device::Buffer<float> scaled_;         // (drawn at once, scaled_width(vocab)) filtered draws
  device::Buffer<kernels::FilterState> filter_;  // (drawn at once)
  device::Pinned<uint32_t> drawn_;       // (slots) written by the device
  device::Pinned<kernels::StepOrder> order_;           // of a step of few rows
  device::Buffer<kernels::DeviceDraw> ordered_draws_;  // where a recorded one finds its draws
  device::Buffer<uint8_t> input_;
  device::Pinned<uint8_t> input_host_;
  std::vector<device::Buffer<uint8_t>> scratch_;

  uint32_t seen_words_;
  uint32_t rows_ = 0, singles_ = 0, tiles_ = 0, draws_ = 0;
  uint32_t deepest_grouped_ = 0;         // position of the last row that is not alone in its run
  uint32_t* drawn_to_ = nullptr;

  static constexpr uint32_t kGraphs = 32;
  uint32_t fused_rows_ = 0;              // steps of up to so many rows can be fused
  std::vector<device::Graph> graphs_;    // whole steps of decoding, by number of rows - 1
  bool recorded_ = false;                // the present step is one of those, and waits for its draws
};

}  // namespace orcd::gpu
