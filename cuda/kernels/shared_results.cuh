// Results that several warps, or groups of them, share: in each step every one takes another unit of K for the same
// weight rows, and what these give is added up in the contract's order from shared memory. S is the shape of a thread
// block: kThreads compute kRows rows of activations by kWeights weight rows, kShares units a step.
#pragma once

#include "kernels/several_rows.cuh"

namespace orcd::kernels {

// What a step's units give. The last four of a row are not used: they keep stores off each other's banks.
template <class S>
struct Part {
  float y[S::kShares][S::kRows][S::kWeights + 4];
};

// Each thread has some of the results.
template <class S>
struct SharedResults {
  static constexpr uint32_t kOwn = (S::kRows * S::kWeights + S::kThreads - 1) / S::kThreads;
  float y[kOwn] = {};

  // Adds what a step's `count` units gave, in ascending order.
  __device__ __forceinline__ void add(const Part<S>& part, uint32_t count) {
#pragma unroll
    for (uint32_t i = 0; i < kOwn; ++i) {
      const uint32_t at = i * S::kThreads + threadIdx.x, row = at / S::kWeights, weight = at % S::kWeights;
      if (row >= S::kRows) break;
#pragma unroll
      for (uint32_t share = 0; share < S::kShares; ++share)
        if (share < count) y[i] = y[i] + part.y[share][row][weight];
    }
  }

  // row0, weight0: the thread block's first ones.
  __device__ __forceinline__ void store(const SeveralRowsJob& job, uint32_t rows, uint32_t row0,
                                        uint32_t weight0) const {
#pragma unroll
    for (uint32_t i = 0; i < kOwn; ++i) {
      const uint32_t at = i * S::kThreads + threadIdx.x, row = row0 + at / S::kWeights,
                     weight = weight0 + at % S::kWeights;
      if (at < S::kRows * S::kWeights && row < rows && weight < job.n) store_result(job, row, weight, y[i]);
    }
  }
};

}  // namespace orcd::kernels
