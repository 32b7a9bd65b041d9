// The sets of tokens that penalties cover.
#include "device/check.h"
#include "kernels/launch.h"

namespace orcd::kernels {
namespace {

__global__ void mark_kernel(const __grid_constant__ MarkBatch tokens, uint32_t* seen, uint32_t words) {
  const uint32_t i = threadIdx.x;
  if (i >= tokens.count) return;
  atomicOr(&seen[uint64_t(tokens.slot[i]) * words + tokens.token[i] / 32], 1u << tokens.token[i] % 32);
}

}  // namespace

void mark(const MarkBatch& tokens, uint32_t* seen, uint32_t words, cudaStream_t stream) {
  mark_kernel<<<1, MarkBatch::kMost, 0, stream>>>(tokens, seen, words);
  ORCD_CUDA(cudaGetLastError());
}

}  // namespace orcd::kernels
