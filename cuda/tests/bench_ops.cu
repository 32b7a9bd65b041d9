// Time of every operation of the CUDA backend at the shapes of Qwen2.5-0.5B: microseconds, bytes per second
// and its share of a streaming read that is measured in the same run.
//
//   bench_ops [--quick]
//
// Each operation is launched many times in one graph, so that the host's part is not in the figure, and on
// other memory each time, so that together they exceed the L2 cache: what a step finds in memory comes from
// there. What the step before has just written (activations) is in the cache in a real step too.
#include <algorithm>
#include <cstdlib>
#include <functional>
#include <vector>

#include "arith/philox.h"
#include "formats/formats.h"
#include "gpu/executor.h"
#include "gpu/kv_memory.h"
#include "kernels/kv_page.cuh"
#include "tests/testing.h"

namespace orcd::testing {
namespace {

constexpr uint32_t kVocab = 151936, kWidth = 896, kFfn = 4864, kHeads = 14, kKvHeads = 2, kHeadDim = 64;
constexpr uint32_t kKvWidth = kKvHeads * kHeadDim;
struct Heads {
  uint32_t query, kv, dim;
};
constexpr Heads kSmallHeads = {kHeads, kKvHeads, kHeadDim};
constexpr uint32_t kLayers = 1024;                  // only so many KV caches: more than the L2 cache together
constexpr uint64_t kRotated = uint64_t{192} << 20;  // bytes that one graph goes over: several times the L2 cache
constexpr uint32_t kMostLaunches = 1024, kLeastLaunches = 16;

int replays = 15;

// Logits as of a model: a sum of three uniform numbers, from -11 to 11.
__global__ void fill_logits(float* logits, uint64_t n) {
  for (uint64_t i = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += uint64_t(gridDim.x) * blockDim.x) {
    const arith::PhiloxBlock x = arith::philox4x32(0, 0, uint32_t(i), uint32_t(i >> 32), 0, 0);
    logits[i] = (float(x.word[0]) + float(x.word[1]) + float(x.word[2])) * (3.6f * 0x1p-31f) - 10.8f;
  }
}

__global__ void read_all(const uint4* words, uint64_t n, uint32_t* out) {
  uint32_t sum = 0;
  const uint64_t step = uint64_t(gridDim.x) * blockDim.x;
#pragma unroll 8
  for (uint64_t i = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += step) {
    const uint4 v = __ldcs(words + i);
    sum += v.x ^ v.y ^ v.z ^ v.w;
  }
  if (sum == 0x12345678u) *out = sum;  // never, but the compiler can't know
}

class Timer {
 public:
  Timer() {
    ORCD_CUDA(cudaEventCreate(&begin_));
    ORCD_CUDA(cudaEventCreate(&end_));
  }
  ~Timer() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
  }
  // Median microseconds of what `work` puts into the stream.
  template <class Work>
  double median(const device::Stream& stream, const Work& work) {
    std::vector<float> times;
    for (int i = 0; i < replays + 2; ++i) {
      ORCD_CUDA(cudaEventRecord(begin_, stream));
      work();
      ORCD_CUDA(cudaEventRecord(end_, stream));
      ORCD_CUDA(cudaEventSynchronize(end_));
      float ms = 0;
      ORCD_CUDA(cudaEventElapsedTime(&ms, begin_, end_));
      if (i >= 2) times.push_back(ms);  // the first ones warm up
    }
    std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
    return times[times.size() / 2] * 1e3;
  }

 private:
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

double streaming_read() {  // bytes per second
  const uint64_t bytes = uint64_t{1} << 30;
  const device::Buffer<uint8_t> data = filled(bytes);
  const device::Buffer<uint32_t> out(1);
  const device::Stream stream;
  Timer timer;
  const double us = timer.median(stream, [&] {
    read_all<<<132 * 16, 512, 0, stream>>>(reinterpret_cast<const uint4*>(data.data()), bytes / 16, out.data());
    ORCD_CUDA(cudaGetLastError());
  });
  return double(bytes) / us * 1e6;
}

// The backend with a step of `rows` rows begun: each a sequence of its own at `depth`, or one prompt.
class Bench {
 public:
  Bench(uint32_t rows, uint32_t depth, bool prompt, double read, const Heads& h = kSmallHeads,
        uint32_t layers = kLayers)
      : rows_(rows), depth_(depth), read_(read) {
    model_.shape = shape_of(layers, kWidth, kFfn, h.query, h.kv, h.dim, kVocab);
    EngineOptions options = {};
    options.slots = prompt ? 1 : rows;
    options.context = std::max(depth + 1, rows);
    options.max_batch_tokens = rows;
    pool_ = gpu::VmmKvMemory::allocate(0, gpu::kv_bytes(model_.shape, options));
    ops_ = std::make_unique<gpu::CudaExecutor>(model_, options, 0, nullptr, pool_->data());
    for (uint32_t r = 0; r < rows; ++r) {
      token_.push_back(r * 7919 % kVocab);
      slot_.push_back(prompt ? 0 : r);
      position_.push_back(prompt ? r : depth);
    }
    sequences_ = std::make_unique<SequenceStore>(options);
    SequenceStore& sequences = *sequences_;
    for (uint32_t s = 0; s < options.slots; ++s) {
      sequences.open(s, options.context, {}, {});
      const uint32_t each = SequenceStore::total_pages(options) / options.slots;
      std::vector<uint32_t> pages(each);
      for (uint32_t i = 0; i < each; ++i) pages[i] = s * each + i;
      sequences.grow(s, pages);
      ops_->open(s, options.context);
      sequences.append(s, std::vector<uint32_t>(prompt ? rows : depth + 1));
    }
    ops_->begin({rows, token_.data(), slot_.data(), position_.data()}, sequences);
    ops_->finish();
    narrow_ = activations(kWidth);
    wide_ = activations(kFfn);
  }

  gpu::CudaExecutor& ops() { return *ops_; }
  void sample(const float* logits, uint32_t vocab, const std::vector<PlacedSample>& samples) {
    ops_->sample(logits, vocab, {{}, {}, samples, *sequences_});
  }
  uint32_t rows() const { return rows_; }
  const Activations& narrow() const { return narrow_; }
  const Activations& wide() const { return wide_; }
  float* floats(uint64_t n) {
    memory_.push_back(filled(n * 4));
    return reinterpret_cast<float*>(memory_.back().data());
  }

  // Prints a line. `launch(i)` is launch number i; together they go over `distinct` pieces of `bytes` each.
  void line(const char* name, uint64_t bytes, uint64_t distinct, double operations,
            const std::function<void(uint32_t)>& launch) {
    const uint32_t n = uint32_t(std::clamp<uint64_t>(distinct, kLeastLaunches, kMostLaunches));
    const device::Stream& stream = ops_->stream();
    for (uint32_t i = 0; i < std::min(n, 4u); ++i) launch(i);  // lazily loaded code is there before the capture
    ops_->finish();
    const device::Graph graph = device::Graph::capture(stream, [&] {
      for (uint32_t i = 0; i < n; ++i) launch(i);
    });
    Timer timer;
    const double us = timer.median(stream, [&] { graph.launch(stream); }) / n;
    const double rate = double(bytes) / us * 1e6;
    std::printf("| %-28s | %4u | %9.2f | %8.1f | %5.1f %% |", name, rows_, us, rate / 1e9, 100 * rate / read_);
    if (operations > 0) std::printf(" %7.1f |\n", operations / us / 1e6);
    else std::printf("         |\n");
    std::fflush(stdout);
  }

  // One matrix or several that read the same activations.
  void products(const char* name, std::vector<std::pair<TensorType, uint32_t>> matrices, const Activations& a,
                bool add) {
    uint64_t weights = 0, outputs = 0;
    for (const auto& [type, n] : matrices) weights += n * formats::row_bytes(type, a.cols), outputs += n;
    const uint64_t copies = std::clamp<uint64_t>(kRotated / weights, 2, kMostLaunches);
    const device::Buffer<uint8_t> memory = filled(copies * (weights + 256 * matrices.size()));
    std::vector<float*> y;
    for (const auto& m : matrices) y.push_back(floats(uint64_t{rows_} * m.second));
    const uint64_t in = rows_ * (a.cols + a.cols / 32 * 12), out = rows_ * outputs * (add ? 8 : 4);
    line(name, weights + in + out, copies, 2.0 * rows_ * outputs * a.cols, [&](uint32_t i) {
      const uint8_t* at = memory.data() + (i % copies) * (weights + 256 * matrices.size()) / 256 * 256;
      std::vector<MatmulArgs> list;
      for (size_t m = 0; m < matrices.size(); ++m) {
        const auto& [type, n] = matrices[m];
        list.push_back({{type, n, a.cols, at}, y[m], add});
        at += (n * formats::row_bytes(type, a.cols) + 255) / 256 * 256;
      }
      ops_->matmul(list, a, rows_);
    });
    memory_.resize(memory_.size() - matrices.size());
  }

 private:
  Activations activations(uint32_t cols) {
    const uint64_t n = uint64_t{rows_} * cols;
    Activations a;
    a.cols = cols;
    a.x = floats(n);
    const auto quantized = [&](uint32_t width) {
      Quantized q;
      q.q = reinterpret_cast<int8_t*>(floats(n / 4));
      q.d = floats(n / width);
      q.sum = reinterpret_cast<int32_t*>(floats(n / 32));
      q.shifts = reinterpret_cast<uint32_t*>(floats(n / kSuperBlock));
      return q;
    };
    a.blocks = quantized(kQuantBlock);
    if (cols % kSuperBlock == 0) a.supers = quantized(kSuperBlock);
    ops_->quantize(a, rows_);
    ops_->finish();
    return a;
  }

  uint32_t rows_, depth_;
  double read_;
  Model model_ = {};
  std::unique_ptr<gpu::VmmKvMemory> pool_;
  std::unique_ptr<gpu::CudaExecutor> ops_;
  std::unique_ptr<SequenceStore> sequences_;
  std::vector<uint32_t> token_, slot_, position_;
  std::vector<device::Buffer<uint8_t>> memory_;
  Activations narrow_, wide_;
};

void row_ops(Bench& b) {
  const uint64_t rows = b.rows();
  const uint64_t table_bytes = kVocab * formats::row_bytes(TensorType::kQ5_0, kWidth);
  const device::Buffer<uint8_t> table = filled(table_bytes);
  const float* weight = b.floats(kWidth);
  const float* gate = b.floats(rows * kFfn);
  const float* up = b.floats(rows * kFfn);
  b.line("embed", rows * (formats::row_bytes(TensorType::kQ5_0, kWidth) + kWidth * 4), 64, 0,
         [&](uint32_t) { b.ops().embed({TensorType::kQ5_0, kVocab, kWidth, table.data()}, 1.0f, b.narrow().x); });
  const uint64_t quantized = kWidth + kWidth / 32 * 12;
  b.line("rmsnorm, quantized", rows * (kWidth * 8 + quantized), 64, 0,
         [&](uint32_t) { b.ops().rmsnorm(b.narrow().x, nullptr, b.rows(), weight, 1e-6f, b.narrow()); });
  b.line("quantize 896", rows * (kWidth * 4 + quantized), 64, 0,
         [&](uint32_t) { b.ops().quantize(b.narrow(), b.rows()); });
  b.line("swiglu, quantized", rows * (kFfn * 12 + kFfn + kFfn / 32 * 12), 64, 0,
         [&](uint32_t) { b.ops().glu(Activation::kSwiGlu, gate, up, b.rows(), b.wide()); });
}

// `keys`: cached positions that one row reads, on average; `cached`: those that all rows read, each once.
void attention_ops(Bench& b, double keys, uint64_t cached, const Heads& h = kSmallHeads, uint32_t layers = kLayers) {
  const uint64_t rows = b.rows(), width = h.query * h.dim, kv_width = h.kv * h.dim;
  float* q = b.floats(rows * width);
  float* k = b.floats(rows * kv_width);
  float* v = b.floats(rows * kv_width);
  float* out = b.floats(rows * width);
  AttentionInputs in = {};
  in.q = q, in.k = k, in.v = v;
  in.q_bias = b.floats(width), in.k_bias = b.floats(kv_width), in.v_bias = b.floats(kv_width);
  const uint64_t token = h.kv * kernels::KvPage{h.dim}.bytes() / kAttnSplit;
  b.line("rope, append to KV", rows * (width * 8 + kv_width * 8 + token), layers, 0,
         [&](uint32_t i) { b.ops().rope_kv(i % layers, in); });
  b.line("attention", cached * token + rows * width * 8, layers, rows * keys * double(width) * 4.0,
         [&](uint32_t i) { b.ops().attention(i % layers, {}, q, out); });
  constexpr double kWindow = 1024;
  if (keys <= kWindow) return;
  b.line("attention, window 1024", uint64_t(cached * kWindow / keys) * token + rows * width * 8, layers,
         rows * kWindow * double(width) * 4.0,
         [&](uint32_t i) { b.ops().attention(i % layers, {uint32_t(kWindow)}, q, out); });
}

void weight_ops(Bench& b) {
  using enum TensorType;
  b.products("q, k, v (Q5_0, Q5_0, Q8_0)", {{kQ5_0, kWidth}, {kQ5_0, kKvWidth}, {kQ8_0, kKvWidth}}, b.narrow(), false);
  b.products("attention output (Q5_0)", {{kQ5_0, kWidth}}, b.narrow(), true);
  b.products("gate, up (Q5_0)", {{kQ5_0, kFfn}, {kQ5_0, kFfn}}, b.narrow(), false);
  b.products("down (Q4_K)", {{kQ4_K, kWidth}}, b.wide(), true);
  b.products("down (Q6_K)", {{kQ6_K, kWidth}}, b.wide(), true);
}

void draw_ops(Bench& b) {
  b.products("output (Q8_0)", {{TensorType::kQ8_0, kVocab}}, b.narrow(), false);
  const uint64_t values = uint64_t{b.rows()} * kVocab;
  const uint64_t copies = std::clamp<uint64_t>(kRotated / (values * 4), 2, kMostLaunches);
  float* logits = b.floats(copies * values);
  fill_logits<<<1024, 256>>>(logits, copies * values);
  ORCD_CUDA(cudaDeviceSynchronize());
  const std::pair<const char*, Sampling> filters[] = {
      {"sample", {0.8f, 1.0f, 0, 0, 1}},
      {"sample, top-k, top-p, min-p", {0.8f, 0.95f, 40, 0.05f, 1}},
      {"sample, top-p", {0.8f, 0.95f, 0, 0, 1}},
      {"sample, top-k 20000, top-p", {0.8f, 0.95f, 20000, 0, 1}},
      {"sample, min-p", {0.8f, 1.0f, 0, 0.05f, 1}},
  };
  for (const auto& [name, sampling] : filters) {
    std::vector<PlacedSample> samples;
    for (uint32_t r = 0; r < b.rows(); ++r) {
      samples.push_back({r, 128, nullptr, false, 0, sampling});
      samples[r].sampling.seed = r;
    }
    b.line(name, values * 4, copies, 0, [&](uint32_t i) { b.sample(logits + (i % copies) * values, kVocab, samples); });
  }
}

}  // namespace

int run() {
  cudaDeviceProp device = {};
  ORCD_CUDA(cudaGetDeviceProperties(&device, 0));
  const double read = streaming_read();
  std::printf("%s, L2 %d MiB, streaming read %.0f GB/s\n\n", device.name, device.l2CacheSize >> 20, read / 1e9);
  std::printf("| operation                    | rows |        us |     GB/s | of read |  Tops/s |\n");
  std::printf("|------------------------------|------|-----------|----------|---------|---------|\n");
  for (const uint32_t rows : {1u, 8u}) {
    Bench b(rows, 128, false, read);
    row_ops(b);
    attention_ops(b, 129, 129 * rows);
    weight_ops(b);
    draw_ops(b);
  }
  {
    Bench prompt(512, 0, true, read);
    row_ops(prompt);
    attention_ops(prompt, 256.5, 512);
    weight_ops(prompt);
  }
  for (const Heads& h : {kSmallHeads, Heads{32, 8, 128}, Heads{32, 32, 80}, Heads{8, 4, 256}}) {
    std::printf("\n%u query heads on %u of %u values\n", h.query, h.kv, h.dim);
    for (const uint32_t depth : {128u, 4096u})
      for (const uint32_t rows : {1u, 8u, 32u}) {
        std::printf("depth %u\n", depth);
        const uint32_t layers = depth > 1000 ? 8 : 128;
        Bench b(rows, depth, false, read, h, layers);
        attention_ops(b, depth + 1, uint64_t{depth + 1} * rows, h, layers);
      }
    for (const uint32_t rows : {512u, 2048u, 8192u}) {
      Bench prompt(rows, 0, true, read, h, 16);
      attention_ops(prompt, rows / 2 + 0.5, rows, h, 16);
    }
  }
  return 0;
}

}  // namespace orcd::testing

int main(int argc, char** argv) {
  using namespace orcd::testing;
  if (const int without = need_gpu("bench_ops")) return without < 0 ? 0 : without;
  if (argc > 1 && std::string(argv[1]) == "--quick") replays = 3;
  try {
    return run();
  } catch (const orcd::Error& e) {
    std::printf("FAILED bench_ops: %s\n", e.what());
    return 1;
  }
}
