// Drawing tokens from logits. Without filters every token's score is independent, and the largest wins:
// many blocks, one 64-bit maximum. With top-k, top-p or min-p one block per draw selects by radix on the
// order (t descending, id ascending), with integer counts and integer masses, so no order of summation
// can matter.
#include "arith/exp2.h"
#include "arith/gumbel.h"
#include "arith/philox.h"
#include "device/check.h"
#include "kernels/launch.h"
#include "kernels/overlap.h"
#include "kernels/warp.cuh"

namespace orcd::kernels {
namespace {

constexpr uint32_t kThreads = 256;
constexpr uint32_t kFilterThreads = 1024;

// Order-preserving map of floats to integers; -0 and +0 are equal, NaN is below everything.
__device__ __forceinline__ uint32_t ordered(float x) {
  if (x != x) return 0;
  const uint32_t bits = x == 0.0f ? 0 : arith::bits_of(x);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// Larger is better: score first, then the lower id.
__device__ __forceinline__ unsigned long long ranked(float score, uint32_t id) {
  return static_cast<unsigned long long>(ordered(score)) << 32 | (0xffffffffu - id);
}

// Logit after repetition penalty and temperature.
__device__ __forceinline__ float scaled(const DeviceDraw& d, const uint32_t* seen, uint32_t id, float logit) {
  if (d.penalty != 1.0f && (seen[id / 32] >> (id % 32) & 1u))
    logit = logit > 0.0f ? __fdiv_rn(logit, d.penalty) : logit * d.penalty;
  return d.inverse_temperature != 0.0f ? logit * d.inverse_temperature : logit;
}

__device__ __forceinline__ float noise(const DeviceDraw& d, uint32_t id) {
  const arith::PhiloxBlock block = arith::philox4x32(d.seed_low, d.seed_high, id / 4, d.position, 0, 0);
  const uint32_t lane = id % 4;
  return arith::gumbel(lane == 0 ? block.word[0] : lane == 1 ? block.word[1] : lane == 2 ? block.word[2] : block.word[3]);
}

__device__ unsigned long long block_max(unsigned long long best) {
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

__global__ void mark_kernel(const uint32_t* token, const uint32_t* slot, uint32_t rows, uint32_t* seen, uint32_t words) {
  const uint32_t row = blockIdx.x * blockDim.x + threadIdx.x;
  if (row < rows) atomicOr(&seen[uint64_t(slot[row]) * words + token[row] / 32], 1u << token[row] % 32);
}

__global__ void begin_kernel(const __grid_constant__ RowBatch rows, uint32_t* token, uint32_t* slot, uint32_t* position,
                             uint32_t* seen, uint32_t words) {
  const uint32_t row = threadIdx.x;
  if (row >= rows.count) return;
  token[row] = rows.token[row];
  slot[row] = rows.slot[row];
  position[row] = rows.position[row];
  atomicOr(&seen[uint64_t(rows.slot[row]) * words + rows.token[row] / 32], 1u << rows.token[row] % 32);
}

__global__ void begin_step_kernel(const StepOrder* order, uint32_t rows, uint32_t* token, uint32_t* slot, uint32_t* position,
                                  DeviceDraw* draws, uint32_t* seen, uint32_t words) {
  let_successor_start();
  const uint32_t row = threadIdx.x;
  if (row >= rows) return;
  // All loads before the first use: each goes to the host's memory and back.
  const uint32_t id = __ldcv(order->rows.token + row), of = __ldcv(order->rows.slot + row);
  const uint32_t at = __ldcv(order->rows.position + row);
  constexpr uint32_t kParts = sizeof(DeviceDraw) / sizeof(uint4);
  static_assert(sizeof(DeviceDraw) % sizeof(uint4) == 0);
  uint4 part[kParts];
#pragma unroll
  for (uint32_t i = 0; i < kParts; ++i) part[i] = __ldcv(reinterpret_cast<const uint4*>(order->draws.draw + row) + i);
  token[row] = id;
  slot[row] = of;
  position[row] = at;
#pragma unroll
  for (uint32_t i = 0; i < kParts; ++i) reinterpret_cast<uint4*>(draws + row)[i] = part[i];
  atomicOr(&seen[uint64_t(of) * words + id / 32], 1u << id % 32);
}

// A thread takes four neighbouring tokens at a time: one Philox block serves them.
__global__ void __launch_bounds__(kThreads) sample_kernel(const float* logits, uint32_t vocab,
                                                          const __grid_constant__ DrawBatch draws, const DeviceDraw* stored,
                                                          const uint32_t* seen_all, uint32_t words, unsigned long long* best,
                                                          uint32_t* arrived, uint32_t* drawn) {
  wait_for_predecessor();
  const DeviceDraw d = stored ? stored[blockIdx.y] : draws.draw[blockIdx.y];
  if (d.filtered) return;
  const float* row = logits + uint64_t(d.row) * vocab;
  const uint32_t* seen = seen_all + uint64_t(d.slot) * words;
  unsigned long long mine = 0;
  for (uint32_t base = (blockIdx.x * kThreads + threadIdx.x) * 4; base < vocab; base += gridDim.x * kThreads * 4) {
    arith::PhiloxBlock random = {};
    if (d.inverse_temperature != 0.0f)
      random = arith::philox4x32(d.seed_low, d.seed_high, base / 4, d.position, 0, 0);
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) {
      if (base + i >= vocab) break;
      float score = scaled(d, seen, base + i, row[base + i]);
      if (d.inverse_temperature != 0.0f) score = score + arith::gumbel(random.word[i]);
      mine = max(mine, ranked(score, base + i));
    }
  }
  mine = block_max(mine);
  if (threadIdx.x) return;
  atomicMax(&best[blockIdx.y], mine);
  __threadfence();
  if (atomicAdd(&arrived[blockIdx.y], 1) + 1 < gridDim.x) return;
  __threadfence();
  drawn[blockIdx.y] = 0xffffffffu - uint32_t(atomicExch(&best[blockIdx.y], 0ull));
  arrived[blockIdx.y] = 0;
}

// Integer weight of a token in fixed point, 2^32 for the most likely one.
__device__ __forceinline__ unsigned long long mass(float t, float top) {
  return static_cast<unsigned long long>(arith::exp2((t - top) * arith::kLog2E) * 0x1p32f);
}

__device__ unsigned long long block_sum(unsigned long long v) {
  __shared__ unsigned long long of_warp[32];
#pragma unroll
  for (int stride = 16; stride; stride /= 2) v += __shfl_xor_sync(kFull, v, stride);
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = v;
  __syncthreads();
  v = 0;
  for (uint32_t w = 0; w < blockDim.x / 32; ++w) v += of_warp[w];
  __syncthreads();
  return v;
}

// The key of a token in the order (t descending, id ascending), as one integer: larger comes first.
// Finds the key of the last token of the shortest prefix whose weights reach `target`. weigh(t) is 1 for
// top-k and the mass for top-p. Radix by bytes, 8 of them.
template <class Weigh>
__device__ unsigned long long last_of_prefix(const float* t, uint32_t vocab, unsigned long long floor_key,
                                             unsigned long long target, Weigh weigh) {
  __shared__ unsigned long long histogram[256];
  __shared__ unsigned long long prefix_shared, left_shared;
  unsigned long long prefix = 0, left = target;
  for (int byte = 7; byte >= 0; --byte) {
    for (uint32_t i = threadIdx.x; i < 256; i += blockDim.x) histogram[i] = 0;
    __syncthreads();
    for (uint32_t id = threadIdx.x; id < vocab; id += blockDim.x) {
      const unsigned long long key = ranked(t[id], id);
      if (key < floor_key) continue;
      if (byte < 7 && key >> (8 * (byte + 1)) != prefix) continue;
      atomicAdd(&histogram[key >> (8 * byte) & 255u], weigh(t[id]));
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      int digit = 255;
      while (digit > 0 && histogram[digit] < left) left -= histogram[digit--];
      prefix_shared = prefix << 8 | static_cast<unsigned>(digit);
      left_shared = left;
    }
    __syncthreads();
    prefix = prefix_shared;
    left = left_shared;
    __syncthreads();
  }
  return prefix;
}

__global__ void __launch_bounds__(kFilterThreads) sample_filtered_kernel(const float* logits, uint32_t vocab,
                                                                         const __grid_constant__ DrawBatch draws,
                                                                         const uint32_t* seen_all, uint32_t words,
                                                                         float* scaled_all, uint32_t* drawn) {
  const DeviceDraw d = draws.draw[blockIdx.x];
  if (!d.filtered) return;
  const float* row = logits + uint64_t(d.row) * vocab;
  const uint32_t* seen = seen_all + uint64_t(d.slot) * words;
  float* t = scaled_all + uint64_t(blockIdx.x) * vocab;

  unsigned long long best = 0;
  for (uint32_t id = threadIdx.x; id < vocab; id += blockDim.x) {
    t[id] = scaled(d, seen, id, row[id]);
    best = max(best, ranked(t[id], id));
  }
  best = block_max(best);
  const float top = t[0xffffffffu - uint32_t(best)];

  // Tokens whose key is at least `floor_key` are left; each filter raises it.
  unsigned long long floor_key = 0;
  if (d.top_k && d.top_k < vocab)
    floor_key = last_of_prefix(t, vocab, floor_key, d.top_k, [](float) { return 1ull; });
  if (d.top_p < 1.0f) {
    unsigned long long total = 0;
    for (uint32_t id = threadIdx.x; id < vocab; id += blockDim.x)
      if (ranked(t[id], id) >= floor_key) total += mass(t[id], top);
    total = block_sum(total);
    double wanted = ceil(__dmul_rn(double(d.top_p), double(total)));
    wanted = wanted < 1.0 ? 1.0 : wanted > double(total) ? double(total) : wanted;
    floor_key = last_of_prefix(t, vocab, floor_key, static_cast<unsigned long long>(wanted),
                               [top](float x) { return mass(x, top); });
  }
  const unsigned long long least = d.min_p > 0.0f ? static_cast<unsigned long long>(d.min_p * 0x1p32f) : 0ull;

  best = 0;
  for (uint32_t id = threadIdx.x; id < vocab; id += blockDim.x) {
    if (ranked(t[id], id) < floor_key) continue;
    if (least && mass(t[id], top) < least) continue;
    best = max(best, ranked(t[id] + noise(d, id), id));
  }
  best = block_max(best);
  if (threadIdx.x == 0) drawn[blockIdx.x] = 0xffffffffu - uint32_t(best);
}

}  // namespace

void mark(const uint32_t* token, const uint32_t* slot, uint32_t rows, uint32_t* seen, uint32_t words,
          cudaStream_t stream) {
  mark_kernel<<<(rows + 127) / 128, 128, 0, stream>>>(token, slot, rows, seen, words);
  ORCD_CUDA(cudaGetLastError());
}

void begin_rows(const RowBatch& rows, uint32_t* token, uint32_t* slot, uint32_t* position, uint32_t* seen, uint32_t words,
                cudaStream_t stream) {
  begin_kernel<<<1, kFewRows, 0, stream>>>(rows, token, slot, position, seen, words);
  ORCD_CUDA(cudaGetLastError());
}

void begin_step(const StepOrder* order, uint32_t rows, uint32_t* token, uint32_t* slot, uint32_t* position, DeviceDraw* draws,
                uint32_t* seen, uint32_t words, cudaStream_t stream) {
  begin_step_kernel<<<1, kDrawBatch, 0, stream>>>(order, rows, token, slot, position, draws, seen, words);
  ORCD_CUDA(cudaGetLastError());
}

void sample(const float* logits, uint32_t vocab, const DrawBatch& draws, const DeviceDraw* stored, uint32_t n,
            const uint32_t* seen, uint32_t words, unsigned long long* best, uint32_t* arrived, uint32_t* drawn, bool overlap,
            cudaStream_t stream) {
  // Four tokens a thread, unless there are many draws to fill the device with.
  const uint32_t all = (vocab + 4 * kThreads - 1) / (4 * kThreads);
  launch_kernel(sample_kernel, {dim3(min(all, max(32u, 1024u / n)), n), kThreads}, overlap, stream, logits, vocab, draws,
                stored, seen, words, best, arrived, drawn);
}

void sample_filtered(const float* logits, uint32_t vocab, const DrawBatch& draws, uint32_t n, const uint32_t* seen,
                     uint32_t words, float* scaled, uint32_t* drawn, cudaStream_t stream) {
  sample_filtered_kernel<<<n, kFilterThreads, 0, stream>>>(logits, vocab, draws, seen, words, scaled, drawn);
  ORCD_CUDA(cudaGetLastError());
}

}  // namespace orcd::kernels
