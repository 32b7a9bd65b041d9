#include <memory>
#include <string>

#include "engine/engine.h"
#include "gpu/executor.h"
#include "gpu/kv_memory.h"
#include "gpu/unfit.h"
#include "gpu/weights.h"
#include "kernels/pdl.h"

namespace orcd {
namespace gpu {
namespace {

class CudaBackend final : public Backend {
  cudaDeviceProp properties() const {
    cudaDeviceProp p = {};
    ORCD_CUDA(cudaGetDeviceProperties(&p, ordinal_));
    return p;
  }

  // What the attention kernels can't do is said before anything is loaded.
  void check_heads(const ModelShape& shape) const {
    if (shape.n_heads / shape.n_kv_heads > kernels::kMostHeadsPerKv)
      throw Error(ErrorKind::kInvalid, std::to_string(shape.n_heads) + " query heads on " +
                                           std::to_string(shape.n_kv_heads) + " KV heads: CUDA takes up to " +
                                           std::to_string(kernels::kMostHeadsPerKv) + " on each");
    const size_t needed = kernels::prefill_shared_bytes(shape.head_dim);
    int most = 0;
    ORCD_CUDA(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, ordinal_));
    if (needed > size_t(most))
      throw Error(ErrorKind::kInvalid, "head_dim " + std::to_string(shape.head_dim) + " needs " +
                                           std::to_string(needed) +
                                           " bytes of shared memory a block; this device has " + std::to_string(most));
  }

 public:
  explicit CudaBackend(int ordinal) : ordinal_(ordinal) {}

  const char* name() const override { return "cuda"; }
  uint32_t layout_version() const override { return kernels::layout_version(); }

  std::string device_name() const override { return properties().name; }

  DeviceInfo info() const override {
    const cudaDeviceProp p = properties();
    int runtime = 0;  // 13.0 is 13000
    ORCD_CUDA(cudaRuntimeGetVersion(&runtime));
    size_t free = 0, total = 0;
    ORCD_CUDA(cudaMemGetInfo(&free, &total));
    return {uint32_t(10 * p.major + p.minor), uint32_t(runtime / 1000 * 10 + runtime % 1000 / 10), total, free};
  }

  uint32_t page_layout(const ModelShape& shape) const override { return kernels::page_layout(shape.head_dim); }

  uint64_t kv_bytes(const ModelShape& shape, const EngineOptions& options) const override {
    check_shape(shape);
    check_options(options);
    return gpu::kv_bytes(shape, options);
  }

  uint64_t required_bytes(const ModelShape& shape, std::span<const TensorDesc>, uint64_t image_bytes,
                          const EngineOptions& options) const override {
    check_shape(shape);
    check_heads(shape);
    check_options(options);
    return image_bytes + gpu::kv_bytes(shape, options) + table_bytes(shape, options) +
           scratch_bytes(shape, options.max_batch_tokens, max_samples(options), scratch_of_device());
  }

  std::unique_ptr<Staging> staging(size_t bytes) const override { return std::make_unique<PinnedStaging>(bytes); }

  std::unique_ptr<Weights> allocate(uint64_t image_bytes) const override {
    return VmmWeights::allocate(ordinal_, image_bytes);
  }

  std::unique_ptr<Weights> attach(int fd, uint64_t image_bytes) const override {
    return VmmWeights::attach(ordinal_, fd, image_bytes);
  }

  std::unique_ptr<KvMemory> allocate_kv(uint64_t bytes) const override {
    return VmmKvMemory::allocate(ordinal_, bytes);
  }

  std::unique_ptr<KvMemory> attach_kv(int fd, uint64_t bytes) const override {
    return VmmKvMemory::attach(ordinal_, fd, bytes);
  }

  std::unique_ptr<Engine> engine(const ModelShape& shape, std::span<const TensorDesc> tensors, const Weights& weights,
                                 const KvMemory& memory, const EngineOptions& options) const override {
    const auto* image = dynamic_cast<const VmmWeights*>(&weights);
    const auto* pool = dynamic_cast<const VmmKvMemory*>(&memory);
    if (!pool) throw Error(ErrorKind::kInvalid, "this KV pool belongs to another backend");
    if (!image) throw Error(ErrorKind::kInvalid, "these weights belong to another backend");
    if (!image->sealed()) throw Error(ErrorKind::kInvalid, "the weights image is not sealed");
    if (options.float_activations) throw Error(ErrorKind::kInvalid, "float_activations is for the CPU backend");
    check_options(options);
    Model model = view_model(shape, tensors, image->image(), image->bytes());
    const uint64_t kv = gpu::kv_bytes(shape, options);
    if (pool->bytes() != kv)
      throw Error(ErrorKind::kInvalid,
                  "the KV pool has " + std::to_string(pool->bytes()) + " bytes, its pages take " + std::to_string(kv));
    auto executor = std::make_unique<CudaExecutor>(model, options, ordinal_, image->image(), pool->data());
    return std::make_unique<Engine>(std::move(model), options, std::move(executor),
                                    image->bytes() + kv + table_bytes(shape, options));
  }

 private:
  int ordinal_;
};

}  // namespace
}  // namespace gpu

namespace {

// The latest CUDA that the driver knows, 13.0 as 13000; 0 without a driver.
int driver_version() {
  int version = 0;
  cudaDriverGetVersion(&version);
  return version;
}

}  // namespace

std::unique_ptr<Backend> cuda_backend(int ordinal) {
  int count = 0;
  const cudaError_t code = cudaGetDeviceCount(&count);
  if (code == cudaErrorInsufficientDriver || code == cudaErrorStubLibrary)
    throw Error(ErrorKind::kDevice, gpu::unfit_driver(driver_version()));
  if (code == cudaErrorNoDevice || (code == cudaSuccess && count == 0))
    throw Error(ErrorKind::kDevice, "no NVIDIA GPU is visible on this machine; use --device cpu to run without");
  if (code != cudaSuccess)
    throw Error(ErrorKind::kDevice, std::string("CUDA can't be used: ") + cudaGetErrorString(code));
  if (ordinal < 0 || ordinal >= count)
    throw Error(ErrorKind::kDevice, "cuda:" + std::to_string(ordinal) + " is not there; this machine has " +
                                        std::to_string(count) + " device(s), numbered from 0");
  ORCD_CUDA(cudaSetDevice(ordinal));
  ORCD_CUDA(cudaFree(nullptr));  // creates the context now, where an error can still be told plainly
  const cudaError_t loads = kernels::loads();
  if (loads == cudaErrorNoKernelImageForDevice || loads == cudaErrorUnsupportedPtxVersion) {
    cudaDeviceProp p = {};
    ORCD_CUDA(cudaGetDeviceProperties(&p, ordinal));
    throw Error(ErrorKind::kDevice, gpu::unfit_device(p.name, p.major, p.minor, driver_version()));
  }
  ORCD_CUDA(loads);
  return std::make_unique<gpu::CudaBackend>(ordinal);
}

}  // namespace orcd
