#include "bridge.h"

#include <fcntl.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "cuda-worker/src/ffi.rs.h"

namespace orcd::bridge {
namespace {

TensorDesc desc_of(const Tensor& t) {
  return {static_cast<TensorRole>(t.role), t.layer, static_cast<TensorType>(t.ty), t.rows, t.cols, t.offset, t.bytes};
}

std::vector<TensorDesc> descs_of(rust::Slice<const Tensor> tensors) {
  std::vector<TensorDesc> descs;
  descs.reserve(tensors.size());
  for (const Tensor& t : tensors) descs.push_back(desc_of(t));
  return descs;
}

ModelShape shape_of(const Shape& s) {
  return {s.n_layers,   s.d_model,   s.d_ff, s.n_heads, s.n_kv_heads, s.head_dim, s.vocab,
          s.interleaved ? RopeStyle::kInterleaved : RopeStyle::kNeox, s.rope_base, s.rms_eps};
}

EngineOptions options_of(const Options& o) {
  return {o.slots, o.context, o.max_batch_tokens, o.threads, o.kv_limit_tokens, o.float_activations};
}

// Makes something new: without memory for it nothing has changed, so that is no loss of the device.
template <class Make>
auto make(const char* what, const Make& f) {
  try {
    return f();
  } catch (const std::bad_alloc&) {
    throw Error(ErrorKind::kOutOfMemory, std::string("host memory for ") + what);
  } catch (const std::length_error&) {
    throw Error(ErrorKind::kOutOfMemory, std::string("host memory for ") + what);
  }
}

}  // namespace

rust::Slice<uint8_t> StagingMemory::bytes() {
  const std::span<uint8_t> b = staging_->bytes();
  return {b.data(), b.size()};
}

uint64_t WeightsImage::write(const Tensor& tensor, uint64_t first_row, rust::Slice<const uint8_t> raw) {
  return weights_->write(desc_of(tensor), first_row, {raw.data(), raw.size()});
}

void WeightsImage::read(const Tensor& tensor, uint64_t first_row, rust::Slice<uint8_t> raw) const {
  weights_->read(desc_of(tensor), first_row, {raw.data(), raw.size()});
}

int32_t WeightsImage::share() const {
  const int fd = fcntl(weights_->fd(), F_DUPFD_CLOEXEC, 3);
  if (fd < 0) throw Error(ErrorKind::kOutOfMemory, std::string("a descriptor of the weights: ") + std::strerror(errno));
  return fd;
}

void RunningEngine::step(rust::Slice<const StepChunk> chunks, rust::Slice<const uint32_t> tokens,
                         rust::Slice<uint32_t> drawn) {
  std::vector<Sampling> sampling;
  std::vector<Chunk> list;
  sampling.reserve(chunks.size());  // the chunks point into it
  list.reserve(chunks.size());
  size_t at = 0;
  for (const StepChunk& c : chunks) {
    if (c.n_tokens > tokens.size() - at) throw Error(ErrorKind::kInvalid, "fewer tokens than the chunks have");
    const Sampling* sample = nullptr;
    if (c.draw) {
      sampling.push_back({c.temperature, c.top_p, c.top_k, c.min_p, c.repetition_penalty, c.seed});
      sample = &sampling.back();
    }
    list.push_back({c.slot, c.start, {tokens.data() + at, c.n_tokens}, sample});
    at += c.n_tokens;
  }
  engine_->step(list, {drawn.data(), drawn.size()}, [] { return abandoned(); });
}

Device DeviceBackend::info() const {
  const DeviceInfo i = backend_->info();
  return {i.name, i.compute, i.runtime_version, i.memory_total, i.memory_free};
}

uint64_t DeviceBackend::required_bytes(const Shape& shape, rust::Slice<const Tensor> tensors, uint64_t image_bytes,
                                       const Options& options) const {
  return backend_->required_bytes(shape_of(shape), descs_of(tensors), image_bytes, options_of(options));
}

std::unique_ptr<StagingMemory> DeviceBackend::staging(size_t bytes) const {
  return make("the buffers that the file is read into", [&] { return std::make_unique<StagingMemory>(backend_->staging(bytes)); });
}

std::unique_ptr<WeightsImage> DeviceBackend::allocate(uint64_t image_bytes) const {
  return make("the weights", [&] { return std::make_unique<WeightsImage>(backend_->allocate(image_bytes)); });
}

std::unique_ptr<WeightsImage> DeviceBackend::attach(int32_t fd, uint64_t image_bytes) const {
  return std::make_unique<WeightsImage>(backend_->attach(fd, image_bytes));
}

std::unique_ptr<RunningEngine> DeviceBackend::engine(const Shape& shape, rust::Slice<const Tensor> tensors,
                                                     std::unique_ptr<WeightsImage> weights,
                                                     const Options& options) const {
  auto engine = make("the engine", [&] {
    return backend_->engine(shape_of(shape), descs_of(tensors), weights->get(), options_of(options));
  });
  return std::make_unique<RunningEngine>(std::move(weights), std::move(engine));
}

std::unique_ptr<DeviceBackend> cpu_backend() { return std::make_unique<DeviceBackend>(orcd::cpu_backend()); }

std::unique_ptr<DeviceBackend> cuda_backend([[maybe_unused]] uint32_t ordinal) {
#if defined(ORCD_WITH_CUDA)
  return std::make_unique<DeviceBackend>(orcd::cuda_backend(static_cast<int>(ordinal)));
#else
  throw Error(ErrorKind::kDevice, "this build has no CUDA backend: rebuild with --features cuda, or use --device cpu");
#endif
}

}  // namespace orcd::bridge
