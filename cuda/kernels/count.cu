// How often the tokens of an output are in it.
#include "arith/sampling.h"
#include "device/check.h"
#include "kernels/launch.h"

namespace orcd::kernels {
namespace {

// A count that is as large as it gets stays so: one more would be its neighbor's.
__global__ void count_kernel(const __grid_constant__ MarkBatch tokens, uint32_t* counts, uint32_t words) {
  const uint32_t i = threadIdx.x;
  if (i >= tokens.count) return;
  const uint32_t id = tokens.token[i], shift = id % 2 * 16;
  uint32_t* word = &counts[uint64_t(tokens.slot[i]) * words + id / 2];
  for (uint32_t before = *word; (before >> shift & 0xffffu) < arith::kMostCounted;) {
    const uint32_t found = atomicCAS(word, before, before + (1u << shift));
    if (found == before) return;
    before = found;
  }
}

}  // namespace

void count(const MarkBatch& tokens, uint32_t* counts, uint32_t words, cudaStream_t stream) {
  count_kernel<<<1, MarkBatch::kMost, 0, stream>>>(tokens, counts, words);
  ORCD_CUDA(cudaGetLastError());
}

}  // namespace orcd::kernels
