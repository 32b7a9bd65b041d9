// Where top-k and top-p cut the order of tokens (t descending, id ascending): one block of 1024 threads finds
// the bin of the cut in a histogram, and the token in that bin alone. Counts and weights are integers, so no
// order of summation can matter.
#pragma once

#include "arith/mass.h"
#include "kernels/sample.cuh"

namespace orcd::kernels {

inline constexpr uint32_t kCutThreads = 1024;
inline constexpr uint32_t kListed = 4096;  // tokens that a bin may have to be sorted in shared memory
static_assert(kListed == 4 * kCutThreads && kFilterBins == 4 * kCutThreads, "four a thread");

// Logits over temperature of one draw.
struct Tokens {
  const float4* t;  // (quads); NaN is no token
  uint32_t quads;
  float top;  // the largest
};

// Number of a token's bin, growing with its distance from the top: 256 bins for each doubling, from 2^-6, where
// weights hardly differ, to 2^10. So wide a range serves temperatures far from 1 too. kFilterBins: in none.
__device__ __forceinline__ uint32_t bin_of(float t, float top) {
  if (t != t) return kFilterBins;
  if (t == top) return 0;  // both infinite, too
  constexpr uint32_t kShift = 15, kFirst = (127u - 6u) << (23 - kShift);
  const uint32_t distance = arith::bits_of(top - t) >> kShift;  // positive floats order like their bits
  return distance < kFirst ? 0 : min(distance - kFirst, kFilterBins - 1);
}

using arith::mass;

// Calls f(t, id) for all tokens, and for NaNs behind them: whole warps call together.
template <class F>
__device__ __forceinline__ void each_token(const Tokens& tokens, const F& f) {
  constexpr uint32_t kAhead = 4;  // loads under way
  for (uint32_t base = 0; base < tokens.quads; base += kAhead * kCutThreads) {
    float4 v[kAhead];
#pragma unroll
    for (uint32_t i = 0; i < kAhead; ++i) {
      const uint32_t quad = base + i * kCutThreads + threadIdx.x;
      const float none = arith::float_of(0x7fc00000u);
      v[i] = quad < tokens.quads ? tokens.t[quad] : make_float4(none, none, none, none);
    }
#pragma unroll
    for (uint32_t i = 0; i < kAhead; ++i) {
      const uint32_t id = 4 * (base + i * kCutThreads + threadIdx.x);
      f(v[i].x, id), f(v[i].y, id + 1), f(v[i].z, id + 2), f(v[i].w, id + 3);
    }
  }
}

struct Sums {
  unsigned long long before, all;  // of the threads before this one, of all
};

__device__ inline Sums block_sums(unsigned long long own) {
  __shared__ unsigned long long of_warp[kCutThreads / 32];
  const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  unsigned long long through = own;
#pragma unroll
  for (uint32_t stride = 1; stride < 32; stride *= 2) {
    const unsigned long long other = __shfl_up_sync(kFull, through, stride);
    if (lane >= stride) through += other;
  }
  if (lane == 31) of_warp[warp] = through;
  __syncthreads();
  Sums sums = {through - own, 0};
#pragma unroll
  for (uint32_t w = 0; w < kCutThreads / 32; ++w) {
    if (w < warp) sums.before += of_warp[w];
    sums.all += of_warp[w];
  }
  __syncthreads();
  return sums;
}

__device__ inline Sums block_sums(const unsigned long long (&own)[4]) {
  return block_sums(own[0] + own[1] + own[2] + own[3]);
}

// The item with which the running sum over all threads' items, four each, reaches a target.
struct Reached {
  uint32_t item;
  unsigned long long before, weight;  // sum of the items before it; its own
};

// `before`: the sum of the items of threads before this one; 1 <= target <= the sum of all.
__device__ inline Reached reach(const unsigned long long (&weight)[4], unsigned long long before,
                                unsigned long long target) {
  __shared__ Reached found;
#pragma unroll
  for (uint32_t i = 0; i < 4; ++i) {
    if (before < target && target <= before + weight[i]) found = {4 * threadIdx.x + i, before, weight[i]};
    before += weight[i];
  }
  __syncthreads();
  const Reached reached = found;
  __syncthreads();
  return reached;
}

// The tokens of neighboring bins, in order.
struct List {
  unsigned long long* rank;      // (kListed) shared memory, descending
  uint32_t first = 1, last = 0;  // bins; none yet
  uint32_t count = 0;            // more than kListed: too many, and `rank` is of no use
  __device__ bool has(uint32_t bin) const { return first <= bin && bin <= last; }
};

// Bitonic, of any number up to kListed.
__device__ inline void sort_descending(unsigned long long* rank, uint32_t count) {
  uint32_t size = 1;
  while (size < count) size *= 2;
  for (uint32_t i = count + threadIdx.x; i < size; i += kCutThreads) rank[i] = 0;
  __syncthreads();
  for (uint32_t run = 2; run <= size; run *= 2)
    for (uint32_t gap = run / 2; gap; gap /= 2) {
      for (uint32_t i = threadIdx.x; i < size / 2; i += kCutThreads) {
        const uint32_t a = 2 * i - i % gap, b = a + gap;
        const unsigned long long left = rank[a], right = rank[b];
        const bool descending = !(a & run);
        if ((left < right) == descending) rank[a] = right, rank[b] = left;
      }
      __syncthreads();
    }
}

__device__ inline void list_bins(const Tokens& tokens, uint32_t first, uint32_t last, List& list) {
  __shared__ uint32_t count;
  if (threadIdx.x == 0) count = 0;
  __syncthreads();
  each_token(tokens, [&](float t, uint32_t id) {
    const uint32_t bin = bin_of(t, tokens.top);
    if (bin < first || bin > last) return;
    const uint32_t at = atomicAdd(&count, 1);
    if (at < kListed) list.rank[at] = pack_score_id(t, id);
  });
  __syncthreads();
  list.first = first, list.last = last, list.count = count;
  sort_descending(list.rank, min(list.count, kListed));
}

// Adds the weights of a warp's tokens to their digits' sums. Often the digit is the same for all of them: one
// addition then, for shared memory adds 64 bits by trying again until no other thread was faster.
__device__ inline void add_to_digits(unsigned long long* sum /* (256) */, bool counted, uint32_t digit,
                                     unsigned long long weight) {
  const uint32_t who = __ballot_sync(kFull, counted);
  if (!who) return;
  const uint32_t first = __ffs(who) - 1;
  const uint32_t digit_of_first = __shfl_sync(kFull, digit, first);
  if (!__all_sync(kFull, !counted || digit == digit_of_first)) {
    if (counted) atomicAdd(&sum[digit], weight);
    return;
  }
  if (!counted) weight = 0;
#pragma unroll
  for (int stride = 16; stride; stride /= 2) weight += __shfl_xor_sync(kFull, weight, stride);
  if (threadIdx.x % 32 == first) atomicAdd(&sum[digit], weight);
}

// As last_of_prefix, for a bin with too many tokens to list: byte by byte of the rank, each a walk over all
// tokens. `left`: what remains of the target in this bin.
template <class Weigh>
__device__ unsigned long long last_of_overflow_bin(const Tokens& tokens, uint32_t bin, unsigned long long left,
                                                   const Weigh& weigh) {
  __shared__ unsigned long long sum[256];
  unsigned long long prefix = 0;
  for (int shift = 56; shift >= 0; shift -= 8) {
    if (threadIdx.x < 256) sum[threadIdx.x] = 0;
    __syncthreads();
    each_token(tokens, [&](float t, uint32_t id) {
      const unsigned long long rank = pack_score_id(t, id);
      const bool matches = shift == 56 || rank >> (shift + 8) == prefix;
      const bool counted = matches && bin_of(t, tokens.top) == bin;
      add_to_digits(sum, counted, rank >> shift & 255u, counted ? weigh(t) : 0);
    });
    __syncthreads();
    unsigned long long weight[4] = {};
    if (threadIdx.x < 64)
      for (uint32_t i = 0; i < 4; ++i) weight[i] = sum[255 - (4 * threadIdx.x + i)];  // from the largest digit
    const Reached at = reach(weight, block_sums(weight).before, left);
    prefix = prefix << 8 | (255 - at.item);
    left -= at.before;
  }
  return prefix;
}

// The rank of the last token in the shortest prefix of the order whose weights reach `target`. It's known to be
// in bin `at.item`, and that the bins before weigh `at.before`.
template <class Weigh>
__device__ unsigned long long last_of_prefix(const Tokens& tokens, List& list, const Reached& at,
                                             unsigned long long target, const Weigh& weigh) {
  if (!list.has(at.item)) list_bins(tokens, at.item, at.item, list);
  if (list.count > kListed) return last_of_overflow_bin(tokens, at.item, target - at.before, weigh);
  unsigned long long weight[4];
#pragma unroll
  for (uint32_t i = 0; i < 4; ++i) {
    const uint32_t place = 4 * threadIdx.x + i;
    weight[i] = place < list.count ? weigh(unordered(uint32_t(list.rank[place] >> 32))) : 0;
  }
  const unsigned long long before_list = list.first == at.item ? at.before : 0;  // a list of several bins begins at 0
  return list.rank[reach(weight, block_sums(weight).before, target - before_list).item];
}

// Weight of the tokens of a bin that are not below `floor`.
__device__ inline unsigned long long mass_left(const Tokens& tokens, const List& list, uint32_t bin,
                                               unsigned long long floor) {
  unsigned long long own = 0;
  const auto add = [&](float t, unsigned long long rank) {
    if (bin_of(t, tokens.top) == bin && rank >= floor) own += mass(t, tokens.top);
  };
  if (list.has(bin) && list.count <= kListed) {
    for (uint32_t i = threadIdx.x; i < list.count; i += kCutThreads)
      add(unordered(uint32_t(list.rank[i] >> 32)), list.rank[i]);
  } else {
    each_token(tokens, [&](float t, uint32_t id) { add(t, pack_score_id(t, id)); });
  }
  return block_sums(own).all;
}

}  // namespace orcd::kernels
