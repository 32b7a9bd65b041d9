// What the attention kernels share: products of a split on int8 matrix units, and its weights. A warp has 16 query rows;
// lane 4g + t holds rows g and g + 8. Scores and results lie in fragments as mma.m16n8k32 has them.
#pragma once

#include "arith/attend.h"
#include "kernels/async_copies.cuh"
#include "kernels/kv_page.cuh"
#include "kernels/warp.cuh"

namespace orcd::kernels {

// c += a · b. The letters: whether a's and b's bytes are signed.
#define ORCD_MMA(NAME, A, B)                                                                          \
  __device__ __forceinline__ void NAME(int32_t c[4], const uint32_t a[4], uint32_t b0, uint32_t b1) { \
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32." A "." B                                     \
                 ".s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"                         \
                 : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])                                     \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));                     \
  }
ORCD_MMA(mma_ss, "s8", "s8")
ORCD_MMA(mma_su, "s8", "u8")
ORCD_MMA(mma_us, "u8", "s8")
ORCD_MMA(mma_uu, "u8", "u8")
#undef ORCD_MMA

// Query rows of a warp: high and low parts of their integers.
template <uint32_t kDim>
struct QueryFragments {
  uint32_t high[kDim / 32][4], low[kDim / 32][4];
};

// From bytes (16, stride) in shared memory. Without kBoth rows 8 .. 15 are zeros, and not read.
template <uint32_t kDim, bool kBoth>
__device__ __forceinline__ void load_queries(QueryFragments<kDim>& q, const uint8_t* high, const uint8_t* low,
                                             uint32_t stride) {
  const uint32_t lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const auto word = [&](const uint8_t* bytes, uint32_t row, uint32_t d) {
    return *reinterpret_cast<const uint32_t*>(bytes + row * stride + d);
  };
#pragma unroll
  for (uint32_t b = 0; b < kDim / 32; ++b)
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) {
      const uint32_t row = g + i % 2 * 8, d = b * 32 + i / 2 * 16 + 4 * t;
      q.high[b][i] = kBoth || i % 2 == 0 ? word(high, row, d) : 0;
      q.low[b][i] = kBoth || i % 2 == 0 ? word(low, row, d) : 0;
    }
}

// Scores of octets of keys under a soft cap; 0 for none.
template <uint32_t kOctets>
__device__ __forceinline__ void cap_scores(float (&t)[kOctets][4], float cap) {
  if (cap == 0.0f) return;
  const float inverse = __fdiv_rn(1.0f, cap);
#pragma unroll
  for (uint32_t o = 0; o < kOctets; ++o)
#pragma unroll
    for (int i = 0; i < 4; ++i) t[o][i] = arith::capped_score(t[o][i], cap, inverse);
}

// Σ q · k of eight keys: high · high, both mixed ones, low · low.
struct Dots {
  int32_t hh[4] = {}, mixed[4] = {}, ll[4] = {};

  // `high`: this lane's two words of a block of 32; `low`: its word of nibbles.
  __device__ __forceinline__ void add(const uint32_t q_high[4], const uint32_t q_low[4], uint32_t high0, uint32_t high1,
                                      uint32_t low) {
    const uint32_t low0 = low & 0x0f0f0f0fu, low1 = low >> 4 & 0x0f0f0f0fu;
    mma_ss(hh, q_high, high0, high1);
    mma_su(mixed, q_high, low0, low1);
    mma_us(mixed, q_low, high0, high1);
    mma_uu(ll, q_low, low0, low1);
  }
  __device__ __forceinline__ float operator[](int i) const { return float(hh[i] * 256 + mixed[i] * 16 + ll[i]); }
};

// The largest of four lanes' values, of those that share a row.
__device__ __forceinline__ float row_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(kFull, x, 1));
  return fmaxf(x, __shfl_xor_sync(kFull, x, 2));
}

__device__ __forceinline__ int32_t row_sum(int32_t x) {
  x += __shfl_xor_sync(kFull, x, 1);
  return x + __shfl_xor_sync(kFull, x, 2);
}

// Four weights, whose low 16 bits count, as the bytes of a fragment's words.
struct WeightWords {
  uint32_t high, low;
};
__device__ __forceinline__ WeightWords weight_words(const uint32_t w[4]) {
  const uint32_t first = __byte_perm(w[0], w[1], 0x5140), second = __byte_perm(w[2], w[3], 0x5140);
  return {__byte_perm(first, second, 0x7632), __byte_perm(first, second, 0x5410)};
}

// Which keys the two rows of a lane see: none before `from`.
struct RowWindows {
  uint32_t from[2];

  __device__ __forceinline__ bool sees_split(int r, uint32_t split) const { return split >= from[r] / kAttnSplit; }
  __device__ __forceinline__ uint32_t first_run(int r) const { return from[r] / (kAttnRun * kAttnSplit); }
  // The first key that row r sees of a split that it sees some of.
  __device__ __forceinline__ uint32_t from_in(int r, uint32_t split) const {
    return from[r] / kAttnSplit == split ? from[r] % kAttnSplit : 0;
  }
};

// Results so far of a lane's rows.
template <int kRows>
struct Sums {
  float m[kRows], l[kRows];
};

// The factors by which a part joins what there is: old · a + new · b.
template <int kRows>
struct Factors {
  float a[kRows], b[kRows];
};

// `joins`: whether the row sees anything of the part.
template <int kRows>
__device__ __forceinline__ Factors<kRows> join(Sums<kRows>& all, const float* m, const float* l, const bool* joins) {
  Factors<kRows> f;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const float top = fmaxf(all.m[r], m[r]);
    f.a[r] = arith::pow2i(all.m[r] - top);
    f.b[r] = arith::pow2i(m[r] - top);
    if (!joins[r]) continue;
    all.l[r] = arith::fma32(l[r], f.b[r], all.l[r] * f.a[r]);
    all.m[r] = top;
  }
  return f;
}

// A sink joins a row's results: it takes weight and gives no value.
__device__ __forceinline__ Factors<1> join_sink(float& m, float& l, float b) {
  Sums<1> all = {{m}, {l}};
  const arith::SinkPart part = arith::sink_part(b);
  const bool joins = true;
  const Factors<1> f = join(all, &part.m, &part.l, &joins);
  m = all.m[0], l = all.l[0];
  return f;
}
__device__ __forceinline__ float after_sink(float o, const Factors<1>& f) {
  return arith::fma32(0.0f, f.b[0], o * f.a[0]);
}

}  // namespace orcd::kernels
