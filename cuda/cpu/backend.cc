#include <sys/sysinfo.h>

#include <memory>
#include <string>
#include <thread>

#include "cpu/executor.h"
#include "cpu/kv_cache.h"
#include "cpu/pack.h"
#include "cpu/processor.h"
#include "cpu/weights.h"
#include "engine/engine.h"
#include "engine/model.h"
#include "engine/scratch.h"

namespace orcd {
namespace cpu {

Isa best_isa() {
#if defined(__x86_64__)
  return has_avx512() ? Isa::kAvx512 : Isa::kAvx2;
#else
  return Isa::kPortable;
#endif
}

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::kAvx512: return "avx512-vnni";
    case Isa::kAvx2: return "avx2";
    default: return "portable";
  }
}

Kernels kernels(Isa isa) {
  switch (isa) {
#if defined(__x86_64__)
    case Isa::kAvx512: return avx512_kernels();
    case Isa::kAvx2: return avx2_kernels();
#endif
    default: return portable_kernels();
  }
}

namespace {

class CpuBackend final : public Backend {
 public:
  const char* name() const override { return "cpu"; }

  uint32_t layout_version() const override { return cpu::layout_version(); }

  std::string device_name() const override {
    const std::string threads = std::to_string(std::thread::hardware_concurrency());
    return "cpu (" + threads + " threads, " + isa_name(best_isa()) + ")";
  }

  DeviceInfo info() const override {
    struct sysinfo memory{};
    sysinfo(&memory);
    DeviceInfo info{};
    info.memory_total = uint64_t{memory.totalram} * memory.mem_unit;
    info.memory_free = uint64_t{memory.freeram + memory.bufferram} * memory.mem_unit;
    return info;
  }

  uint32_t page_layout(const ModelShape& shape) const override { return cpu::page_layout(shape.head_dim); }

  uint64_t kv_bytes(const ModelShape& shape, const EngineOptions& options) const override {
    check_shape(shape);
    check_options(options);
    return KvCache::bytes(shape, SequenceStore::total_pages(options));
  }

  uint64_t required_bytes(const ModelShape& shape, std::span<const TensorDesc>, uint64_t image_bytes,
                          const EngineOptions& options) const override {
    check_shape(shape);
    check_options(options);
    return image_bytes + kv_bytes(shape, options) +
           scratch_bytes(shape, options.max_batch_tokens, max_samples(options), ScratchOf::kCpu);
  }

  std::unique_ptr<Staging> staging(size_t bytes) const override { return std::make_unique<HostStaging>(bytes); }

  std::unique_ptr<Weights> allocate(uint64_t image_bytes) const override { return MemfdWeights::allocate(image_bytes); }

  std::unique_ptr<Weights> attach(int fd, uint64_t image_bytes) const override {
    return MemfdWeights::attach(fd, image_bytes);
  }

  std::unique_ptr<KvMemory> allocate_kv(uint64_t bytes) const override { return MemfdKvMemory::allocate(bytes); }

  std::unique_ptr<KvMemory> attach_kv(int fd, uint64_t bytes) const override {
    return MemfdKvMemory::attach(fd, bytes);
  }

  std::unique_ptr<Engine> engine(const ModelShape& shape, std::span<const TensorDesc> tensors, const Weights& weights,
                                 const KvMemory& memory, const EngineOptions& options) const override {
    const auto* image = dynamic_cast<const MemfdWeights*>(&weights);
    const auto* pool = dynamic_cast<const MemfdKvMemory*>(&memory);
    if (!pool) throw Error(ErrorKind::kInvalid, "this KV pool belongs to another backend");
    if (!image) throw Error(ErrorKind::kInvalid, "these weights belong to another backend");
    if (!image->sealed()) throw Error(ErrorKind::kInvalid, "the weights image is not sealed");
    check_options(options);
    Model model = view_model(shape, tensors, image->image(), image->bytes());
    auto executor = std::make_unique<CpuExecutor>(model, options, *pool, best_isa());
    return std::make_unique<Engine>(std::move(model), options, std::move(executor),
                                    image->bytes() + kv_bytes(shape, options));
  }
};

}  // namespace
}  // namespace cpu

std::unique_ptr<Backend> cpu_backend() {
#if defined(__x86_64__)
  if (!cpu::has_avx2()) {
    throw Error(ErrorKind::kInvalid,
                "the CPU backend needs AVX2, FMA and F16C (x86-64-v3), this processor lacks one of them");
  }
#endif
  return std::make_unique<cpu::CpuBackend>();
}

}  // namespace orcd
