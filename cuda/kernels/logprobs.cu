// Logarithms of the probabilities that the logits give, before penalties, temperature and masks: one block a draw, which
// walks over the logits once for the largest, once for the sum, and once for each of the most likely tokens.
#include "arith/mass.h"
#include "device/check.h"
#include "kernels/sample.cuh"
#include "kernels/sample_cut.cuh"

namespace orcd::kernels {
namespace {

// Rank of the best token whose rank is below `limit`; 0: there is none. All threads get it.
__device__ unsigned long long best_below(const float* logits, uint32_t vocab, unsigned long long limit) {
  unsigned long long best = 0;
  for (uint32_t id = threadIdx.x; id < vocab; id += kCutThreads) {
    const unsigned long long rank = pack_score_id(logits[id], id);
    if (rank < limit) best = max(best, rank);
  }
  return block_max(best);
}

__global__ void __launch_bounds__(kCutThreads)
    logprobs_kernel(const float* logits_all, uint32_t vocab, const __grid_constant__ LogprobBatch wanted,
                    const uint32_t* sampled, Logprobs* out_all) {
  const uint32_t row = wanted.row[blockIdx.x], count = min(wanted.top[blockIdx.x], vocab);
  const uint32_t token = __ldcv(sampled + row);
  if (token == kBrokenLogits) return;
  const float* logits = logits_all + uint64_t(row) * vocab;
  unsigned long long rank = best_below(logits, vocab, ~0ull);
  const float top = unordered(uint32_t(rank >> 32));
  unsigned long long own = 0;
  for (uint32_t id = threadIdx.x; id < vocab; id += kCutThreads) own += mass(logits[id], top);
  const unsigned long long total = block_sums(own).all;
  const auto write = [&](uint32_t id) { return arith::logprob(logits[id], top, total); };
  Logprobs& out = out_all[row];
  if (threadIdx.x == 0) {
    out.of_sampled = write(token);
    out.count = count;
  }
  for (uint32_t i = 0; i < count; ++i) {
    if (threadIdx.x == 0) {
      const uint32_t id = 0xffffffffu - uint32_t(rank);
      out.token[i] = id;
      out.logprob[i] = write(id);
    }
    if (i + 1 < count) rank = best_below(logits, vocab, rank);
  }
}

}  // namespace

void logprobs(const float* logits, uint32_t vocab, const LogprobBatch& wanted, const uint32_t* sampled, Logprobs* out,
              cudaStream_t stream) {
  logprobs_kernel<<<wanted.count, kCutThreads, 0, stream>>>(logits, vocab, wanted, sampled, out);
  ORCD_CUDA(cudaGetLastError());
}

}  // namespace orcd::kernels
