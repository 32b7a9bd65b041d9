// Every operation of the CUDA backend against the CPU backend, on random shapes and values: equal bits.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <numeric>

#include "arith/sampling.h"
#include "cpu/executor.h"
#include "cpu/weights.h"
#include "engine/model.h"
#include "engine/rope.h"
#include "formats/formats.h"
#include "gpu/executor.h"
#include "gpu/kv_memory.h"
#include "gpu/rope_table.h"
#include "gpu/weights.h"
#include "kernels/attention_few.h"
#include "kernels/kv_page.cuh"
#include "kernels/pdl.h"
#include "kernels/several_rows.cuh"
#include "ops/tiles.h"
#include "tests/layouts.h"
#include "tests/testing.h"

namespace orcd::testing {
namespace {

// As in the file format.
std::string name(TensorType t) { return "type " + std::to_string(uint32_t(t)); }

// Rows of a type as in a file: random bits with sound scales.
std::vector<uint8_t> random_rows(Random& rng, TensorType type, uint32_t rows, uint32_t cols) {
  std::vector<uint8_t> raw(rows * formats::row_bytes(type, cols));
  for (uint8_t& b : raw) b = uint8_t(rng.next());
  const auto put = [&](size_t at, float v) {
    const uint16_t h = arith::f32_to_f16(v);
    std::memcpy(&raw[at], &h, 2);
  };
  if (!formats::is_quantized(type)) {
    for (size_t i = 0; i < size_t(rows) * cols; ++i) {
      const float v = rng.normalish();
      if (type == TensorType::kF32) std::memcpy(&raw[4 * i], &v, 4);
      else if (type == TensorType::kF16) put(2 * i, v);
      else raw[2 * i + 1] = uint8_t((arith::bits_of(v) >> 24)), raw[2 * i] = uint8_t(arith::bits_of(v) >> 16);
    }
    return raw;
  }
  const uint32_t size = formats::block_bytes(type);
  for (size_t at = 0; at < raw.size(); at += size) {
    formats::with_format(type, [&]<TensorType T>() {
      using Format = formats::Format<T>;
      if constexpr (formats::kHasPower<Format>) {
        raw[at] = uint8_t(112 + rng.below(16));
      } else {
        const size_t scales = at + (Format::kPlanes.tail ? Format::kParts.tail : 0);
        put(scales, 0.01f * rng.uniform());
        if (formats::is_affine(Format::kScales)) put(scales + 2, 0.01f * rng.uniform());
      }
    });
  }
  return raw;
}

// One matrix in both images.
struct Both {
  std::unique_ptr<cpu::MemfdWeights> cpu;
  std::unique_ptr<gpu::VmmWeights> gpu;
  TensorDesc desc;

  Both(Random& rng, TensorType type, uint32_t rows, uint32_t cols, TensorRole role = TensorRole::kOutput) {
    const std::vector<uint8_t> raw = random_rows(rng, type, rows, cols);
    desc = {role, 0, type, rows, cols, 0, raw.size()};
    cpu = cpu::MemfdWeights::allocate(raw.size());
    gpu = gpu::VmmWeights::allocate(0, raw.size());
    // In two uneven pieces, as a loader may.
    const uint64_t row = formats::row_bytes(type, cols), cut = rows > 3 ? 3 : rows;
    for (Weights* w : {static_cast<Weights*>(cpu.get()), static_cast<Weights*>(gpu.get())}) {
      w->write(desc, 0, std::span(raw).first(cut * row));
      w->write(desc, cut, std::span(raw).subspan(cut * row));
      w->seal();
    }
    std::vector<uint8_t> back(raw.size(), 0xfb);
    gpu->read(desc, 0, back);
    equal("unpacked " + name(type), raw.data(), back.data(), raw.size());
  }
  Tensor on_cpu() const { return {desc.type, uint32_t(desc.rows), uint32_t(desc.cols), cpu->image()}; }
  Tensor on_gpu() const { return {desc.type, uint32_t(desc.rows), uint32_t(desc.cols), gpu->image()}; }
};

struct Backends {
  Model model;
  EngineOptions options;
  std::unique_ptr<cpu::MemfdKvMemory> cpu_pool;
  std::unique_ptr<gpu::VmmKvMemory> gpu_pool;
  std::unique_ptr<cpu::CpuExecutor> cpu;
  std::unique_ptr<gpu::CudaExecutor> gpu;
  std::unique_ptr<SequenceStore> sequences;

  explicit Backends(ModelShape shape = shape_of(1, 64, 64, 2, 1, 32, 1000), uint32_t slots = 4, uint32_t context = 1024,
                    uint32_t max_batch_tokens = 512) {
    model = {};
    model.shape = shape;
    options = {};
    options.slots = slots;
    options.context = context;
    options.max_batch_tokens = max_batch_tokens;
    options.poison = true;
    const uint32_t pages = SequenceStore::total_pages(options);
    cpu_pool = cpu::MemfdKvMemory::allocate(cpu::KvCache::bytes(shape, pages));
    gpu_pool = gpu::VmmKvMemory::allocate(0, gpu::kv_bytes(shape, options));
    cpu = std::make_unique<cpu::CpuExecutor>(model, options, *cpu_pool, cpu::best_isa());
    gpu = std::make_unique<gpu::CudaExecutor>(model, options, 0, nullptr, gpu_pool->data());
    sequences = std::make_unique<SequenceStore>(options);
  }

  // Pages of a slot lie apart, and hold NaN where nothing was written.
  std::vector<uint32_t> pages_of(uint32_t slot) const {
    const uint32_t pages = SequenceStore::total_pages(options);
    std::vector<uint32_t> own;
    for (uint32_t page = slot; page < pages; page += options.slots) own.push_back(page);
    return own;
  }
  void open(uint32_t slot) {
    const std::vector<uint32_t> pages = pages_of(slot);
    cpu->release(pages), gpu->release(pages);
    sequences->open(slot, options.context, {}, {});
    sequences->grow(slot, pages);
    cpu->open(slot, options.context), gpu->open(slot, options.context);
  }
  void close(uint32_t slot) {
    sequences->close(slot);
    cpu->close(slot), gpu->close(slot);
  }
  // The sequences go on by these rows.
  void begin(const Rows& rows) {
    for (uint32_t r = 0; r < rows.count; ++r) sequences->append(rows.slot[r], {rows.token + r, 1});
    cpu->begin(rows, *sequences), gpu->begin(rows, *sequences);
  }
};

// Binary16 sums of both halves of a block, as the processor keeps them.
int32_t ints_of_halves(int32_t word) {
  const auto half = [&](uint32_t bits) { return int32_t(arith::f16_to_f32(uint16_t(bits))); };
  return (half(uint32_t(word)) & 0xffff) | half(uint32_t(word) >> 16) << 16;
}

// One form of quantized activations in both memories; the device's is poisoned first.
struct QuantizedBoth {
  uint32_t width;  // of a block
  std::vector<int8_t> q;
  std::vector<float> d;
  std::vector<int32_t> sum;
  std::vector<uint32_t> shifts;
  device::Buffer<int8_t> gq;
  device::Buffer<float> gd;
  device::Buffer<int32_t> gsum;
  device::Buffer<uint32_t> gshifts;
  device::Buffer<uint8_t> gtiles;

  QuantizedBoth(size_t values, uint32_t width, size_t tiles_bytes = 0)
      : width(width),
        q(values),
        d(values / width),
        sum(values / 32),
        shifts(width == kSuperBlock ? values / width : 0),
        gq(poisoned<int8_t>(values)),
        gd(poisoned<float>(values / width)),
        gsum(poisoned<int32_t>(values / 32)),
        gshifts(poisoned<uint32_t>(shifts.size())),
        gtiles(poisoned<uint8_t>(tiles_bytes)) {}
  Quantized on_cpu() { return {q.data(), d.data(), sum.data(), shifts.data()}; }
  Quantized on_gpu() {
    return {gq.data(), gd.data(), gsum.data(), gshifts.data(), gtiles.size() ? gtiles.data() : nullptr};
  }
  // With numbers as the device has them, in this order.
  void compare(const std::string& what, const std::vector<int8_t>& found_q, const std::vector<float>& found_d,
               std::vector<int32_t> found_sum, const std::vector<uint32_t>& found_shifts) const {
    if (width == kSuperBlock)
      for (int32_t& word : found_sum) word = ints_of_halves(word);
    const std::string at = what + " by " + std::to_string(width);
    equal(at + " q", q.data(), found_q.data(), q.size());
    equal(at + " d", d.data(), found_d.data(), d.size());
    equal(at + " sum", sum.data(), found_sum.data(), sum.size());
    equal(at + " shifts", shifts.data(), found_shifts.data(), shifts.size());
  }
  void compare(const std::string& what) const {
    compare(what, to_host(gq.data(), q.size()), to_host(gd.data(), d.size()), to_host(gsum.data(), sum.size()),
            to_host(gshifts.data(), shifts.size()));
  }
};

// Activations in both memories, quantized by each backend itself.
struct Inputs {
  uint32_t rows, cols;
  std::vector<float> x;
  device::Buffer<float> gx;
  QuantizedBoth blocks, supers;

  Inputs(Random& rng, uint32_t rows, uint32_t cols)
      : rows(rows),
        cols(cols),
        x(rows * cols),
        blocks(x.size(), kQuantBlock),
        supers(x.size(), kSuperBlock, kernels::processor().warpgroups ? tiles_bytes(rows, cols) : 0) {
    for (float& v : x) v = rng.normalish() * (rng.below(40) == 0 ? 30.0f : 1.0f);
    if (rng.below(3) == 0) std::fill_n(x.begin(), std::min<size_t>(rng.below(2) ? 32 : 256, x.size()), 0.0f);
    gx = to_device(x);
  }
  bool has_blocks() const { return cols % kQuantBlock == 0; }
  bool has_supers() const { return cols % kSuperBlock == 0; }
  Activations on_cpu() {
    return {cols, x.data(), has_blocks() ? blocks.on_cpu() : Quantized{}, has_supers() ? supers.on_cpu() : Quantized{}};
  }
  Activations on_gpu() {
    return {cols, gx.data(), has_blocks() ? blocks.on_gpu() : Quantized{},
            has_supers() ? supers.on_gpu() : Quantized{}};
  }
  void compare(const std::string& what) {
    equal(what + " x", x.data(), to_host(gx.data(), x.size()).data(), x.size());
    if (has_blocks()) blocks.compare(what);
    if (has_supers()) supers.compare(what);
  }
};

void rows_ops(Random& rng) {
  Backends b;
  for (const uint32_t cols : {32u, 64u, 100u, 256u, 896u, 4864u})
    for (const uint32_t rows : {1u, 3u, 17u}) {
      const std::string at = " " + std::to_string(rows) + "x" + std::to_string(cols);
      Inputs in(rng, rows, cols), out(rng, rows, cols), up(rng, rows, cols);
      std::vector<float> weight(cols);
      for (float& w : weight) w = rng.normalish();
      const auto gw = to_device(weight);
      std::vector<uint32_t> gather(rows);
      for (uint32_t& p : gather) p = rng.below(rows);
      b.cpu->rmsnorm(in.x.data(), gather.data(), rows, weight.data(), 1e-6f, out.on_cpu());
      b.gpu->rmsnorm(in.gx.data(), gather.data(), rows, gw.data(), 1e-6f, out.on_gpu());
      b.gpu->finish();
      out.compare("rmsnorm" + at);
      for (const Activation a : {Activation::kSwiGlu, Activation::kGeGlu, Activation::kClampedSwiGlu}) {
        b.cpu->glu(a, in.x.data(), up.x.data(), rows, out.on_cpu());
        b.gpu->glu(a, in.gx.data(), up.gx.data(), rows, out.on_gpu());
        b.gpu->finish();
        out.compare("glu " + std::to_string(uint32_t(a)) + at);
        // Float weights' activations take the memory of what they are made of.
        const auto both = to_device(in.x);
        Activations in_place;
        in_place.cols = cols, in_place.x = both.data();
        b.gpu->glu(a, both.data(), up.gx.data(), rows, in_place);
        b.gpu->finish();
        equal("glu in place" + at, out.x.data(), to_host(both.data(), in.x.size()).data(), in.x.size());
      }
      for (const bool normed : {false, true}) {
        b.cpu->add(in.x.data(), {normed ? weight.data() : nullptr, 1e-6f, 0.37f}, rows, cols, up.x.data());
        b.gpu->add(in.gx.data(), {normed ? gw.data() : nullptr, 1e-6f, 0.37f}, rows, cols, up.gx.data());
        b.gpu->finish();
        equal("add" + at, up.x.data(), to_host(up.gx.data(), up.x.size()).data(), up.x.size());
      }
      for (const float cap : {0.0f, 3.0f}) {
        b.cpu->finish_logits(0.7f, cap, rows, cols, up.x.data());
        b.gpu->finish_logits(0.7f, cap, rows, cols, up.gx.data());
        b.gpu->finish();
        equal("finish_logits" + at, up.x.data(), to_host(up.gx.data(), up.x.size()).data(), up.x.size());
      }
      if (!in.has_blocks()) continue;
      b.cpu->quantize(in.on_cpu(), rows);
      b.gpu->quantize(in.on_gpu(), rows);
      b.gpu->finish();
      in.compare("quantize" + at);
    }
}

void products(Random& rng, TensorType type, bool quick) {
  Backends b;
  const bool k_quant = formats::block_values(type) == 256, is_float = !formats::is_quantized(type);
  std::vector<uint32_t> widths =
      k_quant ? std::vector<uint32_t>{256, 512, 768, 4864} : std::vector<uint32_t>{32, 160, 896, 1024};
  if (is_float) widths = {8, 100, 896};
  std::vector<uint32_t> heights = {1, 7, 8, 33, 64, 200}, counts = {1, 2, 8, 9, 16, 17, 33, 64, 65, 77, 128, 150};
  if (quick) heights = {33}, counts = {1, 3, 20, 70};
  for (const uint32_t k : widths)
    for (const uint32_t n : heights) {
      Both w(rng, type, n, k);
      for (const uint32_t rows : counts) {
        Inputs in(rng, rows, k);
        if (in.has_blocks()) {
          b.cpu->quantize(in.on_cpu(), rows);
          b.gpu->quantize(in.on_gpu(), rows);
        }
        std::vector<float> y(size_t(rows) * n);
        for (float& v : y) v = rng.normalish();
        const bool add = rng.below(2), biased = rng.below(2);
        std::vector<float> bias(n);
        for (float& v : bias) v = rng.normalish();
        const auto gbias = to_device(bias);
        auto gy = add ? to_device(y) : poisoned<float>(y.size());
        const MatmulArgs on_cpu[] = {{w.on_cpu(), y.data(), add, biased ? bias.data() : nullptr}};
        const MatmulArgs on_gpu[] = {{w.on_gpu(), gy.data(), add, biased ? gbias.data() : nullptr}};
        b.cpu->matmul(on_cpu, in.on_cpu(), rows);
        b.gpu->matmul(on_gpu, in.on_gpu(), rows);
        b.gpu->finish();
        equal("matmul " + name(type) + " n=" + std::to_string(n) + " k=" + std::to_string(k) +
                  " rows=" + std::to_string(rows),
              y.data(), to_host(gy.data(), y.size()).data(), y.size());
      }
    }
}

// Products that share a launch, of several heights and types, on so many rows that thread blocks take 128 of them.
void many_rows_products(Random& rng, TensorType type) {
  if (!formats::is_quantized(type)) return;
  Backends b;
  const bool k_quant = formats::block_values(type) == 256;
  const TensorType other = type == TensorType::kQ6_K ? TensorType::kQ5_0 : TensorType::kQ6_K;
  const uint32_t heights[] = {2000, 1001, 72, 64}, k = 768;
  const Both weights[] = {{rng, type, heights[0], k},
                          {rng, type, heights[1], k},
                          {rng, k_quant ? other : type, heights[2], k},
                          {rng, type, heights[3], k}};
  for (const uint32_t rows : {257u, 512u, 700u}) {
    Inputs in(rng, rows, k);
    b.cpu->quantize(in.on_cpu(), rows);
    b.gpu->quantize(in.on_gpu(), rows);
    std::vector<float> y[4];
    device::Buffer<float> gy[4];
    std::vector<MatmulArgs> on_cpu, on_gpu;
    for (int i = 0; i < 4; ++i) {
      y[i].resize(size_t(rows) * heights[i]);
      for (float& v : y[i]) v = rng.normalish();
      gy[i] = i == 1 ? to_device(y[i]) : poisoned<float>(y[i].size());
      on_cpu.push_back({weights[i].on_cpu(), y[i].data(), i == 1});
      on_gpu.push_back({weights[i].on_gpu(), gy[i].data(), i == 1});
    }
    b.cpu->matmul(on_cpu, in.on_cpu(), rows);
    b.gpu->matmul(on_gpu, in.on_gpu(), rows);
    b.gpu->finish();
    for (int i = 0; i < 4; ++i)
      equal("many rows, product " + std::to_string(i) + " " + name(type) + " rows=" + std::to_string(rows), y[i].data(),
            to_host(gy[i].data(), y[i].size()).data(), y[i].size());
  }
}

// What kernels read that normalize by themselves: rows that `gather` names, and what belongs to that.
struct NormedInputs {
  Inputs in;
  std::vector<float> weight, bias;
  std::vector<uint32_t> gather;
  device::Buffer<float> gweight, gbias;
  device::Buffer<uint32_t> ggather;

  // `most`: values of the bias.
  NormedInputs(Random& rng, uint32_t rows, uint32_t k, uint32_t most)
      : in(rng, 70, k), weight(k), bias(most), gather(rows) {
    for (uint32_t& row : gather) row = rng.below(in.rows);
    for (float& w : weight) w = rng.normalish();
    for (float& v : bias) v = rng.normalish();
    gweight = to_device(weight), gbias = to_device(bias), ggather = to_device(gather);
  }
  kernels::GemvInput on_gpu() const {
    kernels::GemvInput input;
    input.kind = kernels::Input::kNorm;
    input.x = in.gx.data(), input.gather = ggather.data(), input.weight = gweight.data(), input.eps = 1e-6f;
    return input;
  }
  void normalize(Backends& b, Inputs& out) const {
    b.cpu->rmsnorm(in.x.data(), gather.data(), out.rows, weight.data(), 1e-6f, out.on_cpu());
  }
};

// Three products, two with a bias, one of these added to what is there: as the processor has them, and the jobs of a
// kernel.
struct ThreeProducts {
  std::vector<float> y[3];
  device::Buffer<float> gy[3];
  std::vector<kernels::MatmulJob> jobs;

  ThreeProducts(Random& rng, Backends& b, const Both* weights, const NormedInputs& in, Inputs& read) {
    for (int i = 0; i < 3; ++i) {
      const bool has_bias = i < 2, adds = i == 1;
      y[i].resize(size_t(read.rows) * weights[i].on_gpu().rows);
      for (float& v : y[i]) v = rng.normalish();
      gy[i] = adds ? to_device(y[i]) : poisoned<float>(y[i].size());
      const MatmulArgs product[] = {{weights[i].on_cpu(), y[i].data(), adds, has_bias ? in.bias.data() : nullptr}};
      b.cpu->matmul(product, read.on_cpu(), read.rows);
      jobs.push_back({weights[i].on_gpu(), has_bias ? in.gbias.data() : nullptr, gy[i].data(), adds});
    }
  }
  void compare(const std::string& at) const {
    for (int i = 0; i < 3; ++i)
      equal("product " + std::to_string(i) + at, y[i].data(), to_host(gy[i].data(), y[i].size()).data(), y[i].size());
  }
};

Activation some_activation(Random& rng) {
  constexpr Activation kAll[] = {Activation::kSwiGlu, Activation::kGeGlu, Activation::kClampedSwiGlu};
  return kAll[rng.below(3)];
}

// What two products become together as the processor has it.
void feed_forward(Backends& b, Activation activation, const Both& gate, const Both& up, Inputs& read, Inputs& out) {
  std::vector<float> g(out.rows * out.cols), u(g.size());
  const MatmulArgs products[] = {{gate.on_cpu(), g.data(), false}, {up.on_cpu(), u.data(), false}};
  b.cpu->matmul(products, read.on_cpu(), out.rows);
  b.cpu->glu(activation, g.data(), u.data(), out.rows, out.on_cpu());
}

// Products of few rows, and gated ones, normalized.
void fused_products(Random& rng, TensorType type) {
  if (!formats::is_quantized(type)) return;
  Backends b;
  const bool k_quant = formats::block_values(type) == 256;
  const TensorType other = k_quant ? TensorType::kQ6_K : TensorType::kQ8_0;
  const uint32_t hidden = 96;
  for (const uint32_t k : {k_quant ? 256u : 160u, k_quant ? 768u : 896u}) {
    const uint32_t rows = 1 + rng.below(4);
    const Both weights[] = {{rng, type, 40, k}, {rng, type, 13, k}, {rng, other, 8, k}};
    const Both gate(rng, type, hidden, k), up(rng, rng.below(2) ? type : other, hidden, k);
    const std::string at = " " + name(type) + " k=" + std::to_string(k) + " rows=" + std::to_string(rows);
    const NormedInputs in(rng, rows, k, 40);
    Inputs normed(rng, rows, k), out(rng, rows, hidden);
    in.normalize(b, normed);
    const ThreeProducts products(rng, b, weights, in, normed);
    const TensorType types[] = {type, type, other};
    // Groups of rows of an odd number of MXFP4's blocks don't begin where copies can.
    const uint32_t expected = type != TensorType::kMXFP4 || k % 64 == 0, fits = kernels::gemv_fits(types, 3, k, false);
    equal("fits," + at, &expected, &fits, 1);
    if (!fits) continue;
    kernels::gemv(products.jobs.data(), 3, in.on_gpu(), rows, {}, false, nullptr);
    products.compare(at);

    const Activation activation = some_activation(rng);
    feed_forward(b, activation, gate, up, normed, out);
    const kernels::MatmulJob both[] = {{gate.on_gpu(), nullptr, out.gx.data()}, {up.on_gpu(), nullptr, nullptr}};
    kernels::gemv(both, 2, in.on_gpu(), rows, activation, false, nullptr);
    kernels::quantize(out.on_gpu(), rows, nullptr);
    out.compare("gated product " + std::to_string(uint32_t(activation)) + at);
  }
}

// The same as one launch of a small batch: of what each kind of input gives, with results in all their forms.
void small_batches(Random& rng, TensorType type, bool quick) {
  if (!formats::is_quantized(type)) return;
  using kernels::Input;
  Backends b;
  const bool k_quant = formats::block_values(type) == 256;
  const TensorType other = k_quant ? TensorType::kQ6_K : TensorType::kQ8_0;
  std::vector<uint32_t> widths =
      k_quant ? std::vector<uint32_t>{256, 768, 1536, 4864} : std::vector<uint32_t>{32, 160, 896, 2048, 4864};
  if (quick) widths.resize(2);
  for (const uint32_t k : widths)
    for (const Input kind : {Input::kGiven, Input::kQuantize, Input::kNorm}) {
      const uint32_t rows = 1 + rng.below(kernels::kSmallRows), tallest = 40 + rng.below(900);
      const bool pairs = (type == TensorType::kQ5_0 || k_quant) && rng.below(2);
      const TensorType second = pairs ? other : type;
      const Both weights[] = {{rng, type, tallest, k}, {rng, type, 13, k}, {rng, second, 1 + rng.below(130), k}};
      const std::string at = " small batch " + name(type) + " k=" + std::to_string(k) +
                             " rows=" + std::to_string(rows) + " input=" + std::to_string(uint32_t(kind));
      const NormedInputs in(rng, rows, k, tallest);
      Inputs read(rng, rows, k);
      kernels::GemvInput input = in.on_gpu();
      input.kind = kind;
      input.a = read.on_gpu();
      if (kind == Input::kNorm) {
        in.normalize(b, read);
      } else {
        b.cpu->quantize(read.on_cpu(), rows);
        if (kind == Input::kGiven) b.gpu->quantize(read.on_gpu(), rows), b.gpu->finish();
      }
      const ThreeProducts products(rng, b, weights, in, read);
      const kernels::SmallBatch batch = {products.jobs, input, rows};
      const uint32_t fits[] = {kernels::small_batch_fits(batch),
                               kernels::small_batch_fits({products.jobs, input, kernels::kSmallRows + 1})};
      bool small = false;  // others have no kernel of this kind
      formats::with_format(type, [&]<TensorType T>() { small = kernels::kHasShapes<T>; });
      const uint32_t expected[] = {small && kernels::has_pdl(), 0};
      // Of longer rows weights and results may be too many for a thread block's memory.
      if (k <= 2048) equal("fits," + at, expected, fits, 2);
      if (!fits[0]) continue;
      kernels::small_batch(batch, nullptr);
      products.compare(at);

      // Of a gated unit's result one form is made, the one that is asked for.
      for (const uint32_t hidden : {96u, 512u, 4864u}) {
        const bool super = hidden % kSuperBlock == 0 && rng.below(4);
        const Both gate(rng, type, hidden, k), up(rng, second, hidden, k);
        Inputs out(rng, rows, hidden);
        const Activation activation = some_activation(rng);
        feed_forward(b, activation, gate, up, read, out);
        device::Buffer<uint32_t> arrived(std::max(1u, hidden / kSuperBlock));
        arrived.zero();
        Activations to = out.on_gpu();
        (super ? to.blocks : to.supers) = {};
        const kernels::MatmulJob both[] = {{gate.on_gpu()}, {up.on_gpu()}};
        const kernels::SmallBatch feed = {both, input, rows, to, arrived.data(), activation};
        const uint32_t feeds = kernels::small_batch_fits(feed);
        if (k <= 2048) equal("fits, gated unit of" + at, expected, &feeds, 1);
        if (!feeds) continue;
        for (int turn = 0; turn < 2; ++turn) kernels::small_batch(feed, nullptr);  // counters are left zero
        (super ? out.supers : out.blocks)
            .compare("gated unit " + std::to_string(uint32_t(activation)) + " of" + at +
                     " hidden=" + std::to_string(hidden));
      }
    }
}

// Products of one launch of gemv read one form of quantized activations: types that want another one are refused.
void refused_mixtures() {
  using enum TensorType;
  for (const TensorType k_quant : {kQ2_K, kQ3_K, kQ4_K, kQ5_K, kQ6_K, kIQ4_XS})
    for (const TensorType other : {kQ4_0, kQ4_1, kQ5_0, kQ5_1, kQ8_0, kIQ4_NL, kMXFP4}) {
      const TensorType types[] = {k_quant, other}, alike[] = {k_quant, kQ4_K};
      for (const bool gated : {false, true}) {
        const uint32_t expected[] = {0, 1};
        const uint32_t got[] = {kernels::gemv_fits(types, 2, 768, gated), kernels::gemv_fits(alike, 2, 768, gated)};
        equal("mixture of " + name(k_quant) + " and " + name(other), expected, got, 2);
      }
    }
}

// One product of every height and number of rows, with biases and sums.
void few_rows_products(Random& rng, TensorType type, bool quick) {
  if (!formats::is_quantized(type)) return;
  Backends b;
  const bool k_quant = formats::block_values(type) == 256;
  std::vector<uint32_t> widths =
      k_quant ? std::vector<uint32_t>{256, 768, 4864, 14336} : std::vector<uint32_t>{32, 160, 896, 4864};
  std::vector<uint32_t> counts = {2, 3, 8, 9, 16, 17, 24, 33, 64};
  if (quick) counts = {3, 20};
  for (const uint32_t k : widths) {
    std::vector<uint32_t> heights = {1, 7, 8, 33, 2304};
    if (quick) heights = {33};
    else if (k == 256 || k == 160) heights.push_back(17001);  // enough for all processors
    for (const uint32_t n : heights) {
      const Both w(rng, type, n, k);
      std::vector<float> bias(n);
      for (float& v : bias) v = rng.normalish();
      const auto gbias = to_device(bias);
      for (const uint32_t rows : counts) {
        Inputs in(rng, rows, k);
        b.cpu->quantize(in.on_cpu(), rows);
        b.gpu->quantize(in.on_gpu(), rows);
        std::vector<float> y(size_t(rows) * n);
        for (float& v : y) v = rng.normalish();
        const bool add = rng.below(2), biased = rng.below(2);
        const auto gy = add ? to_device(y) : poisoned<float>(y.size());
        const MatmulArgs on_cpu[] = {{w.on_cpu(), y.data(), add, biased ? bias.data() : nullptr}};
        const MatmulArgs on_gpu = {w.on_gpu(), gy.data(), add, biased ? gbias.data() : nullptr};
        b.cpu->matmul(on_cpu, in.on_cpu(), rows);
        b.gpu->finish();
        kernels::matmul(&on_gpu, 1, in.on_gpu(), rows, nullptr);
        equal("few rows " + name(type) + " n=" + std::to_string(n) + " k=" + std::to_string(k) +
                  " rows=" + std::to_string(rows),
              y.data(), to_host(gy.data(), y.size()).data(), y.size());
      }
    }
  }
}

// Every shape of warpgroups, whatever its cost: products that share a launch, with biases and sums.
template <TensorType T>
void warpgroup_products(Random& rng) {
  if (!kernels::processor().warpgroups) {
    std::printf("SKIPPED products of warpgroups: this GPU has none\n");
    return;
  }
  Backends b;
  const uint32_t heights[] = {64, 320, 192};
  for (const uint32_t k : {256u, 768u, 4864u}) {
    const Both w[] = {{rng, T, heights[0], k}, {rng, T, heights[1], k}, {rng, T, heights[2], k}};
    for (const uint32_t rows : {9u, 16u, 23u, 64u, 65u, 130u}) {
      Inputs in(rng, rows, k);
      b.cpu->quantize(in.on_cpu(), rows);
      b.gpu->quantize(in.on_gpu(), rows);
      b.gpu->finish();
      std::vector<float> y[3], before[3], bias(320);
      std::vector<device::Buffer<float>> gy;
      for (float& v : bias) v = rng.normalish();
      const auto gbias = to_device(bias);
      std::vector<MatmulArgs> on_cpu, on_gpu;
      for (uint32_t i = 0; i < 3; ++i) {
        y[i].resize(size_t(rows) * heights[i]);
        for (float& v : y[i]) v = rng.normalish();
        before[i] = y[i];
        gy.push_back(to_device(y[i]));
        on_cpu.push_back({w[i].on_cpu(), y[i].data(), i == 1, i == 2 ? bias.data() : nullptr});
        on_gpu.push_back({w[i].on_gpu(), gy[i].data(), i == 1, i == 2 ? gbias.data() : nullptr});
      }
      b.cpu->matmul(on_cpu, in.on_cpu(), rows);
      kernels::SeveralRowsArgs args = kernels::several_rows(on_gpu.data(), 3, in.on_gpu(), rows);
      uint32_t shape = 0;
      kernels::visit_warpgroups<T>(args, [&](const kernels::Choice& choice) {
        for (uint32_t i = 0; i < 3; ++i) gy[i].upload(before[i]);
        ORCD_CUDA(cudaDeviceSynchronize());
        choice.launch(args, nullptr);
        for (uint32_t i = 0; i < 3; ++i)
          equal("warpgroups " + name(T) + " shape " + std::to_string(shape) + " product " + std::to_string(i) +
                    " k=" + std::to_string(k) + " rows=" + std::to_string(rows),
                y[i].data(), to_host(gy[i].data(), y[i].size()).data(), y[i].size());
        ++shape;
      });
    }
  }
}

void embeddings(Random& rng, TensorType type) {
  Backends b;
  const uint32_t vocab = 101, cols = 512;
  Both table(rng, type, vocab, cols, TensorRole::kTokenEmbedding);
  const std::vector<uint32_t> token = {0, 100, 7, 8, 99, 3}, slot(6, 0), position = {0, 1, 2, 3, 4, 5};
  const Rows rows = {6, token.data(), slot.data(), position.data()};
  b.open(0);
  b.begin(rows);
  std::vector<float> x(6 * cols);
  auto gx = poisoned<float>(x.size());
  for (const float scale : {1.0f, 15.0f / 7.0f}) {
    b.cpu->embed(table.on_cpu(), scale, x.data());
    b.gpu->embed(table.on_gpu(), scale, gx.data());
    b.gpu->finish();
    equal("embed " + name(type), x.data(), to_host(gx.data(), x.size()).data(), x.size());
  }
}

// Parameters of attention in both memories.
struct AttentionBoth {
  std::vector<float> sinks;
  device::Buffer<float> gsinks;
  uint32_t window;
  float soft_cap;

  AttentionBoth(Random& rng, uint32_t heads, uint32_t window = 0, float soft_cap = 0, bool has_sinks = false)
      : sinks(has_sinks ? heads : 0), window(window), soft_cap(soft_cap) {
    for (float& b : sinks) b = rng.normalish() * 8;
    if (has_sinks) gsinks = to_device(sinks);
  }
  AttentionParams on_cpu() const { return {window, soft_cap, sinks.empty() ? nullptr : sinks.data()}; }
  AttentionParams on_gpu() const { return {window, soft_cap, sinks.empty() ? nullptr : gsinks.data()}; }
  std::string name() const {
    return " window=" + std::to_string(window) + " cap=" + std::to_string(soft_cap) + (sinks.empty() ? "" : " sinks");
  }
};

struct AttentionShape {
  uint32_t heads, kv_heads, head_dim;
  RopeStyle style = RopeStyle::kNeox;
  bool changed = false;  // rotates a part of each head, stretched; scales queries

  uint32_t q_width() const { return heads * head_dim; }
  uint32_t kv_width() const { return kv_heads * head_dim; }
  ModelShape model() const {
    ModelShape shape = shape_of(1, 64, 64, heads, kv_heads, head_dim, 1000, style);
    if (!changed) return shape;
    RopeSpec& first = shape.kinds[0].rope;
    first.pairs = head_dim / 2 - 3;
    first.scaling = RopeScaling::kYarn;
    first.factor = 8, first.original_context = 100, first.beta_fast = 32, first.beta_slow = 1;
    shape.kinds[1].rope.pairs = head_dim % 64 ? 0 : head_dim / 4;
    shape.kinds[1].rope.base = 500;
    shape.second_kind[0] = 2;
    shape.attention_scale = 0.3;
    shape.query_scale = 0.4, shape.query_scale_context = 50;
    return shape;
  }
  std::string name() const {
    return " heads=" + std::to_string(heads) + "/" + std::to_string(kv_heads) + " dim=" + std::to_string(head_dim);
  }
};

std::vector<float> random_values(Random& rng, size_t n, float scale) {
  std::vector<float> v(n);
  for (float& f : v) f = rng.normalish() * scale;
  return v;
}

// Inputs of attention in both memories, and what comes of them.
struct AttentionRows {
  std::vector<float> q, k, v, out;
  device::Buffer<float> gq, gk, gv, gout;

  AttentionRows(Random& rng, const AttentionShape& shape, uint32_t rows, float size = 2)
      : q(random_values(rng, size_t(rows) * shape.q_width(), size)),
        k(random_values(rng, size_t(rows) * shape.kv_width(), size)),
        v(random_values(rng, size_t(rows) * shape.kv_width(), 1)),
        out(q.size()),
        gq(to_device(q)),
        gk(to_device(k)),
        gv(to_device(v)),
        gout(poisoned<float>(out.size())) {}
  AttentionInputs on_cpu() { return {q.data(), k.data(), v.data()}; }
  AttentionInputs on_gpu() { return {gq.data(), gk.data(), gv.data()}; }
  void attend(Backends& b, const AttentionBoth& params) {
    b.cpu->attention(0, params.on_cpu(), q.data(), out.data());
    b.gpu->attention(0, params.on_gpu(), gq.data(), gout.data());
    b.gpu->finish();
  }
  void compare_out(const std::string& at) {
    equal("attention" + at, out.data(), to_host(gout.data(), out.size()).data(), out.size());
  }
};

// Several sequences advance by runs of different lengths, together in one step.
void attention(Random& rng, const AttentionShape& shape, bool biases, const AttentionBoth& params, bool norms = false) {
  Backends b(shape.model());
  const uint32_t qw = shape.q_width(), kvw = shape.kv_width();
  uint32_t length[4] = {};
  for (uint32_t s = 0; s < 4; ++s) b.open(s);
  for (int step = 0; step < 14; ++step) {
    std::vector<uint32_t> token, slot, position;
    for (uint32_t s = 0; s < 4; ++s) {
      const uint32_t runs[] = {1, 0, 70, 1, 5, 130, 1};
      const uint32_t n = step == 0 ? 1 + 60 * s : runs[rng.below(7)];
      for (uint32_t i = 0; i < n && length[s] < 1000 && token.size() < b.options.max_batch_tokens; ++i) {
        token.push_back(rng.below(1000)), slot.push_back(s), position.push_back(length[s]++);
      }
    }
    if (token.empty()) continue;
    const Rows rows = {uint32_t(token.size()), token.data(), slot.data(), position.data()};
    AttentionRows in(rng, shape, rows.count);
    std::vector<float> qb = random_values(rng, qw, 5), kb = random_values(rng, kvw, 5), vb = random_values(rng, kvw, 1);
    auto gqb = to_device(qb), gkb = to_device(kb), gvb = to_device(vb);
    AttentionInputs on_cpu = in.on_cpu(), on_gpu = in.on_gpu();
    if (biases) {
      on_cpu.q_bias = qb.data(), on_cpu.k_bias = kb.data(), on_cpu.v_bias = vb.data();
      on_gpu.q_bias = gqb.data(), on_gpu.k_bias = gkb.data(), on_gpu.v_bias = gvb.data();
    }
    const std::vector<float> qn = random_values(rng, shape.head_dim, 1), kn = random_values(rng, shape.head_dim, 1);
    const auto gqn = to_device(qn), gkn = to_device(kn);
    if (norms) {
      on_cpu.q_norm = qn.data(), on_cpu.k_norm = kn.data();
      on_gpu.q_norm = gqn.data(), on_gpu.k_norm = gkn.data();
    }
    on_cpu.kind = on_gpu.kind = shape.changed ? step % 2 : 0;
    b.begin(rows);
    b.cpu->rope_kv(0, on_cpu);
    b.gpu->rope_kv(0, on_gpu);
    in.attend(b, params);
    const std::string at = shape.name() + params.name() + " step=" + std::to_string(step);
    equal("rotated q" + at, in.q.data(), to_host(in.gq.data(), in.q.size()).data(), in.q.size());
    equal("rotated k" + at, in.k.data(), to_host(in.gk.data(), in.k.size()).data(), in.k.size());
    in.compare_out(at);
  }
}

// One sequence, row by row: the decoding kernels rotate and append for themselves, first one form of them, then the other.
void appending_decode(Random& rng, const AttentionShape& shape, const AttentionBoth& params, uint32_t rows,
                      bool norms = false) {
  Backends b(shape.model(), 1, (rows + 1023) / 1024 * 1024);
  const std::vector<float> qn = random_values(rng, shape.head_dim, 1), kn = random_values(rng, shape.head_dim, 1);
  const auto gqn = to_device(qn), gkn = to_device(kn);
  const uint32_t context = b.options.context, pages = context / kAttnSplit;
  const uint64_t page_bytes = uint64_t{shape.kv_heads} * kernels::KvPage{shape.head_dim}.bytes();
  const RopeSpec spec = shape.model().kinds[0].rope;
  const std::vector<arith::CosSin> angles = gpu::rope_table(rope_frequencies(spec, nullptr), 1.0, context);
  std::vector<float2> table(angles.size());
  for (size_t i = 0; i < table.size(); ++i) table[i] = {angles[i].cos, angles[i].sin};
  std::vector<uint32_t> order(pages);
  for (uint32_t i = 0; i < pages; ++i) order[i] = pages - 1 - i;
  const auto rope = to_device(table);
  const auto page_table = to_device(order);
  const auto cache = poisoned<uint8_t>(pages * page_bytes);
  const uint32_t runs = pages / kAttnRun;
  auto partial = poisoned<float>(uint64_t{shape.heads} * runs * (shape.head_dim + 2));
  auto arrived = to_device(std::vector<uint32_t>(shape.heads, 0));
  const auto place = to_device(std::vector<uint32_t>{0});
  b.open(0);
  for (uint32_t p = 0; p < rows; ++p) {
    const uint32_t token = 1, slot = 0;
    b.begin({1, &token, &slot, &p});
    AttentionRows in(rng, shape, 1);
    kernels::DecodeAttention a = {};
    a.heads = {shape.heads, shape.kv_heads, shape.head_dim,
               shape.style, rope.data(),    arith::score_scale(shape.head_dim, 0, params.soft_cap != 0)};
    a.kv = {cache.data(), page_table.data(), pages};
    a.q = in.gq.data(), a.k = in.gk.data(), a.v = in.gv.data();
    const auto gslot = to_device(std::vector<uint32_t>{slot}), gposition = to_device(std::vector<uint32_t>{p});
    a.slot = gslot.data(), a.position = gposition.data();
    a.partial = partial.data(), a.place = place.data(), a.arrived = arrived.data(), a.runs = runs;
    a.out.cols = shape.q_width(), a.out.x = in.gout.data();
    a.rotate = true;
    a.params = params.on_gpu();
    AttentionInputs on_cpu = in.on_cpu();
    if (norms) {
      on_cpu.q_norm = qn.data(), on_cpu.k_norm = kn.data();
      a.q_norm = gqn.data(), a.k_norm = gkn.data(), a.eps = b.model.shape.rms_eps;
    }
    b.cpu->rope_kv(0, on_cpu);
    b.cpu->attention(0, params.on_cpu(), in.q.data(), in.out.data());
    const std::string at = shape.name() + params.name() + ", appending row " + std::to_string(p);
    kernels::attention_many(a, 1, false, nullptr);
    in.compare_out(at + ", as one of many");
    if (!kernels::are_few(a, 1)) continue;
    in.gout = poisoned<float>(in.out.size());
    a.out.x = in.gout.data();
    kernels::attention_few(a, 1, false, nullptr);
    in.compare_out(at + ", as one of few");
  }
}

// A sequence of `n` tokens, whose last rows attend: one alone, then a chunk of many.
void long_context(Random& rng, const AttentionShape& shape, const AttentionBoth& params, uint32_t n) {
  constexpr uint32_t kChunk = 4096, kLast = 70;
  Backends b(shape.model(), 1, n, kChunk);
  b.open(0);
  const auto step = [&](uint32_t first, uint32_t count, bool attends) {
    std::vector<uint32_t> token(count, 1), slot(count, 0), position(count);
    for (uint32_t i = 0; i < count; ++i) position[i] = first + i;
    b.begin({count, token.data(), slot.data(), position.data()});
    AttentionRows in(rng, shape, count, 1);
    b.cpu->rope_kv(0, in.on_cpu());
    b.gpu->rope_kv(0, in.on_gpu());
    b.gpu->finish();
    if (!attends) return;
    in.attend(b, params);
    in.compare_out(shape.name() + params.name() + ", " + std::to_string(count) + " rows from " + std::to_string(first));
  };
  const uint32_t filled = n - kLast - 1;
  for (uint32_t first = 0; first < filled; first += kChunk) step(first, std::min(kChunk, filled - first), false);
  step(filled, 1, true);
  step(filled + 1, kLast, true);
}

// Every head size with each parameter and all, and every number of query heads on a KV head.
void all_attention(Random& rng, bool quick) {
  const auto every = [&](const AttentionShape& shape, auto run) {
    for (const uint32_t window : {1u, 63u, 100u, 256u, 1000u, 5000u})
      if (!quick || window == 100) run(AttentionBoth(rng, shape.heads, window));
    run(AttentionBoth(rng, shape.heads));
    run(AttentionBoth(rng, shape.heads, 0, 5));
    run(AttentionBoth(rng, shape.heads, 0, 0, true));
    run(AttentionBoth(rng, shape.heads, 200, 30, true));
  };
  for (const uint32_t dim : {32u, 64u, 80u, 96u, 128u, 256u}) {
    if (quick && dim % 64 != 0 && dim != 80) continue;
    const AttentionShape few = {6, 2, dim, dim % 64 ? RopeStyle::kInterleaved : RopeStyle::kNeox}, many = {11, 1, dim};
    every(few, [&](const AttentionBoth& params) { attention(rng, few, rng.below(2), params); });
    AttentionShape changed = few;
    changed.changed = true;
    for (const uint32_t window : {0u, 100u})
      attention(rng, changed, rng.below(2), AttentionBoth(rng, changed.heads, window), true);
    if (!quick) every(many, [&](const AttentionBoth& params) { attention(rng, many, rng.below(2), params); });
    for (const AttentionShape& shape : {few, many}) {
      appending_decode(rng, shape, AttentionBoth(rng, shape.heads), quick ? 70 : 600);
      appending_decode(rng, shape, AttentionBoth(rng, shape.heads, 70, 5, true), quick ? 140 : 600);
      appending_decode(rng, shape, AttentionBoth(rng, shape.heads, 100), quick ? 70 : 300, true);
    }
  }
  for (uint32_t group = 1; group <= kernels::kMostHeadsPerKv && !quick; ++group)
    attention(rng, {2 * group, 2, 64}, true, AttentionBoth(rng, 2 * group, group % 2 ? 130 : 0, 0, group % 3 == 0));
  if (quick) return;
  appending_decode(rng, {16, 1, 64}, AttentionBoth(rng, 16), 2200);
  appending_decode(rng, {8, 2, 128}, AttentionBoth(rng, 8, 1100, 30, true), 2200);
  constexpr uint32_t kLong = 131072;
  for (const uint32_t dim : {64u, 128u, 256u}) {
    const AttentionShape shape = {2, 1, dim};
    long_context(rng, shape, AttentionBoth(rng, 2), kLong);
    long_context(rng, shape, AttentionBoth(rng, 2, 100000, 30, true), kLong);
  }
  long_context(rng, {16, 1, 64}, AttentionBoth(rng, 16, 4096), kLong);
}

// Heads with values that are no numbers, or too large, are zeros.
void infinite_values(Random& rng, uint32_t heads, uint32_t kv_heads, uint32_t head_dim) {
  const uint32_t qw = heads * head_dim, kvw = kv_heads * head_dim, rows = 200;
  std::vector<float> q(rows * qw), k(rows * kvw), v(rows * kvw), whole;
  for (float& f : q) f = rng.normalish() * 2;
  for (float& f : k) f = rng.normalish() * 2;
  for (float& f : v) f = rng.normalish();
  // Late in the first tile, early in the second, and large ones that do fit beside them.
  for (const uint32_t row : {60u, 63u, 66u, 150u})
    for (uint32_t d = 0; d < kvw; ++d) {
      const float values[] = {arith::infinity(), -arith::infinity(), 0x1p+50f, 0x1p+49f, NAN, 1.0f};
      v[row * kvw + d] = values[rng.below(6)];
      if (row != 150) k[row * kvw + d] = values[rng.below(6)];
    }
  for (const uint32_t chunk : {200u, 64u, 37u, 1u}) {
    Backends b(shape_of(1, 64, 64, heads, kv_heads, head_dim, 1000), 1);
    b.open(0);
    std::vector<float> expected(rows * qw), found(rows * qw);
    for (uint32_t first = 0; first < rows; first += chunk) {
      const uint32_t n = std::min(chunk, rows - first);
      std::vector<uint32_t> token(n, 1), slot(n, 0), position(n);
      for (uint32_t i = 0; i < n; ++i) position[i] = first + i;
      const Rows step = {n, token.data(), slot.data(), position.data()};
      const auto part = [&](const std::vector<float>& all, uint32_t width) {
        return std::vector<float>(all.begin() + first * width, all.begin() + (first + n) * width);
      };
      std::vector<float> cq = part(q, qw), ck = part(k, kvw), cv = part(v, kvw);
      const auto gq = to_device(cq), gk = to_device(ck), gv = to_device(cv);
      const auto gout = poisoned<float>(n * qw);
      b.begin(step);
      b.cpu->rope_kv(0, {cq.data(), ck.data(), cv.data()});
      b.gpu->rope_kv(0, {gq.data(), gk.data(), gv.data()});
      b.cpu->attention(0, {}, cq.data(), &expected[first * qw]);
      b.gpu->attention(0, {}, gq.data(), gout.data());
      b.gpu->finish();
      const auto part_found = to_host(gout.data(), n * qw);
      std::copy(part_found.begin(), part_found.end(), found.begin() + first * qw);
    }
    if (whole.empty()) whole = found;
    for (const auto& [name, other] : {std::pair{"the CPU's", &expected}, std::pair{"one chunk's", &whole}}) {
      ++checks;
      for (size_t i = 0; i < found.size(); ++i) {
        if (arith::bits_of(found[i]) == arith::bits_of((*other)[i])) continue;
        ++failures;
        std::printf("DIFFERENT infinite values, chunks of %u, row %zu: %.9g, %s is %.9g\n", chunk, i / qw, found[i],
                    name, (*other)[i]);
        break;
      }
    }
  }
}

// Samples from each of the rows begun, or from these. What the GPU gets.
std::vector<Sampled> compare_samples(const std::string& what, Backends& b, const std::vector<float>& logits,
                                     const std::vector<PlacedSample>& wanted, std::vector<uint32_t> rows = {}) {
  std::vector<Sampled> sampled(wanted.size()), got(wanted.size());
  const auto glogits = to_device(logits);
  const uint32_t vocab = b.model.shape.vocab;
  if (rows.empty()) rows.resize(wanted.size()), std::iota(rows.begin(), rows.end(), 0u);
  b.cpu->sample(logits.data(), vocab, wanted, sampled);
  b.gpu->sample(glogits.data(), vocab, {{}, rows, wanted, *b.sequences});
  b.gpu->finish(got);
  // Token and logprob of what was sampled, then of the best ones.
  const auto words = [](const std::vector<Sampled>& sampled) {
    std::vector<uint32_t> out;
    for (const Sampled& s : sampled) {
      out.push_back(s.token), out.push_back(arith::bits_of(s.logprob));
      for (const TokenLogprob& t : s.top) out.push_back(t.token), out.push_back(arith::bits_of(t.logprob));
    }
    return out;
  };
  const std::vector<uint32_t> expected = words(sampled), found = words(got);
  equal(what + ", vocab " + std::to_string(vocab), expected.data(), found.data(), found.size());
  return got;
}

// A mask that leaves about one of `of` tokens, and one for certain.
std::vector<uint32_t> random_mask(Random& rng, uint32_t vocab, uint32_t of) {
  std::vector<uint32_t> mask(mask_words(vocab));
  for (uint32_t i = 0; i < vocab; ++i) mask[i / 32] |= uint32_t(rng.below(of) == 0) << i % 32;
  const uint32_t certain = rng.below(vocab);
  mask[certain / 32] |= 1u << certain % 32;
  return mask;
}

// Biases of about one in `of` tokens, at most as many as there may be, some of which decide.
std::vector<TokenBias> random_biases(Random& rng, uint32_t vocab, uint32_t of) {
  std::vector<TokenBias> biases;
  for (uint32_t i = 0; i < vocab && biases.size() < kMostBiases; ++i)
    if (rng.below(of) == 0) biases.push_back({i, rng.normalish() * 6.0f});
  return biases;
}

void samples(Random& rng, uint32_t vocab) {
  Backends b(shape_of(1, 64, 64, 2, 1, 32, vocab), 8);
  for (int round = 0; round < 40; ++round) {
    std::vector<uint32_t> token(8), slot(8), position(8);
    for (uint32_t i = 0; i < 8; ++i) token[i] = rng.below(vocab), slot[i] = i / 2, position[i] = i % 2;
    for (uint32_t s = 0; s < 4; ++s) b.open(s);
    const Rows rows = {8, token.data(), slot.data(), position.data()};
    b.begin(rows);
    std::vector<float> logits(8 * size_t(vocab));
    for (float& l : logits) l = rng.normalish() * 4.0f;
    for (uint32_t row = 0; row < 8; ++row)  // seen ones matter
      for (const uint32_t i : {row / 2 * 2, row / 2 * 2 + 1}) logits[row * size_t(vocab) + token[i]] += 6.0f;
    for (int i = 0; i < 50; ++i) logits[rng.below(8 * vocab)] = logits[rng.below(8 * vocab)];  // ties
    std::vector<std::vector<uint32_t>> masks;
    for (uint32_t of : {1, 2, 50, 1000}) masks.push_back(random_mask(rng, vocab, of));
    std::vector<std::vector<TokenBias>> biases(1);
    for (uint32_t of : {1, 3, 100, 400}) biases.push_back(random_biases(rng, vocab, of));
    std::vector<PlacedSample> wanted;
    for (uint32_t row = 0; row < 8; ++row) {
      const float temperatures[] = {0.0f, 0.7f, 1.0f, 1.7f}, ps[] = {1.0f, 0.9f, 0.3f, 0.01f};
      const uint32_t ks[] = {0, 1, 5, 40, vocab};
      const float penalties[] = {0.0f, 0.0f, 0.5f, 2.0f, -1.0f};
      Sampling p = {
          temperatures[rng.below(4)], ps[rng.below(4)],        ks[rng.below(5)],        rng.below(3) ? 0.0f : 0.1f,
          rng.below(2) ? 1.0f : 1.3f, penalties[rng.below(5)], penalties[rng.below(5)], rng.next()};
      const uint32_t* mask = rng.below(2) ? nullptr : masks[rng.below(4)].data();
      // The first row of two has one token before what is sampled, the second has both.
      // Each sequence's output begins at one place.
      wanted.push_back({row / 2, row % 2 ? 2 + rng.below(1000) : 1, mask, rng.below(3) == 0,
                        rng.below(2) ? rng.below(21) : 0, p, row / 2 % 3, biases[rng.below(5)]});
    }
    compare_samples("sampled in round " + std::to_string(round), b, logits, wanted);
    for (uint32_t s = 0; s < 4; ++s) b.close(s);
  }
}

// Logits on which the cuts of top-k and top-p are hard to find: ties, more close neighbors than a block can
// sort, distances of all sizes; and logits that nothing is sampled from.
struct Terrain {
  const char* name;
  float (*logit)(Random&);
};
const Terrain kTerrains[] = {
    {"normal", [](Random& rng) { return rng.normalish() * 4; }},
    {"equal", [](Random&) { return 1.5f; }},
    {"zeros", [](Random& rng) { return rng.below(2) ? 0.0f : -0.0f; }},
    {"few values", [](Random& rng) { return float(rng.below(5)) - 2; }},
    {"close", [](Random& rng) { return rng.normalish() * 0.001f; }},
    {"flat", [](Random& rng) { return rng.normalish() * 0.1f; }},
    {"far apart", [](Random& rng) { return rng.normalish() * 2000; }},
    {"negative", [](Random& rng) { return -1 - std::abs(rng.normalish() * 9); }},
    {"about zero", [](Random& rng) { return rng.below(30) ? -std::abs(rng.normalish()) : rng.normalish() * 1e-3f; }},
    {"mostly far below", [](Random& rng) { return rng.below(20) ? -1e9f - rng.below(3) : rng.normalish(); }},
    {"mostly zero", [](Random& rng) { return rng.below(200) ? 0.0f : -std::abs(rng.normalish()); }},
    {"mostly -inf", [](Random& rng) { return rng.below(20) ? -arith::infinity() : rng.normalish(); }},
    {"some +inf", [](Random& rng) { return rng.below(50) ? rng.normalish() : arith::infinity(); }},
    {"some NaN", [](Random& rng) { return rng.below(3) ? rng.normalish() : arith::float_of(0x7fc00000u); }},
    {"NaN", [](Random&) { return arith::float_of(0x7fc00000u); }},
    {"any bits", [](Random& rng) { return arith::float_of(uint32_t(rng.next())); }},
};

// Every filter and none, all in one step, with more samples than one batch of kernels takes where `n` is large.
void filtered_samples(Random& rng, uint32_t vocab, uint32_t n) {
  Backends b(shape_of(1, 64, 64, 2, 1, 32, vocab), n);
  for (uint32_t s = 0; s < n; ++s) b.open(s);
  std::vector<uint32_t> token(n), slot(n), position(n);
  for (uint32_t i = 0; i < n; ++i) token[i] = rng.below(vocab), slot[i] = i;
  const Rows rows = {n, token.data(), slot.data(), position.data()};
  b.begin(rows);
  const Sampling samplings[] = {
      // temperature, top-p, top-k, min-p, penalty
      {1.0f, 0.95f, 40, 0.05f, 1},   {1.0f, 1.0f, 0, 0, 1},         {1.0f, 1.0f, 1, 0, 1},
      {1.7f, 1.0f, vocab - 1, 0, 1}, {1.0f, 0.9f, 0, 0, 1},         {0.1f, 0.999999f, 0, 0, 1},
      {0.7f, 0.5f, vocab / 2, 0, 1}, {1.0f, 1.0f, 0, 0.1f, 1},      {0.0f, 0.5f, 5, 0.1f, 1},
      {1.0f, 1.0f, 40, 0, 1.3f},     {2.0f, 0.99f, 4097, 1e-6f, 1}, {0.01f, 0.01f, 0, 1, 1},
      {1.0f, 0.9f, 9, 0, 1, 2, 1},   {0.0f, 1, 0, 0, 1, -1, 2},
  };
  const std::vector<TokenBias> biases[] = {{}, random_biases(rng, vocab, 1), random_biases(rng, vocab, 30)};
  for (const Terrain& terrain : kTerrains) {
    std::vector<float> logits(n * size_t(vocab));
    for (float& l : logits) l = terrain.logit(rng);
    std::vector<PlacedSample> wanted;
    for (uint32_t i = 0; i < n; ++i) {
      // Behind the one token that there is, as every draw is.
      wanted.push_back({i, 1 + rng.below(1000), nullptr, i % 5 == 0, i % 3, samplings[i % std::size(samplings)]});
      wanted[i].sampling.seed = rng.next();
      wanted[i].sampling.choice = rng.below(3) ? 0 : rng.next();
      wanted[i].biases = biases[rng.below(3)];
    }
    compare_samples(std::to_string(n) + " sampled, " + terrain.name, b, logits, wanted);
    std::reverse(wanted.begin(), wanted.end());  // each slot and scratch with another filter
    for (uint32_t i = 0; i < n; ++i) wanted[i].slot = i;
    compare_samples(std::to_string(n) + " sampled, reversed, " + terrain.name, b, logits, wanted);
  }
}

// Rows of single sequences go on for some steps, with penalties for tokens of the output: new ones, such that had
// tokens taken back, that sample only now and then, and whose slot has another output now.
void counted_samples(Random& rng, uint32_t vocab) {
  constexpr uint32_t n = 5;
  Backends b(shape_of(1, 64, 64, 2, 1, 32, vocab), n);
  uint32_t start[n] = {};
  for (uint32_t s = 0; s < n; ++s) b.open(s);
  for (int step = 0; step < 60; ++step) {
    std::vector<uint32_t> token, slot, position, logit_rows;
    std::vector<PlacedSample> wanted;
    for (uint32_t s = 0; s < n; ++s) {
      uint32_t length = uint32_t(b.sequences->tokens(s).size());
      if (rng.below(12) == 0 || length > 900) b.close(s), b.open(s), length = 0, start[s] = rng.below(90);
      if (rng.below(4) == 0) b.sequences->truncate(s, length -= rng.below(std::min(length, 9u) + 1));
      const uint32_t rows = rng.below(3) ? 1 : 1 + rng.below(40);
      for (uint32_t r = 0; r < rows; ++r) {
        token.push_back(rng.below(std::min(vocab, 9u)) + (rng.below(5) ? 0 : vocab - std::min(vocab, 9u)));
        slot.push_back(s), position.push_back(length + r);
        if (r + 1 < rows ? rng.below(3) : rng.below(5) == 0) continue;
        Sampling p = {rng.below(2) ? 0.0f : 1.0f, rng.below(3) ? 1.0f : 0.8f, 0, 0, rng.below(3) ? 1.0f : 1.2f};
        p.frequency_penalty = rng.below(4) ? 0.25f * float(rng.below(9)) - 0.5f : 0.0f;
        p.presence_penalty = rng.below(2) ? 0.0f : 0.7f;
        p.seed = rng.next();
        logit_rows.push_back(uint32_t(token.size()) - 1);
        wanted.push_back({s, length + r + 1, nullptr, false, 0, p, start[s]});
      }
    }
    const size_t most = std::min<size_t>(wanted.size(), n);  // as many logits as an engine has
    wanted.resize(most), logit_rows.resize(most);
    b.begin({uint32_t(token.size()), token.data(), slot.data(), position.data()});
    std::vector<float> logits(most * size_t(vocab));
    for (float& l : logits) l = rng.normalish();
    for (size_t i = 0; i < most; ++i)  // tokens of the output matter
      for (uint32_t t = 0; t < std::min(vocab, 9u); ++t) logits[i * vocab + t] += 6.0f;
    compare_samples("counted in step " + std::to_string(step), b, logits, wanted, logit_rows);
  }
}

// A count stops at the largest that 16 bits hold, and leaves its neighbor's alone.
void longest_counts(Random& rng) {
  constexpr uint32_t vocab = 7, most = arith::kMostCounted;
  Backends b(shape_of(1, 64, 64, 2, 1, 32, vocab), 1, most + 1000);
  b.open(0);
  const auto rest = [&](uint32_t length) {
    const uint32_t now = uint32_t(b.sequences->tokens(0).size());
    b.sequences->append(0, std::vector<uint32_t>(length - now, 2));
  };
  for (const uint32_t length : {most - 2, most - 1, most, most + 1, most + 900}) {
    rest(length - 1);
    const uint32_t token = 2, slot = 0, position = length - 1;
    b.begin({1, &token, &slot, &position});
    // About where the counted token falls behind the others.
    for (const float ahead : {most - 2.5f, most - 1.5f, most - 0.5f, most + 0.5f}) {
      std::vector<float> logits(vocab);
      for (float& l : logits) l = rng.normalish() * 1e-4f;
      logits[2] = ahead * 0.001f;
      Sampling p = {0.0f, 1, 0, 0, 1, 0.001f};
      compare_samples("a token " + std::to_string(length) + " times", b, logits, {{0, length, nullptr, false, 0, p}});
    }
  }
}

// One row in which a single logit is not finite, one of zeros, between sound ones: kBrokenLogits in their places,
// and the same step again without them.
void broken_logits(Random& rng, uint32_t vocab) {
  constexpr uint32_t n = 4;
  Backends b(shape_of(1, 64, 64, 2, 1, 32, vocab), n);
  for (uint32_t s = 0; s < n; ++s) b.open(s);
  const std::vector<uint32_t> token(n, 0), slot = {0, 1, 2, 3}, position(n, 0);
  const Rows rows = {n, token.data(), slot.data(), position.data()};
  b.begin(rows);
  const Sampling samplings[] = {
      {0, 1, 0, 0, 1}, {1, 1, 0, 0, 1}, {1, 0.9f, 40, 0, 1}, {1, 1, 0, 0.1f, 1.3f}, {0, 1, 0, 0, 1, 1, 1}};
  const std::vector<TokenBias> biases = random_biases(rng, vocab, 2);
  for (const Sampling& sampling : samplings)
    for (const float value : {arith::float_of(0x7fc00000u), arith::infinity(), -arith::infinity()})
      for (const bool broken : {true, false}) {
        std::vector<float> logits(n * size_t(vocab));
        for (float& l : logits) l = rng.normalish() * 4;
        if (broken) {
          logits[vocab + rng.below(vocab)] = value;
          std::fill_n(logits.begin() + 2 * size_t(vocab), vocab, 0.0f);
        }
        std::vector<PlacedSample> wanted;
        for (uint32_t i = 0; i < n; ++i) {
          wanted.push_back({i, 7 + i, nullptr, i % 2 == 0, 3, sampling});
          if (i % 2) wanted[i].biases = biases;
        }
        const std::vector<Sampled> got = compare_samples("broken logits", b, logits, wanted);
        for (uint32_t i = 0; i < n; ++i) {
          const uint32_t is = got[i].token == kBrokenLogits, should = broken && (i == 1 || i == 2);
          equal("broken logits of row " + std::to_string(i), &should, &is, 1);
        }
      }
}

// A step's experts in both memories, with its weights and scratch.
struct MixtureBoth {
  uint32_t kExperts, kUsed, d_model, d_ff;
  Both gate, up, down;
  std::vector<float> gate_bias, down_bias;
  device::Buffer<float> ggate_bias, gdown_bias;

  MixtureBoth(Random& rng, TensorType type, TensorType up_type, uint32_t d_model, uint32_t d_ff, uint32_t experts = 9,
              uint32_t used = 3)
      : kExperts(experts),
        kUsed(used),
        d_model(d_model),
        d_ff(d_ff),
        gate(rng, type, kExperts * d_ff, d_model),
        up(rng, up_type, kExperts * d_ff, d_model),
        down(rng, type, kExperts * d_model, d_ff),
        gate_bias(random_values(rng, kExperts * d_ff, 1)),
        down_bias(random_values(rng, kExperts * d_model, 1)),
        ggate_bias(to_device(gate_bias)),
        gdown_bias(to_device(down_bias)) {}
};

struct MixtureStep {
  uint32_t rows, pairs;
  Inputs input, hidden;
  std::vector<uint32_t> expert, place, row, end;
  std::vector<float> logits, weight, gated, upped, given, y;
  device::Buffer<uint32_t> gexpert, gplace, grow;
  device::Buffer<ExpertTile> gtiles;
  device::Buffer<float> glogits, gweight, ggated, gupped, ggiven, gy;
  Mixture on_cpu, on_gpu;

  MixtureStep(Random& rng, const MixtureBoth& m, uint32_t rows)
      : rows(rows),
        pairs(rows * m.kUsed),
        input(rng, pairs, m.d_model),
        hidden(rng, pairs, m.d_ff),
        expert(pairs),
        place(pairs),
        row(pairs),
        end(m.kExperts),
        logits(random_values(rng, rows * m.kExperts, 1)),
        weight(pairs),
        gated(pairs * m.d_ff),
        upped(pairs * m.d_ff),
        given(pairs * m.d_model),
        y(random_values(rng, rows * m.d_model, 1)),
        gexpert(poisoned<uint32_t>(pairs)),
        gplace(poisoned<uint32_t>(pairs)),
        grow(poisoned<uint32_t>(pairs)),
        gtiles(poisoned<ExpertTile>(most_tiles(pairs, m.kExperts))),
        glogits(poisoned<float>(logits.size())),
        gweight(poisoned<float>(pairs)),
        ggated(poisoned<float>(gated.size())),
        gupped(poisoned<float>(upped.size())),
        ggiven(poisoned<float>(given.size())),
        gy(to_device(y)) {
    on_cpu.experts = m.kExperts, on_cpu.used = m.kUsed, on_cpu.scale = 1.5f;
    on_cpu.activation = Activation::kClampedSwiGlu;
    on_gpu = on_cpu;
    on_cpu.logits = logits.data(), on_gpu.logits = glogits.data();
    on_cpu.gate = m.gate.on_cpu(), on_cpu.up = m.up.on_cpu(), on_cpu.down = m.down.on_cpu();
    on_gpu.gate = m.gate.on_gpu(), on_gpu.up = m.up.on_gpu(), on_gpu.down = m.down.on_gpu();
    on_cpu.gate_bias = m.gate_bias.data(), on_cpu.down_bias = m.down_bias.data();
    on_gpu.gate_bias = m.ggate_bias.data(), on_gpu.down_bias = m.gdown_bias.data();
    on_cpu.expert = expert.data(), on_cpu.place = place.data(), on_cpu.row = row.data(), on_cpu.end = end.data();
    on_gpu.expert = gexpert.data(), on_gpu.place = gplace.data(), on_gpu.row = grow.data();
    on_gpu.tiles = gtiles.data();
    on_cpu.weight = weight.data(), on_gpu.weight = gweight.data();
    on_cpu.input = input.on_cpu(), on_cpu.hidden = hidden.on_cpu(), on_gpu.hidden = hidden.on_gpu();
    on_cpu.gated = gated.data(), on_cpu.upped = upped.data(), on_cpu.given = given.data();
    on_gpu.gated = ggated.data(), on_gpu.upped = gupped.data(), on_gpu.given = ggiven.data();
  }

  void compare(const std::string& at) {
    equal("chosen experts" + at, expert.data(), to_host(gexpert.data(), pairs).data(), pairs);
    equal("weights of experts" + at, weight.data(), to_host(gweight.data(), pairs).data(), pairs);
    equal("experts" + at, y.data(), to_host(gy.data(), y.size()).data(), y.size());
  }
};

// Feed-forward parts with experts, of few rows and of many.
void experts(Random& rng, TensorType type, uint32_t d_model, uint32_t d_ff) {
  Backends b;
  // Gate and up may be of different types.
  const MixtureBoth weights(rng, type, rng.below(2) ? type : TensorType::kQ8_0, d_model, d_ff);
  for (const uint32_t rows : {1u, 5u, 6u, 11u, 40u, 150u}) {
    MixtureStep step(rng, weights, rows);
    for (uint32_t e = 0; rows > 1 && e < step.on_cpu.experts; ++e)
      step.logits[step.on_cpu.experts + e] = 0.25f;  // all alike
    if (rows == 6) step.logits[2 * step.on_cpu.experts + 4] = arith::infinity();
    step.glogits = to_device(step.logits);
    step.on_gpu.logits = step.glogits.data();
    Inputs normed(rng, rows, d_model);
    b.cpu->quantize(normed.on_cpu(), rows);
    b.gpu->quantize(normed.on_gpu(), rows);
    b.cpu->mix(step.on_cpu, normed.on_cpu(), rows, step.y.data());
    b.gpu->mix(step.on_gpu, normed.on_gpu(), rows, step.gy.data());
    b.gpu->finish();
    const std::string at = " " + name(type) + " rows=" + std::to_string(rows);
    if (rows != 6) step.compare(at);  // NaNs need not have the same bits
    else equal("chosen experts" + at, step.expert.data(), to_host(step.gexpert.data(), step.pairs).data(), step.pairs);
  }
}

// The same from the residual stream on, and back to it.
void routed_experts(Random& rng, TensorType router_type, uint32_t d_model, uint32_t experts, uint32_t used) {
  Backends b;
  const TensorType type = d_model % kSuperBlock ? TensorType::kQ8_0 : TensorType::kQ4_K;
  const MixtureBoth weights(rng, type, type, d_model, kSuperBlock, experts, used);
  const uint32_t kExperts = weights.kExperts;
  const Both router(rng, router_type, kExperts, d_model);
  const std::vector<float> norm = random_values(rng, d_model, 1), bias = random_values(rng, kExperts, 1);
  const auto gnorm = to_device(norm), gbias = to_device(bias);
  auto arrived = to_device(std::vector<uint32_t>{0});
  for (const uint32_t rows : {1u, 2u, 9u, kernels::kMostRouted}) {
    MixtureStep step(rng, weights, rows);
    Inputs x(rng, rows, d_model), normed(rng, rows, d_model);
    std::vector<float> given(step.y.size());
    b.cpu->rmsnorm(x.x.data(), nullptr, rows, norm.data(), 1e-6f, normed.on_cpu());
    const MatmulArgs product[] = {{router.on_cpu(), step.logits.data(), false, bias.data()}};
    b.cpu->matmul(product, normed.on_cpu(), rows);
    b.cpu->mix(step.on_cpu, normed.on_cpu(), rows, given.data());
    b.cpu->add(given.data(), {nullptr, 0, 0.37f}, rows, d_model, step.y.data());
    Activations to = normed.on_gpu();
    to.supers.tiles = nullptr;
    kernels::route_few(
        {x.gx.data(), gnorm.data(), 1e-6f, router.on_gpu(), gbias.data(), step.glogits.data(), to, arrived.data()},
        step.on_gpu, rows, nullptr);
    kernels::mix(step.on_gpu, to, rows, {step.gy.data(), true, 0.37f}, nullptr);
    ORCD_CUDA(cudaDeviceSynchronize());
    const std::string at = ", routed by " + name(router_type) + " to " + std::to_string(used) + " of " +
                           std::to_string(experts) + " rows=" + std::to_string(rows);
    equal("router's logits" + at, step.logits.data(), to_host(step.glogits.data(), step.logits.size()).data(),
          step.logits.size());
    normed.compare("normed" + at);
    step.compare(at);
    const uint32_t none = 0;
    equal("counter" + at, &none, to_host(arrived.data(), 1).data(), 1);
  }
}

}  // namespace

int run(bool quick) {
  Random rng(20261123);
  rows_ops(rng);
  refused_mixtures();
  for (const TensorType t : formats::kAllTypes)
    products(rng, t, quick), many_rows_products(rng, t), fused_products(rng, t), small_batches(rng, t, quick),
        few_rows_products(rng, t, quick), embeddings(rng, t), experts(rng, t, 512, 256);
  // Rows of an odd number of blocks.
  for (const TensorType t : {TensorType::kMXFP4, TensorType::kQ8_0, TensorType::kQ5_1}) experts(rng, t, 288, 96);
  for (const uint32_t width : {96u, 512u, 2048u, 2880u})
    for (const TensorType t : {TensorType::kF32, TensorType::kF16, TensorType::kBF16})
      routed_experts(rng, t, width, 9, 3);
  routed_experts(rng, TensorType::kF32, 4608, 8, 2);
  routed_experts(rng, TensorType::kF32, 256, 128, 8);
  routed_experts(rng, TensorType::kF32, 64, 200, 40);
  warpgroup_products<TensorType::kQ4_K>(rng);
  warpgroup_products<TensorType::kQ5_K>(rng);
  warpgroup_products<TensorType::kQ6_K>(rng);
  all_attention(rng, quick);
  layouts_on_device();
  infinite_values(rng, 14, 2, 64);
  infinite_values(rng, 4, 4, 32);
  infinite_values(rng, 2, 1, 80), infinite_values(rng, 2, 1, 256);
  if (!quick) infinite_values(rng, 8, 1, 128), infinite_values(rng, 6, 3, 96);
  for (const uint32_t vocab : {2u, 33u, 5000u}) broken_logits(rng, vocab);
  if (!quick) broken_logits(rng, 151936);
  samples(rng, 1003);
  samples(rng, quick ? 5000 : 151936);
  for (const uint32_t vocab : {5u, 1003u}) counted_samples(rng, vocab);
  longest_counts(rng);
  for (const uint32_t vocab : {2u, 7u, 33u, 1003u, 4098u}) filtered_samples(rng, vocab, 12);
  filtered_samples(rng, 1001, 150);
  filtered_samples(rng, quick ? 9001 : 151936, 12);
  return report("ops_equality");
}

}  // namespace orcd::testing

// --quick: fewer shapes, for runs under a sanitizer.
int main(int argc, char** argv) {
  orcd::testing::layouts_on_host();
  if (const int code = orcd::testing::need_gpu("ops_equality")) {
    if (orcd::testing::failures) return orcd::testing::report("ops_equality, what needs no GPU");
    return code < 0 ? 0 : code;
  }
  try {
    return orcd::testing::run(argc > 1 && std::string(argv[1]) == "--quick");
  } catch (const orcd::Error& e) {
    std::printf("FAILED ops_equality: %s\n", e.what());
    return 1;
  }
}
