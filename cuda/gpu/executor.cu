#include "gpu/executor.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "arith/sampling.h"
#include "device/vmm.h"
#include "engine/forward.h"
#include "engine/rope.h"
#include "gpu/rope_table.h"
#include "kernels/kv_page.cuh"
#include "kernels/pdl.h"
#include "ops/partials.h"

namespace orcd::gpu {
namespace {

constexpr uint32_t kPrefillTile = 64;
constexpr uint32_t kNoToken = 0xffffffffu;  // above all ids

uint64_t align(uint64_t bytes) { return (bytes + 255) / 256 * 256; }

uint32_t splits_of(uint32_t context) { return (context + kAttnSplit - 1) / kAttnSplit; }

uint32_t runs_of(uint32_t context) { return (splits_of(context) + kAttnRun - 1) / kAttnRun; }

// A window as long as the context is none: kernels are faster without.
AttentionParams within(AttentionParams params, uint32_t context) {
  if (params.window >= context) params.window = 0;
  return params;
}

// Most runs of splits that a row sees some of.
uint32_t seen_runs(const AttentionParams& params, uint32_t context) {
  constexpr uint32_t keys = kAttnRun * kAttnSplit;
  const uint32_t all = runs_of(context);
  return params.window ? std::min(all, (params.window + keys - 2) / keys + 1) : all;
}

// Of a page in one layer.
uint64_t page_bytes(const ModelShape& s) { return uint64_t{s.n_kv_heads} * kernels::KvPage{s.head_dim}.bytes(); }

// Partial results of the rows of one launch of the decode kernel: where they take more, rows come one launch after the
// other, in the same memory. Of a model of 8B these are 4 000 runs, a million keys: rarely has a step's decoding more.
constexpr uint64_t kPartialBytes = 64 << 20;

// Of a run, all heads.
uint64_t partial_values_of_run(const ModelShape& s) { return uint64_t{s.n_heads} * (s.head_dim + 2); }

// As many as that, but no fewer than a row of the whole context has, and no more than one in each slot.
PartialsRoom partials_room(const ModelShape& s, const EngineOptions& o) {
  const uint64_t row = runs_of(o.context), fit = kPartialBytes / (partial_values_of_run(s) * sizeof(float));
  return {std::clamp<uint64_t>(fit, row, row * o.slots), o.slots};
}

uint64_t partial_values(const ModelShape& s, const EngineOptions& o) {
  return partials_room(s, o).runs * partial_values_of_run(s);
}

// A tile goes through its keys page by page, in some 2 µs each, however few tiles there are. Where a layer's part of a page
// times the rows is less than what the memory gives in that time, rows one by one, each with its keys spread over the
// device, are sooner there.
constexpr uint64_t kBytesOfTile = 4 << 20;
// Fewer positions are not worth it.
constexpr uint32_t kDeep = 1024;

// Places for what checks find: of whole pages two each, of so many batches before somebody waits.
constexpr uint32_t kBatchesChecked = 16;
constexpr uint32_t kChecked = kBatchesChecked * 2 * kernels::PageBatch::kMost;

// Draws that one batch of kernels takes: batches run one after the other, in the same scratch.
uint64_t samples_at_once(const EngineOptions& o) { return std::min(o.slots, kernels::kSampleBatch); }

// Of thread blocks that fill a super-block of a feed-forward's hidden values together.
uint64_t hidden_counters(const ModelShape& s) { return std::max<uint32_t>(1, s.d_ff / kSuperBlock); }

constexpr uint32_t kNoSlot = 0xffffffffu;

// Whether that fills the batch.
bool put(kernels::MarkBatch& batch, uint32_t slot, uint32_t token) {
  batch.slot[batch.count] = slot;
  batch.token[batch.count] = token;
  return ++batch.count == kernels::MarkBatch::kMost;
}

kernels::SampleArgs sample_args(const PlacedSample& draw, uint32_t row, uint32_t vocab) {
  kernels::SampleArgs args = {};
  args.sampling = draw.sampling;
  args.position = draw.position;
  args.slot = static_cast<uint16_t>(draw.slot);
  args.row = static_cast<uint16_t>(row);
  args.filtered = arith::filters(draw.sampling, vocab);
  args.masked = draw.mask != nullptr;
  args.biases = static_cast<uint16_t>(draw.biases.size());
  return args;
}

}  // namespace

namespace {

bool has_long(const ModelShape& s) { return s.kinds[0].rope.scaling == RopeScaling::kLongRope; }

// Cosines and sines of the first kind of layers.
uint64_t first_rope_values(const ModelShape& s, const EngineOptions& o) {
  return uint64_t{o.context} * s.kinds[0].rope.pairs * (has_long(s) ? 2 : 1);
}

bool has_second(const ModelShape& s) {
  return std::any_of(s.second_kind.begin(), s.second_kind.end(), [](uint64_t word) { return word != 0; });
}

// Of both.
uint64_t rope_values(const ModelShape& s, const EngineOptions& o) {
  const uint64_t second = has_second(s) ? uint64_t{o.context} * s.kinds[1].rope.pairs : 0;
  return std::max<uint64_t>(1, first_rope_values(s, o) + second);
}

uint64_t rope_slots(const ModelShape& s, const EngineOptions& o) { return has_long(s) ? o.slots : 1; }

uint64_t query_scales(const ModelShape& s, const EngineOptions& o) { return s.query_scale != 0 ? o.context : 1; }

}  // namespace

uint64_t kv_bytes(const ModelShape& s, const EngineOptions& o) {
  const uint64_t pages = SequenceStore::total_pages(o);
  return pages * (s.n_layers * page_bytes(s) + kAttnSplit * sizeof(unsigned long long));
}

// Everything that CudaExecutor takes beside the scratch and the pool.
uint64_t table_bytes(const ModelShape& s, const EngineOptions& o) {
  const uint64_t rope = rope_values(s, o) * sizeof(float2) + (rope_slots(s, o) + query_scales(s, o)) * 4;
  const uint64_t table = uint64_t{o.slots} * splits_of(o.context) * 4;
  const uint64_t draw = kernels::scaled_width(s.vocab) * sizeof(float) + sizeof(kernels::FilterState);
  const uint64_t samples = samples_at_once(o) * draw;
  const uint64_t sets = 2 * uint64_t{o.slots} * mask_words(s.vocab) * 4;
  const uint64_t counts = uint64_t{o.slots} * kernels::count_words(s.vocab) * 4;
  const uint64_t biases = uint64_t{o.slots} * kMostBiases * sizeof(TokenBias);
  const uint64_t counters = uint64_t{o.slots} * ((s.n_heads + 1) * 4 + sizeof(unsigned long long));
  const uint64_t hidden = hidden_counters(s) * 4;
  const uint64_t input =
      CudaExecutor::input_bytes(o.max_batch_tokens, o.slots) + kernels::kSmallM * sizeof(kernels::SampleArgs);
  const uint64_t checked = kChecked * sizeof(unsigned long long);
  return rope + table + samples + partial_values(s, o) * sizeof(float) + sets + counts + biases + counters + hidden +
         input + checked;
}

CudaExecutor::CudaExecutor(const Model& model, const EngineOptions& options, int ordinal, const uint8_t* image,
                           uint8_t* pool)
    : shape_(model.shape),
      options_(options),
      ordinal_(ordinal),
      image_(image),
      pages_(SequenceStore::total_pages(options)),
      pages_per_slot_(splits_of(options.context)),
      rope_(rope_values(model.shape, options)),
      rope_first_(rope_slots(model.shape, options)),
      rope_first_host_(rope_slots(model.shape, options)),
      query_scale_(query_scales(model.shape, options)),
      kv_(pool),
      sums_(reinterpret_cast<unsigned long long*>(pool + model.shape.n_layers * pages_ * page_bytes(model.shape))),
      checked_(kChecked),
      checked_host_(kChecked),
      page_table_(uint64_t{options.slots} * pages_per_slot_),
      page_rows_(uint64_t{options.slots} * pages_per_slot_),
      seen_(uint64_t{options.slots} * mask_words(model.shape.vocab)),
      masks_(seen_.size()),
      mask_rows_(seen_.size()),
      counts_(uint64_t{options.slots} * kernels::count_words(model.shape.vocab)),
      biases_(uint64_t{options.slots} * kMostBiases),
      bias_rows_(biases_.size()),
      partial_(partial_values(model.shape, options)),
      arrived_(uint64_t{options.slots} * (model.shape.n_heads + 1)),
      best_(options.slots),
      scaled_(samples_at_once(options) * kernels::scaled_width(model.shape.vocab)),
      filter_(samples_at_once(options)),
      sampled_(options.slots),
      logprobs_(options.slots),
      step_args_(1),
      step_samples_(kernels::kSmallM),
      hidden_arrived_(hidden_counters(model.shape)),
      input_(input_bytes(options.max_batch_tokens, options.slots)),
      input_host_(input_bytes(options.max_batch_tokens, options.slots)),
      set_words_(mask_words(model.shape.vocab)),
      seen_length_(options.slots),
      counted_(options.slots),
      sent_biases_(options.slots),
      sent_pages_(options.slots) {
  make_tables(model);
  heads_ = {shape_.n_heads, shape_.n_kv_heads, shape_.head_dim, shape_.kinds[0].rope.style, rope_.data(), 0};
  page_table_.zero();
  arrived_.zero();
  best_.zero();
  filter_.zero();
  hidden_arrived_.zero();
  ORCD_CUDA(cudaDeviceSynchronize());
  kernels::has_pdl();  // asked here, for it loads a kernel: not while a graph is recorded
}

// Rotations of every position, and scales of queries.
void CudaExecutor::make_tables(const Model& model) {
  const uint32_t context = options_.context;
  float2* to = rope_.data();
  const auto put = [&](uint32_t kind, const float* divisors) {
    const RopeSpec& spec = shape_.kinds[kind].rope;
    std::vector<float> host(spec.pairs);
    if (divisors) download(divisors, spec.pairs * sizeof(float), host.data());
    const std::vector<arith::CosSin> table =
        rope_table(rope_frequencies(spec, divisors ? host.data() : nullptr), rope_magnitude(spec), context);
    static_assert(sizeof(arith::CosSin) == sizeof(float2));
    ORCD_CUDA(cudaMemcpy(to, table.data(), table.size() * sizeof(float2), cudaMemcpyHostToDevice));
    to += table.size();
  };
  put(0, model.rope_freqs);
  if (has_long(shape_)) put(0, model.long_rope_freqs);
  second_rope_ = to - rope_.data();
  if (has_second(shape_)) put(1, model.has_divisors(1) ? model.rope_freqs : nullptr);
  rope_first_.zero();
  if (shape_.query_scale == 0) return;
  std::vector<float> scales(context);
  for (uint32_t p = 0; p < context; ++p) scales[p] = orcd::query_scale(shape_, p);
  ORCD_CUDA(cudaMemcpy(query_scale_.data(), scales.data(), query_scale_.bytes(), cudaMemcpyHostToDevice));
}

// An error was told before, or there is nobody to tell.
CudaExecutor::~CudaExecutor() { cudaStreamSynchronize(stream_); }

CudaExecutor::StepInput CudaExecutor::carve(uint8_t* base) const {
  uint64_t at = 0;
  const auto take = [&](uint64_t bytes) {
    uint8_t* p = base + at;
    at += align(bytes);
    return p;
  };
  const uint64_t rows = options_.max_batch_tokens, slots = options_.slots;
  StepInput s;
  s.token = reinterpret_cast<uint32_t*>(take(rows * 4));
  s.slot = reinterpret_cast<uint32_t*>(take(rows * 4));
  s.position = reinterpret_cast<uint32_t*>(take(rows * 4));
  s.place = reinterpret_cast<uint32_t*>(take(rows * 4));
  s.decode_rows = reinterpret_cast<uint32_t*>(take(slots * 4));
  s.prefill_rows = reinterpret_cast<uint32_t*>(take(rows * 4));
  s.logit_rows = reinterpret_cast<uint32_t*>(take(slots * 4));
  s.tiles = reinterpret_cast<kernels::PrefillTile*>(take(rows * sizeof(kernels::PrefillTile)));
  return s;
}

kernels::RowPlaces CudaExecutor::row_places() const {
  const StepInput in = carve(input_.data());
  return {in.token, in.slot, in.position, in.place};
}

uint64_t CudaExecutor::input_bytes(uint32_t rows, uint32_t slots) {
  return 5 * align(uint64_t{rows} * 4) + 2 * align(uint64_t{slots} * 4) +
         align(uint64_t{rows} * sizeof(kernels::PrefillTile));
}

ScratchOf scratch_of_device() { return kernels::processor().warpgroups ? ScratchOf::kWarpgroups : ScratchOf::kGpu; }

ScratchOf CudaExecutor::scratch_of() const { return scratch_of_device(); }

void* CudaExecutor::allocate(size_t bytes) {
  scratch_.emplace_back(bytes);
  // In the stream of the kernels that use it: it doesn't wait for others.
  ORCD_CUDA(cudaMemsetAsync(scratch_.back().data(), 0, bytes, stream_));
  return scratch_.back().data();
}

void CudaExecutor::open(uint32_t slot, uint32_t positions) {
  seen_length_[slot] = counted_[slot].end = 0;
  if (!has_long(shape_)) return;
  // A step that was given up may still read it: what it then computes is thrown away.
  rope_first_host_[slot] = is_long(shape_.kinds[0].rope, positions) ? options_.context : 0;
  ORCD_CUDA(
      cudaMemcpyAsync(rope_first_.data() + slot, rope_first_host_.data() + slot, 4, cudaMemcpyHostToDevice, stream_));
}

void CudaExecutor::close(uint32_t slot) { sent_pages_[slot] = 0; }

void CudaExecutor::release(std::span<const uint32_t> pages) {
  if (!options_.poison) return;  // the pool is one allocation
  const uint64_t bytes = page_bytes(shape_);
  for (const uint32_t page : pages) {
    for (uint32_t layer = 0; layer < shape_.n_layers; ++layer)  // scales that are NaN
      ORCD_CUDA(cudaMemsetAsync(kv_layer(layer).heads + page * bytes, 0xff, bytes, stream_));
  }
}

void CudaExecutor::copy(uint32_t from, uint32_t to) { kernels::copy_page(pool_pages(), from, to, sums_, stream_); }

kernels::PoolPages CudaExecutor::pool_pages() const {
  const auto bytes = static_cast<uint32_t>(page_bytes(shape_));
  return {kv_, pages_ * uint64_t{bytes}, bytes, shape_.n_layers, shape_.head_dim};
}

namespace {

// As many at once as a kernel takes, from `first` on.
kernels::PageRowsBatch batch_of(std::span<const PageRows> rows, size_t first) {
  kernels::PageRowsBatch batch;
  batch.count = static_cast<uint32_t>(std::min<size_t>(kernels::PageRowsBatch::kMost, rows.size() - first));
  std::copy_n(rows.data() + first, batch.count, batch.rows);
  return batch;
}

}  // namespace

void CudaExecutor::sum(std::span<const PageRows> rows) {
  for (size_t first = 0; first < rows.size(); first += kernels::PageRowsBatch::kMost)
    kernels::sum_positions(pool_pages(), batch_of(rows, first), sums_, stream_);
}

// Whole pages go word by word, which is faster than position by position.
void CudaExecutor::check(std::span<const PageRows> rows, std::span<uint8_t> sound) {
  std::vector<PageRows> whole, parts;
  std::vector<size_t> of_whole, of_parts;  // places among all
  for (size_t i = 0; i < rows.size(); ++i) {
    const bool is_whole = rows[i].to - rows[i].from == kAttnSplit;
    (is_whole ? whole : parts).push_back(rows[i]);
    (is_whole ? of_whole : of_parts).push_back(i);
  }
  constexpr size_t pages = kBatchesChecked * kernels::PageBatch::kMost;
  for (size_t first = 0; first < whole.size(); first += pages) {
    const size_t n = std::min(pages, whole.size() - first);
    check_pages(std::span(whole).subspan(first, n));
    for (size_t i = 0; i < n; ++i) {
      const unsigned long long* found =
          checked_host_.data() + i / kernels::PageBatch::kMost * kernels::PageBatch::kMost + i;
      sound[of_whole[first + i]] = found[0] == found[kernels::PageBatch::kMost];
    }
  }
  for (size_t first = 0; first < parts.size(); first += kChecked) {
    const size_t n = std::min<size_t>(kChecked, parts.size() - first);
    check_parts(std::span(parts).subspan(first, n));
    for (size_t i = 0; i < n; ++i) sound[of_parts[first + i]] = checked_host_[i] == 0;
  }
}

// Of each batch kMost sums that were found, then those that were noted.
void CudaExecutor::check_pages(std::span<const PageRows> pages) {
  constexpr uint32_t most = kernels::PageBatch::kMost;
  for (size_t first = 0; first < pages.size(); first += most) {
    kernels::PageBatch batch;
    batch.count = static_cast<uint32_t>(std::min<size_t>(most, pages.size() - first));
    for (uint32_t i = 0; i < batch.count; ++i) batch.page[i] = pages[first + i].page;
    kernels::check_pages(pool_pages(), batch, sums_, checked_.data() + 2 * first, stream_);
  }
  fetch_checked();
}

void CudaExecutor::check_parts(std::span<const PageRows> rows) {
  ORCD_CUDA(cudaMemsetAsync(checked_.data(), 0, checked_.bytes(), stream_));
  for (size_t first = 0; first < rows.size(); first += kernels::PageRowsBatch::kMost)
    kernels::check_positions(pool_pages(), batch_of(rows, first), sums_, checked_.data() + first, stream_);
  fetch_checked();
}

void CudaExecutor::fetch_checked() {
  ORCD_CUDA(cudaMemcpyAsync(checked_host_.data(), checked_.data(), checked_.bytes(), cudaMemcpyDeviceToHost, stream_));
  stream_.wait();
}

void CudaExecutor::settle() { stream_.wait(); }

// Rows alone in their run go to the decode kernel, longer runs are cut into tiles.
void CudaExecutor::find_runs(const Rows& rows) {
  const StepInput in = carve(input_host_.data());
  n_decode_rows_ = tiles_ = deepest_prefill_ = 0;
  uint32_t prefill_rows = 0;
  for (uint32_t r = 0; r < rows.count;) {
    uint32_t n = 1;
    while (r + n < rows.count && rows.slot[r + n] == rows.slot[r]) ++n;
    if (n == 1) {
      in.decode_rows[n_decode_rows_++] = r;
    } else {
      for (uint32_t i = 0; i < n; ++i) in.prefill_rows[prefill_rows++] = r + i;
      for (uint32_t i = 0; i < n; i += kPrefillTile)
        in.tiles[tiles_++] = {r + i, std::min(kPrefillTile, n - i), rows.slot[r], rows.position[r] + i};
      deepest_prefill_ = std::max(deepest_prefill_, rows.position[r] + n - 1);
    }
    r += n;
  }
}

// Cuts the rows that attend one by one into launches.
void CudaExecutor::place_partials(const Rows& rows) {
  const StepInput in = carve(input_host_.data());
  const bool all = attends_row_by_row();
  orcd::place_partials(rows.position, all ? nullptr : in.decode_rows, all ? rows_ : n_decode_rows_,
                       partials_room(shape_, options_), in.place, attend_launches_);
}

// Puts few rows, none of a prompt, where a kernel gets them from the host: as its argument, or by fetching them. False
// for others.
bool CudaExecutor::store_rows(const Rows& rows) {
  if (tiles_ || rows_ > kernels::kSmallM) return false;
  kernels::RowBatch& batch = step_args_[0].rows;
  batch.count = rows_;
  std::memcpy(batch.token, rows.token, rows_ * 4);
  std::memcpy(batch.slot, rows.slot, rows_ * 4);
  std::memcpy(batch.position, rows.position, rows_ * 4);
  std::memcpy(batch.place, carve(input_host_.data()).place, rows_ * 4);
  return true;
}

// Few rows go as a kernel's argument, which spares a copy before the first kernel; more are copied with all else that
// a step needs.
void CudaExecutor::send_rows(const Rows& rows) {
  const StepInput host = carve(input_host_.data());
  if (store_rows(rows)) return kernels::begin_rows(step_args_[0].rows, row_places(), stream_);
  std::memcpy(host.token, rows.token, rows_ * 4);
  std::memcpy(host.slot, rows.slot, rows_ * 4);
  std::memcpy(host.position, rows.position, rows_ * 4);
  // One copy for a few rows would cost more in bytes than it saves in calls only for very large steps.
  ORCD_CUDA(cudaMemcpyAsync(input_.data(), input_host_.data(), input_.bytes(), cudaMemcpyHostToDevice, stream_));
}

// Which pages a sequence has, where the device does not know it yet.
void CudaExecutor::send_pages(uint32_t slot, std::span<const uint32_t> pages) {
  if (sent_pages_[slot] == pages.size()) return;
  const uint64_t at = uint64_t{slot} * pages_per_slot_;
  std::memcpy(page_rows_.data() + at, pages.data(), pages.size_bytes());
  ORCD_CUDA(cudaMemcpyAsync(page_table_.data() + at, page_rows_.data() + at, pages.size_bytes(), cudaMemcpyHostToDevice,
                            stream_));
  sent_pages_[slot] = static_cast<uint32_t>(pages.size());
}

void CudaExecutor::take_rows(const Rows& rows, const SequenceStore& sequences) {
  rows_ = rows.count;
  samples_ = 0;
  graph_ = nullptr;
  forget_replaced(rows);
  find_runs(rows);
  place_partials(rows);
  for (uint32_t r = 0; r < rows_; ++r) send_pages(rows.slot[r], sequences.pages(rows.slot[r]));
}

void CudaExecutor::begin(const Rows& rows, const SequenceStore& sequences) {
  take_rows(rows, sequences);
  send_rows(rows);
}

void CudaExecutor::begin(const Model& m, const Scratch& s, const Step& step) {
  // A step that was given up still reads the host's buffers, which this one fills.
  if (pending_) finish();
  pending_ = true;
  take_rows(step.rows, step.sequences);
  graph_ = recorded(m, s, step);
  if (graph_) {
    store_rows(step.rows);
    if (step.masked) graph_->launch(stream_);
  } else {
    send_rows(step.rows);
    if (!run_fused(m, s, step.logit_rows)) forward(m, s, *this, rows_, step.logit_rows, step.abandoned);
  }
  if (!step.masked && !step.samples.empty()) sample(s.logits, m.shape.vocab, step);
}

void CudaExecutor::finish(const Model& m, const Scratch& s, const Step& step, std::span<Sampled> sampled) {
  if (step.masked) sample(s.logits, m.shape.vocab, step);
  finish(sampled);
}

const uint32_t* CudaExecutor::upload_logit_rows(std::span<const uint32_t> logit_rows) {
  uint32_t* host = carve(input_host_.data()).logit_rows;
  uint32_t* device = carve(input_.data()).logit_rows;
  std::memcpy(host, logit_rows.data(), logit_rows.size_bytes());
  ORCD_CUDA(cudaMemcpyAsync(device, host, logit_rows.size_bytes(), cudaMemcpyHostToDevice, stream_));
  return device;
}

void CudaExecutor::embed(const Tensor& table, float scale, float* x) {
  kernels::embed(table, carve(input_.data()).token, rows_, scale, x, false, stream_);
}

void CudaExecutor::rmsnorm(const float* x, const uint32_t* gather, uint32_t rows, const float* weight, float eps,
                           const Activations& out) {
  kernels::rmsnorm(x, gather ? upload_logit_rows({gather, rows}) : nullptr, rows, weight, eps, out, stream_);
}

void CudaExecutor::quantize(const Activations& a, uint32_t rows) { kernels::quantize(a, rows, stream_); }

void CudaExecutor::matmul(std::span<const MatmulArgs> products, const Activations& a, uint32_t rows) {
  kernels::GemvInput input;
  input.a = a;
  if (rows > 1) return kernels::matmul(products.data(), static_cast<uint32_t>(products.size()), a, rows, stream_);
  for (const MatmulArgs& p : products) {
    const kernels::MatmulJob job = {p.w, p.bias, p.y, p.add};
    if (kernels::gemv_fits(&p.w.type, 1, a.cols, false)) kernels::gemv(&job, 1, input, 1, {}, false, stream_);
    else kernels::matmul(&p, 1, a, rows, stream_);
  }
}

kernels::KvLayer CudaExecutor::kv_layer(uint32_t layer) const {
  return {kv_ + uint64_t{layer} * pages_ * page_bytes(shape_), page_table_.data(), pages_per_slot_};
}

void CudaExecutor::rope_kv(uint32_t layer, const AttentionInputs& in) {
  const StepInput step = carve(input_.data());
  kernels::rope_kv(heads_, kv_layer(layer), rotation(in.kind), in, step.slot, step.position, rows_, true, stream_);
}

kernels::Rotation CudaExecutor::rotation(uint32_t kind) const {
  const float2* table = rope_.data() + (kind ? second_rope_ : 0);
  const uint32_t* first = kind == 0 && has_long(shape_) ? rope_first_.data() : nullptr;
  const float* scale = shape_.query_scale != 0 ? query_scale_.data() : nullptr;
  return {table, shape_.kinds[kind].rope.pairs, first, scale, shape_.rms_eps};
}

// As a layer with these parameters has them.
kernels::Heads CudaExecutor::heads(const AttentionParams& params) const {
  kernels::Heads h = heads_;
  h.scale = arith::score_scale(shape_.head_dim, shape_.attention_scale, params.soft_cap != 0);
  return h;
}

kernels::DecodeAttention CudaExecutor::decode_attention(uint32_t layer, const AttentionParams& params, const float* q,
                                                        const Activations& out) const {
  const StepInput step = carve(input_.data());
  kernels::DecodeAttention a = {};
  a.heads = heads(params);
  a.kv = kv_layer(layer);
  a.q = q;
  a.slot = step.slot;
  a.position = step.position;
  a.partial = partial_.data();
  a.place = step.place;
  a.arrived = arrived_.data();
  a.out = out;
  a.params = within(params, options_.context);
  a.runs = seen_runs(a.params, options_.context);
  return a;
}

// Attention of the step's single rows: those of `rows`, or the first ones where it is null.
void CudaExecutor::attend_rows(kernels::DecodeAttention a, const uint32_t* rows, bool pdl) {
  a.first = 0;
  for (const uint32_t count : attend_launches_) {
    a.row = rows ? rows + a.first : nullptr;
    kernels::attention_decode(a, count, pdl, stream_);
    a.first += count;
  }
}

// Whether this step's runs are sooner done row by row than as tiles.
bool CudaExecutor::are_tiles_slow() const {
  if (deepest_prefill_ < kDeep) return false;
  return rows_ * page_bytes(shape_) <= kBytesOfTile;
}

// Whether all of the step's rows attend one by one. Without tiles they are all single.
bool CudaExecutor::attends_row_by_row() const { return tiles_ == 0 || are_tiles_slow(); }

void CudaExecutor::attention(uint32_t layer, const AttentionParams& params, const float* q, float* out) {
  const Activations results = {shape_.n_heads * shape_.head_dim, out};
  const StepInput step = carve(input_.data());
  const bool all = attends_row_by_row();
  attend_rows(decode_attention(layer, params, q, results), all ? nullptr : step.decode_rows, false);
  if (!all)
    kernels::attention_prefill(heads(params), kv_layer(layer), q, step.tiles, tiles_, within(params, options_.context),
                               out, stream_);
}

void CudaExecutor::glu(Activation activation, const float* gate, const float* up, uint32_t rows,
                       const Activations& out) {
  kernels::glu(activation, gate, up, rows, out, stream_);
}

void CudaExecutor::mix(const Mixture& m, const Activations& normed, uint32_t rows, float* y) {
  kernels::route(m, rows, stream_);
  kernels::mix(m, normed, rows, {y, false, 1}, stream_);
}

void CudaExecutor::add(const float* y, const BranchEnd& end, uint32_t rows, uint32_t cols, float* x) {
  kernels::add(y, end, rows, cols, x, stream_);
}

void CudaExecutor::finish_logits(float scale, float cap, uint32_t rows, uint32_t vocab, float* l) {
  kernels::finish_logits(scale, cap, rows, vocab, l, stream_);
}

// Behind the counters of attention.
uint32_t* CudaExecutor::samples_arrived() const { return arrived_.data() + uint64_t{options_.slots} * shape_.n_heads; }

kernels::SampleSets CudaExecutor::sample_sets() const {
  return {seen_.data(),
          masks_.data(),
          counts_.data(),
          biases_.data(),
          carve(input_.data()).token,
          set_words_,
          kernels::count_words(shape_.vocab)};
}

// A sequence that goes on from before the end of its set or counts had tokens taken back: these are made anew.
void CudaExecutor::forget_replaced(const Rows& rows) {
  for (uint32_t r = 0; r < rows.count; ++r) {
    uint32_t &length = seen_length_[rows.slot[r]], &counted = counted_[rows.slot[r]].end;
    if (rows.position[r] < length) length = 0;
    if (rows.position[r] < counted) counted = 0;
  }
}

// Brings a sequence's set up to these tokens, its first ones.
void CudaExecutor::mark_seen(uint32_t slot, std::span<const uint32_t> tokens) {
  uint32_t& length = seen_length_[slot];
  if (length == 0) ORCD_CUDA(cudaMemsetAsync(seen_.data() + uint64_t{slot} * set_words_, 0, set_words_ * 4, stream_));
  for (; length < tokens.size(); ++length)
    if (put(marks_, slot, tokens[length])) send_marks();
}

// Brings a sequence's counts up to these tokens, its first ones, of which those from `start` on are the output.
void CudaExecutor::count_output(uint32_t slot, uint32_t start, std::span<const uint32_t> tokens) {
  Counted& of = counted_[slot];
  const uint64_t words = kernels::count_words(shape_.vocab);
  if (of.end == 0 || of.start != start) {
    ORCD_CUDA(cudaMemsetAsync(counts_.data() + slot * words, 0, words * 4, stream_));
    of = {start, start};
  }
  for (; of.end < tokens.size(); ++of.end)
    if (put(counting_, slot, tokens[of.end])) send_counts();
}

void CudaExecutor::send_marks() {
  if (marks_.count) kernels::mark(marks_, seen_.data(), set_words_, stream_);
  marks_.count = 0;
}

void CudaExecutor::send_counts() {
  if (counting_.count) kernels::count(counting_, counts_.data(), kernels::count_words(shape_.vocab), stream_);
  counting_.count = 0;
}

// Which tokens a sample's penalties cover. A sequence's first one in a step brings its set and counts up to date; the
// later ones lay the step's tokens since then over them, for these may be taken back.
void CudaExecutor::place_penalties(const Step& step, uint32_t sample, kernels::SampleArgs& args) {
  const PlacedSample& draw = step.samples[sample];
  const bool penalizes = arith::penalizes(draw.sampling), counts = arith::counts(draw.sampling);
  if (!penalizes && !counts) return;
  const std::span<const uint32_t> all = step.sequences.tokens(draw.slot);
  const std::span<const uint32_t> before = all.first(std::min<size_t>(draw.position, all.size()));
  args.last = static_cast<uint16_t>(step.logit_rows[sample]);
  if (penalizes) {
    if (marked_slot_ != draw.slot) mark_seen(draw.slot, before);
    marked_slot_ = draw.slot;
    args.unmarked = static_cast<uint16_t>(before.size() - seen_length_[draw.slot]);
  }
  if (counts) {
    if (counted_slot_ != draw.slot) count_output(draw.slot, draw.output_start, before);
    counted_slot_ = draw.slot;
    // Of a sequence that is still in its prompt nothing counts.
    const size_t end = std::min<size_t>(counted_[draw.slot].end, before.size());
    args.uncounted = static_cast<uint16_t>(before.size() - end);
  }
}

// Sends the samples' biases, but for those that the device has in their places already: of the step before.
void CudaExecutor::send_biases(std::span<const PlacedSample> samples) {
  for (size_t i = 0; i < samples.size(); ++i) {
    const std::span<const TokenBias> biases = samples[i].biases;
    const uint64_t at = i * kMostBiases;
    TokenBias* host = bias_rows_.data() + at;
    if (biases.empty()) continue;
    if (biases.size() == sent_biases_[i] && std::memcmp(host, biases.data(), biases.size_bytes()) == 0) continue;
    std::memcpy(host, biases.data(), biases.size_bytes());
    ORCD_CUDA(cudaMemcpyAsync(biases_.data() + at, host, biases.size_bytes(), cudaMemcpyHostToDevice, stream_));
    sent_biases_[i] = static_cast<uint32_t>(biases.size());
  }
}

void CudaExecutor::send_masks(std::span<const PlacedSample> samples) {
  size_t begin = samples.size(), end = 0;
  for (size_t i = 0; i < samples.size(); ++i) {
    if (!samples[i].mask) continue;
    begin = std::min(begin, i), end = i + 1;
    std::copy_n(samples[i].mask, set_words_, mask_rows_.data() + i * set_words_);
  }
  if (begin >= end) return;
  ORCD_CUDA(cudaMemcpyAsync(masks_.data() + begin * set_words_, mask_rows_.data() + begin * set_words_,
                            (end - begin) * set_words_ * 4, cudaMemcpyHostToDevice, stream_));
}

void CudaExecutor::sample(const float* logits, uint32_t vocab, const Step& step) {
  samples_ = uint32_t(step.samples.size());
  std::fill_n(sampled_.data(), samples_, kNoToken);
  marked_slot_ = counted_slot_ = kNoSlot;
  draws_.clear();
  for (uint32_t i = 0; i < samples_; ++i) {
    draws_.push_back(sample_args(step.samples[i], i, vocab));
    place_penalties(step, i, draws_.back());
  }
  send_marks();
  send_counts();
  send_biases(step.samples);
  send_masks(step.samples);
  // One that was recorded with its draws begins here.
  const bool whole = graph_ && !step.masked;
  if (whole) {
    std::copy(draws_.begin(), draws_.end(), step_args_[0].samples);
    graph_->launch(stream_);
  }
  for (uint32_t first = 0; first < samples_; first += kernels::kSampleBatch) {
    const uint32_t n = std::min(samples_ - first, kernels::kSampleBatch);
    kernels::SampleBatch batch;
    bool plain = false, filtered = false;
    for (uint32_t i = 0; i < n; ++i) {
      batch.draw[i] = draws_[first + i];
      (batch.draw[i].filtered ? filtered : plain) = true;
    }
    uint32_t* to = sampled_.data() + first;
    if (plain && !whole)
      kernels::sample(logits, vocab, batch, nullptr, n, sample_sets(), best_.data() + first, samples_arrived() + first,
                      to, false, stream_);
    if (filtered)
      kernels::sample_filtered(logits, vocab, batch, n, sample_sets(), scaled_.data(), filter_.data(), to, stream_);
    send_logprobs(logits, vocab, step.samples.subspan(first, n), first);
  }
}

void CudaExecutor::send_logprobs(const float* logits, uint32_t vocab, std::span<const PlacedSample> samples,
                                 uint32_t first) {
  kernels::LogprobBatch wanted;
  wanted.count = 0;
  for (uint32_t i = 0; i < samples.size(); ++i) {
    // What an earlier step left there is nobody's: of those that want none, and of those that have no token.
    logprobs_[first + i].of_sampled = 0.0f;
    logprobs_[first + i].count = 0;
    if (!samples[i].logprobs) continue;
    wanted.row[wanted.count] = first + i;
    wanted.top[wanted.count++] = samples[i].top_logprobs;
  }
  if (wanted.count == 0) return;
  kernels::logprobs(logits, vocab, wanted, sampled_.data(), logprobs_.data(), stream_);
  has_logprobs_ = true;
}

// Waits for the tokens alone, which is shorter than for the stream. A kernel that fails takes all later ones
// with it: a token that came says that all before it went well.
void CudaExecutor::await_tokens() {
  constexpr uint32_t kTurns = 1 << 14;                 // some tens of microseconds
  const volatile uint32_t* sampled = sampled_.data();  // the device writes there
  for (uint32_t i = 0, turn = 0; i < samples_;) {
    if (sampled[i] != kNoToken) {
      ++i;
    } else if (++turn % kTurns == 0) {
      const cudaError_t code = cudaStreamQuery(stream_);
      if (code == cudaErrorNotReady) continue;
      if (code != cudaSuccess) device::fail(code, "a step's kernels", __FILE__, __LINE__);
      if (sampled[i] == kNoToken) throw Error(ErrorKind::kDevice, "a step ended without its token");
    }
  }
}

void CudaExecutor::take_logprobs(std::span<Sampled> sampled) const {
  for (size_t i = 0; i < sampled.size(); ++i) {
    const kernels::Logprobs& from = logprobs_[i];
    sampled[i].logprob = from.of_sampled;
    for (uint32_t k = 0; k < from.count; ++k) sampled[i].top[k] = {from.token[k], from.logprob[k]};
  }
}

void CudaExecutor::finish(std::span<Sampled> sampled) {
  if (!samples_ || has_logprobs_) stream_.wait();
  if (samples_) await_tokens();
  for (size_t i = 0; i < sampled.size(); ++i) sampled[i].token = sampled_[i];
  if (has_logprobs_) take_logprobs(sampled);
  samples_ = 0;
  has_logprobs_ = pending_ = false;
}

void CudaExecutor::download(const void* from, size_t bytes, void* to) const {
  ORCD_CUDA(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream_));
  stream_.wait();
}

bool CudaExecutor::resident() const {
  const void* buffers[] = {image_,
                           rope_first_.data(),
                           query_scale_.data(),
                           rope_.data(),
                           kv_,
                           page_table_.data(),
                           seen_.data(),
                           masks_.data(),
                           counts_.data(),
                           biases_.data(),
                           partial_.data(),
                           arrived_.data(),
                           best_.data(),
                           scaled_.data(),
                           filter_.data(),
                           input_.data(),
                           step_samples_.data(),
                           checked_.data()};
  for (const void* p : buffers)
    if (!device::is_device_memory(p, ordinal_)) return false;
  for (const auto& s : scratch_)
    if (!device::is_device_memory(s.data(), ordinal_)) return false;
  return true;
}

}  // namespace orcd::gpu
