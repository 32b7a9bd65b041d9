// Drawing tokens without top-k, top-p or min-p: every token's score is independent of the others, and the
// largest wins. Many blocks, one 64-bit maximum.
#include "arith/gumbel.h"
#include "kernels/pdl.h"
#include "kernels/sample.cuh"

namespace orcd::kernels {
namespace {

// A thread takes four neighboring tokens at a time: one Philox block serves them.
__global__ void __launch_bounds__(kSampleThreads)
    sample_kernel(const float* logits, uint32_t vocab, const __grid_constant__ SampleBatch samples,
                  const SampleArgs* stored, const SampleSets sets, unsigned long long* best, uint32_t* arrived,
                  uint32_t* sampled) {
  pdl_wait();
  const SampleArgs d = stored ? stored[blockIdx.y] : samples.draw[blockIdx.y];
  if (d.filtered) return;
  const float* row = logits + uint64_t(d.row) * vocab;
  const Draw draw(d, sets);
  unsigned long long mine = 0;
  LogitsSeen seen_logits;
  const uint32_t step = gridDim.x * kSampleThreads * 4;
  for (uint32_t base = (blockIdx.x * kSampleThreads + threadIdx.x) * 4; base < vocab; base += step) {
    arith::PhiloxBlock random = {};
    if (draw.inverse_temperature != 0.0f) random = random_words(d, base / 4);
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) {
      if (base + i >= vocab) break;
      const float logit = row[base + i];
      seen_logits.see(logit);
      float score = scaled(d, draw, base + i, logit);
      if (draw.inverse_temperature != 0.0f) score = score + arith::gumbel(random.word[i]);
      mine = max(mine, pack_score_id(score, base + i));
    }
  }
  if (seen_logits.broken) mine = kBrokenRank;
  block_argmax(mine, seen_logits.nonzero(), &best[blockIdx.y], &arrived[blockIdx.y], &sampled[blockIdx.y]);
}

}  // namespace

void sample(const float* logits, uint32_t vocab, const SampleBatch& samples, const SampleArgs* stored, uint32_t n,
            const SampleSets& sets, unsigned long long* best, uint32_t* arrived, uint32_t* sampled, bool pdl,
            cudaStream_t stream) {
  const dim3 blocks(blocks_per_draw(vocab, n), n);
  launch_kernel(sample_kernel, {blocks, kSampleThreads}, pdl, stream, logits, vocab, samples, stored, sets, best,
                arrived, sampled);
}

}  // namespace orcd::kernels
