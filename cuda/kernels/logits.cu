// What logits are beside the last product: scaled, and capped.
#include "arith/tanh.h"
#include "kernels/launch.h"
#include "kernels/pdl.h"
#include "kernels/warp.cuh"

namespace orcd::kernels {
namespace {

constexpr uint32_t kThreads = 256;

__global__ void finish_kernel(float scale, float cap, uint64_t n, float* l) {
  pdl_launch_dependents();
  pdl_wait();
  const uint64_t i = uint64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n) return;
  const float x = l[i] * scale;
  l[i] = cap == 0.0f ? x : arith::soft_cap(x, cap, __fdiv_rn(1.0f, cap));
}

}  // namespace

void finish_logits(float scale, float cap, uint32_t rows, uint32_t vocab, float* l, cudaStream_t stream) {
  const uint64_t n = uint64_t{rows} * vocab;
  launch_kernel(finish_kernel, {uint32_t((n + kThreads - 1) / kThreads), kThreads}, true, stream, scale, cap, n, l);
}

}  // namespace orcd::kernels
