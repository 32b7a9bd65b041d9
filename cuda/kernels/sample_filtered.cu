// Drawing tokens with top-k, top-p or min-p. Many blocks put the logits over temperature into memory and find the
// largest; many count and weigh tokens by their distance from it; one block per draw finds from that where top-k and
// top-p cut (sample_cut.cuh); many draw from what's left. Each kernel leaves samples alone that aren't `filtered`.
#include "arith/gumbel.h"
#include "device/check.h"
#include "kernels/pdl.h"
#include "kernels/sample.cuh"
#include "kernels/sample_cut.cuh"

namespace orcd::kernels {
namespace {

constexpr uint32_t kBinThreads = 512;
constexpr uint32_t kMostBinned = 16384;  // tokens of a block that counts: one's mass halves add up in 32 bits
constexpr unsigned long long kLeastRank = 1ull << 32;  // of a number; NaN is below it

using arith::uses_top_k, arith::uses_top_p;

__device__ __forceinline__ Tokens tokens_of(const float* scaled_all, uint32_t vocab, uint32_t draw, float top) {
  const uint64_t width = scaled_width(vocab);
  return {reinterpret_cast<const float4*>(scaled_all + draw * width), uint32_t(width / 4), top};
}

// Rank of the largest logit → the logit; NaN where they are broken.
__device__ __forceinline__ float top_of(const FilterState& s) {
  return s.nonzero ? unordered(uint32_t(s.best >> 32)) : arith::float_of(0x7fc00000u);
}

__device__ __forceinline__ bool is_broken(const Tokens& tokens) { return tokens.top != tokens.top; }

// Logits over temperature, ended by NaNs to a whole group of four; and the largest.
__global__ void __launch_bounds__(kSampleThreads)
    scale_kernel(const float* logits, uint32_t vocab, const __grid_constant__ SampleBatch samples,
                 const SampleSets sets, float* scaled_all, FilterState* state) {
  const SampleArgs d = samples.draw[blockIdx.y];
  if (!d.filtered) return;
  const float* row = logits + uint64_t(d.row) * vocab;
  const Draw draw(d, sets);
  float* to = scaled_all + blockIdx.y * scaled_width(vocab);
  unsigned long long best = 0;
  LogitsSeen seen_logits;
  const uint32_t step = gridDim.x * kSampleThreads * 4;
  for (uint32_t base = (blockIdx.x * kSampleThreads + threadIdx.x) * 4; base < vocab; base += step) {
    float t[4];
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) {
      t[i] = arith::float_of(0x7fc00000u);
      if (base + i >= vocab) continue;
      const float logit = row[base + i];
      seen_logits.see(logit);
      t[i] = scaled(d, draw, base + i, logit);
      best = max(best, pack_score_id(t[i], base + i));
    }
    *reinterpret_cast<float4*>(to + base) = make_float4(t[0], t[1], t[2], t[3]);
  }
  if (seen_logits.broken) best = kBrokenRank;
  const bool nonzero = __syncthreads_or(seen_logits.nonzero());
  best = block_max(best);
  if (threadIdx.x) return;
  atomicMax(&state[blockIdx.y].best, best);
  if (nonzero) atomicOr(&state[blockIdx.y].nonzero, 1u);
}

// Counts and weighs tokens by bins: in shared memory, then what isn't zero in the draw's own.
__global__ void __launch_bounds__(kBinThreads) bin_kernel(uint32_t vocab, const __grid_constant__ SampleBatch samples,
                                                          const float* scaled_all, FilterState* state) {
  // Weights in halves of 16 bits: shared memory adds 32 bits in one go, but not 64.
  __shared__ uint32_t count[kFilterBins], low[kFilterBins], high[kFilterBins];
  const SampleArgs& d = samples.draw[blockIdx.y];
  const bool weighs = uses_top_p(d.sampling);
  if (!d.filtered || !(weighs || uses_top_k(d.sampling, vocab))) return;
  FilterState& s = state[blockIdx.y];
  const Tokens tokens = tokens_of(scaled_all, vocab, blockIdx.y, top_of(s));
  if (is_broken(tokens)) return;
  for (uint32_t i = threadIdx.x; i < kFilterBins; i += kBinThreads) count[i] = low[i] = high[i] = 0;
  __syncthreads();
  for (uint32_t at = blockIdx.x * kBinThreads + threadIdx.x; at < tokens.quads; at += gridDim.x * kBinThreads) {
    const float4 v = tokens.t[at];
    const float t[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) {
      const uint32_t bin = bin_of(t[i], tokens.top);
      if (bin == kFilterBins) continue;
      atomicAdd(&count[bin], 1);
      const unsigned long long weight = weighs ? mass(t[i], tokens.top) : 0;
      if (!weight) continue;
      atomicAdd(&low[bin], uint32_t(weight) & 0xffffu);
      atomicAdd(&high[bin], uint32_t(weight >> 16));
    }
  }
  __syncthreads();
  for (uint32_t i = threadIdx.x; i < kFilterBins; i += kBinThreads) {
    if (!count[i]) continue;
    atomicAdd(&s.count[i], count[i]);
    const unsigned long long weight = (static_cast<unsigned long long>(high[i]) << 16) + low[i];
    if (weight) atomicAdd(&s.mass[i], weight);
  }
}

// Takes this thread's four of a histogram's bins, and leaves zeros.
template <class T>
__device__ __forceinline__ void take_bins(T* bins, unsigned long long (&own)[4]) {
#pragma unroll
  for (uint32_t i = 0; i < 4; ++i) {
    own[i] = bins[4 * threadIdx.x + i];
    bins[4 * threadIdx.x + i] = 0;
  }
}

// The least rank that top-k and top-p leave.
__device__ unsigned long long floor_of(const SampleArgs& d, const Tokens& tokens, uint32_t vocab, FilterState& s) {
  __shared__ unsigned long long rank[kListed];
  List list = {rank};
  unsigned long long floor = kLeastRank;
  uint32_t last_bin = kFilterBins;  // that of the last token which top-k leaves
  unsigned long long own[4];
  take_bins(s.count, own);
  const Sums counts = block_sums(own);
  if (uses_top_k(d.sampling, vocab) && d.sampling.top_k < counts.all) {
    const Reached at = reach(own, counts.before, d.sampling.top_k);
    last_bin = at.item;
    // With the bins before it in the list, too, top-p need not walk over the tokens again.
    if (at.before + at.weight <= kListed) list_bins(tokens, 0, last_bin, list);
    floor = last_of_prefix(tokens, list, at, d.sampling.top_k, [](float) { return 1ull; });
  }
  if (!uses_top_p(d.sampling)) return floor;

  take_bins(s.mass, own);
  if (last_bin < kFilterBins) {
    const unsigned long long left = mass_left(tokens, list, last_bin, floor);
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) {
      const uint32_t bin = 4 * threadIdx.x + i;
      own[i] = bin < last_bin ? own[i] : bin == last_bin ? left : 0;
    }
  }
  const Sums masses = block_sums(own);
  const double share = ceil(__dmul_rn(double(d.sampling.top_p), double(masses.all)));
  const auto wanted = min(max(static_cast<unsigned long long>(share), 1ull), masses.all);
  if (!wanted) return floor;  // nothing but NaN
  // Tokens that top-k left out need no looking after: in the order they come behind what adds up to `wanted`.
  return last_of_prefix(tokens, list, reach(own, masses.before, wanted), wanted,
                        [&](float t) { return mass(t, tokens.top); });
}

__global__ void __launch_bounds__(kCutThreads) cut_kernel(uint32_t vocab, const __grid_constant__ SampleBatch samples,
                                                          const float* scaled_all, FilterState* state) {
  const SampleArgs& d = samples.draw[blockIdx.x];
  if (!d.filtered) return;
  FilterState& s = state[blockIdx.x];
  const Tokens tokens = tokens_of(scaled_all, vocab, blockIdx.x, top_of(s));
  const bool cuts = !is_broken(tokens) && (uses_top_k(d.sampling, vocab) || uses_top_p(d.sampling));
  const unsigned long long floor = cuts ? floor_of(d, tokens, vocab, s) : kLeastRank;
  __syncthreads();  // all have read what now goes
  if (threadIdx.x) return;
  s.floor = floor;
  s.top = tokens.top;
  s.best = 0;
  s.nonzero = 0;
}

// Draws from what the filters leave. A thread takes four neighboring tokens at a time: one Philox block serves them.
__global__ void __launch_bounds__(kSampleThreads)
    draw_kernel(uint32_t vocab, const __grid_constant__ SampleBatch samples, const float* scaled_all,
                FilterState* state, uint32_t* sampled) {
  const SampleArgs& d = samples.draw[blockIdx.y];
  if (!d.filtered) return;
  FilterState& s = state[blockIdx.y];
  const Tokens tokens = tokens_of(scaled_all, vocab, blockIdx.y, s.top);
  const unsigned long long floor = s.floor;
  const auto least = arith::fixed(d.sampling.min_p);
  unsigned long long mine = 0;
  // Broken logits leave nobody with a rank.
  const uint32_t quads = is_broken(tokens) ? 0 : tokens.quads;
  for (uint32_t at = blockIdx.x * kSampleThreads + threadIdx.x; at < quads; at += gridDim.x * kSampleThreads) {
    const float4 v = tokens.t[at];
    const float t[4] = {v.x, v.y, v.z, v.w};
    bool left[4];
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i)
      left[i] = pack_score_id(t[i], 4 * at + i) >= floor && (!least || mass(t[i], tokens.top) >= least);
    if (!(left[0] || left[1] || left[2] || left[3])) continue;
    const arith::PhiloxBlock random = random_words(d, at);
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i)
      if (left[i]) mine = max(mine, pack_score_id(t[i] + arith::gumbel(random.word[i]), 4 * at + i));
  }
  block_argmax(mine, true, &s.best, &s.arrived, &sampled[blockIdx.y]);
}

}  // namespace

void load_filter_kernels() {
  load_kernel(scale_kernel), load_kernel(bin_kernel), load_kernel(cut_kernel), load_kernel(draw_kernel);
}

void sample_filtered(const float* logits, uint32_t vocab, const SampleBatch& samples, uint32_t n,
                     const SampleSets& sets, float* scaled, FilterState* state, uint32_t* sampled,
                     cudaStream_t stream) {
  const dim3 drawing(blocks_per_draw(vocab, n), n);
  scale_kernel<<<drawing, kSampleThreads, 0, stream>>>(logits, vocab, samples, sets, scaled, state);
  ORCD_CUDA(cudaGetLastError());
  const uint32_t all = (vocab + 4 * kBinThreads - 1) / (4 * kBinThreads);
  const uint32_t least = (vocab + kMostBinned - 1) / kMostBinned;
  const dim3 binning(min(all, max(least, 256u / n)), n);
  bin_kernel<<<binning, kBinThreads, 0, stream>>>(vocab, samples, scaled, state);
  ORCD_CUDA(cudaGetLastError());
  cut_kernel<<<n, kCutThreads, 0, stream>>>(vocab, samples, scaled, state);
  ORCD_CUDA(cudaGetLastError());
  draw_kernel<<<drawing, kSampleThreads, 0, stream>>>(vocab, samples, scaled, state, sampled);
  ORCD_CUDA(cudaGetLastError());
}

}  // namespace orcd::kernels
