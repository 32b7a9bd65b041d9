// What the kernels that draw tokens share: the logits they look at, the order of tokens, and how the blocks of
// one draw settle on the best.
#pragma once

#include <cstdint>

#include "arith/hd.h"
#include "arith/philox.h"
#include "arith/sampling.h"
#include "kernels/launch.h"
#include "kernels/warp.cuh"

namespace orcd::kernels {

inline constexpr uint32_t kSampleThreads = 256;

// Blocks for one of n samples: so many that a thread takes four tokens, fewer where many samples fill the device.
inline uint32_t blocks_per_draw(uint32_t vocab, uint32_t n) {
  const uint32_t all = (vocab + 4 * kSampleThreads - 1) / (4 * kSampleThreads);
  return min(all, max(32u, 1024u / n));
}

// Order-preserving map of floats to integers; -0 and +0 are equal, NaN is below everything.
__device__ __forceinline__ uint32_t ordered(float x) {
  if (x != x) return 0;
  const uint32_t bits = x == 0.0f ? 0 : arith::bits_of(x);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// The float again; of -0 it is +0.
__device__ __forceinline__ float unordered(uint32_t o) {
  return arith::float_of(o & 0x80000000u ? o & 0x7fffffffu : ~o);
}

// Larger is better: score first, then the lower id.
__device__ __forceinline__ unsigned long long pack_score_id(float score, uint32_t id) {
  return static_cast<unsigned long long>(ordered(score)) << 32 | (0xffffffffu - id);
}

// Rank of what a broken row of logits has in place of a best score; no token's is as high.
inline constexpr unsigned long long kBrokenRank = ~0ull;

// Looks at logits as they come along.
struct LogitsSeen {
  uint32_t all = 0;     // bits of all of them
  bool broken = false;  // one is infinite or NaN

  __device__ __forceinline__ void see(float logit) {
    constexpr uint32_t kExponent = 0x7f800000u;
    const uint32_t bits = arith::bits_of(logit);
    all |= bits;
    broken |= (bits & kExponent) == kExponent;
  }
  __device__ __forceinline__ bool nonzero() const { return all << 1 != 0; }
};

// One draw's factor, the tokens that its penalties cover, those that its mask leaves, and its biases.
struct Draw {
  float inverse_temperature;    // 0: greedy
  const uint32_t *seen, *mask;  // (words); no mask: null
  const uint32_t* counts;       // (count_words)
  const TokenBias* biases;      // ids ascending
  const uint32_t* last;         // the step's last token before what is sampled

  __device__ __forceinline__ Draw(const SampleArgs& d, const SampleSets& all)
      : inverse_temperature(arith::inverse_temperature(d.sampling)),
        seen(all.seen + uint64_t(d.slot) * all.words),
        mask(d.masked ? all.masks + uint64_t(d.row) * all.words : nullptr),
        counts(all.counts + uint64_t(d.slot) * all.count_words),
        biases(all.biases + uint64_t(d.row) * kMostBiases),
        last(all.token + d.last) {}

  __device__ __forceinline__ bool has_seen(uint32_t id, uint32_t unmarked) const {
    if (seen[id / 32] >> id % 32 & 1u) return true;
#pragma unroll 1
    for (uint32_t i = 0; i < unmarked; ++i)
      if (*(last - i) == id) return true;
    return false;
  }

  // How often the token is in the output.
  __device__ __forceinline__ uint32_t count(uint32_t id, uint32_t uncounted) const {
    uint32_t count = counts[id / 2] >> id % 2 * 16 & 0xffffu;
#pragma unroll 1
    for (uint32_t i = 0; i < uncounted; ++i) count += *(last - i) == id;
    return count;
  }

  // The logit with the token's bias, if there is one among the first n.
  __device__ __forceinline__ float biased(float logit, uint32_t id, uint32_t n) const {
    uint32_t low = 0;
#pragma unroll 1  // few samples come here: registers rather than speed
    for (uint32_t high = n; low < high;) {
      const uint32_t middle = (low + high) / 2;
      if (biases[middle].token < id) low = middle + 1;
      else high = middle;
    }
    return low < n && biases[low].token == id ? arith::biased(logit, biases[low].bias) : logit;
  }
};

// Logit after penalties, bias and temperature; NaN, which is below everything, where the mask leaves it out.
__device__ __forceinline__ float scaled(const SampleArgs& d, const Draw& draw, uint32_t id, float logit) {
  if (draw.mask && !(draw.mask[id / 32] >> id % 32 & 1u)) return arith::float_of(0x7fc00000u);
  if (arith::penalizes(d.sampling) && draw.has_seen(id, d.unmarked)) logit = arith::penalized(logit, d.sampling);
  if (arith::counts(d.sampling)) logit = arith::discounted(logit, draw.count(id, d.uncounted), d.sampling);
  if (d.biases) logit = draw.biased(logit, id, d.biases);
  return draw.inverse_temperature != 0.0f ? logit * draw.inverse_temperature : logit;
}

// The random words of four neighboring tokens.
__device__ __forceinline__ arith::PhiloxBlock random_words(const SampleArgs& d, uint32_t group) {
  const uint64_t seed = d.sampling.seed;
  return arith::philox4x32(uint32_t(seed), uint32_t(seed >> 32), group, d.position, d.sampling.choice, 0);
}

// The largest of a block's values; all threads get it.
__device__ inline unsigned long long block_max(unsigned long long best) {
  __shared__ unsigned long long of_warp[32];
#pragma unroll
  for (int stride = 16; stride; stride /= 2) best = max(best, __shfl_xor_sync(kFull, best, stride));
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = best;
  __syncthreads();
  best = of_warp[0];
  for (uint32_t w = 1; w < blockDim.x / 32; ++w) best = max(best, of_warp[w]);
  __syncthreads();
  return best;
}

// Adds the best of this block to that of the draw's others; the last block to come writes the token, and leaves
// `best` and `arrived` zero. Logits of which no block has seen one that differs from zero are broken.
__device__ inline void block_argmax(unsigned long long mine, bool nonzero, unsigned long long* best, uint32_t* arrived,
                                    uint32_t* sampled) {
  constexpr uint32_t kNonzeroShift = 16;  // blocks that came are counted below it: 2^24 tokens take 2^14 of them
  nonzero = __syncthreads_or(nonzero);
  mine = block_max(mine);
  if (threadIdx.x) return;
  atomicMax(best, mine);
  __threadfence();
  const uint32_t one = 1u | uint32_t(nonzero) << kNonzeroShift, came = atomicAdd(arrived, one) + one;
  if ((came & 0xffffu) < gridDim.x) return;
  __threadfence();
  const unsigned long long all = atomicExch(best, 0ull);
  *sampled = all && all != kBrokenRank && came >> kNonzeroShift ? 0xffffffffu - uint32_t(all) : kBrokenLogits;
  *arrived = 0;
}

}  // namespace orcd::kernels
