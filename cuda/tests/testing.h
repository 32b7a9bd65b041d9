// What the GPU test programs share: random inputs, device memory with poison, and bit comparison.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "device/buffer.h"
#include "orcd/engine.h"

namespace orcd::testing {

class Random {  // splitmix64
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
  }
  uint32_t below(uint32_t n) { return uint32_t((next() >> 32) * n >> 32); }
  float uniform() { return float(next() >> 40) * 0x1p-24f * 2.0f - 1.0f; }  // [-1, 1)
  float normalish() { return (uniform() + uniform() + uniform()) * 0.9f; }

 private:
  uint64_t state_;
};

// A model of these sizes in which nothing is out of the ordinary.
inline ModelShape shape_of(uint32_t n_layers, uint32_t d_model, uint32_t d_ff, uint32_t n_heads, uint32_t n_kv_heads,
                           uint32_t head_dim, uint32_t vocab, RopeStyle style = RopeStyle::kNeox) {
  ModelShape s = {};
  s.n_layers = n_layers, s.d_model = d_model, s.d_ff = d_ff, s.vocab = vocab;
  s.n_heads = n_heads, s.n_kv_heads = n_kv_heads, s.head_dim = head_dim;
  s.rms_eps = 1e-6f;
  s.embedding_scale = s.residual_scale = s.logit_scale = s.expert_scale = 1;
  for (LayerKind& kind : s.kinds) {
    kind.rope.pairs = head_dim / 2;
    kind.rope.style = style;
    kind.rope.base = 10000;
    kind.rope.factor = kind.rope.attn_factor = 1;
    kind.rope.rounds_bounds = true;
  }
  return s;
}

inline int failures = 0, checks = 0;

// Counts and reports the first place where two arrays differ in a bit.
template <class T>
bool equal(const std::string& what, const T* expected, const T* got, size_t n) {
  ++checks;
  for (size_t i = 0; i < n; ++i) {
    if (std::memcmp(&expected[i], &got[i], sizeof(T)) == 0) continue;
    ++failures;
    if (failures <= 20)
      std::printf("DIFFERENT %s at %zu of %zu: expected %.9g, got %.9g\n", what.c_str(), i, n, double(expected[i]),
                  double(got[i]));
    return false;
  }
  return true;
}

// Device memory filled from the host, or with a pattern that no result contains.
template <class T>
device::Buffer<T> to_device(const std::vector<T>& host) {
  device::Buffer<T> b(host.size());
  b.upload(host);
  ORCD_CUDA(cudaDeviceSynchronize());  // the streams that use it do not wait for this one
  return b;
}

template <class T>
device::Buffer<T> poisoned(size_t n) {
  device::Buffer<T> b(n);
  ORCD_CUDA(cudaMemset(b.data(), 0xfb, n * sizeof(T)));
  ORCD_CUDA(cudaDeviceSynchronize());  // likewise
  return b;
}

// Bytes that are sound values of every type: no part of them is a NaN or an infinity as a float16.
static __global__ void fill_sound(uint32_t* words, uint64_t n) {
  for (uint64_t i = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += uint64_t(gridDim.x) * blockDim.x) {
    uint32_t x = uint32_t(i) * 2654435761u ^ uint32_t(i >> 32);
    x ^= x >> 15;
    words[i] = x * 2246822519u & 0x2f2f2f2fu;
  }
}

inline device::Buffer<uint8_t> filled(uint64_t bytes) {
  device::Buffer<uint8_t> b((bytes + 255) / 256 * 256);
  fill_sound<<<1024, 256>>>(reinterpret_cast<uint32_t*>(b.data()), b.size() / 4);
  ORCD_CUDA(cudaDeviceSynchronize());
  return b;
}

template <class T>
std::vector<T> to_host(const T* device, size_t n) {
  std::vector<T> host(n);
  ORCD_CUDA(cudaMemcpy(host.data(), device, n * sizeof(T), cudaMemcpyDeviceToHost));
  return host;
}

inline int report(const char* program) {
  std::printf("%s: %d checks, %d failed\n", program, checks, failures);
  return failures ? 1 : 0;
}

// 0 with a GPU; otherwise the exit code to leave with, and why.
inline int need_gpu(const char* program) {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess && count > 0) return 0;
  const char* required = std::getenv("ORCD_REQUIRE_GPU");
  const bool must = required && std::string(required) == "1";
  std::printf("%s %s: no usable GPU on this machine\n", must ? "FAILED" : "SKIPPED", program);
  return must ? 1 : -1;
}

}  // namespace orcd::testing
