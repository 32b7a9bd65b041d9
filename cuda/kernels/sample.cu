// Marking tokens as seen, and drawing them without top-k, top-p or min-p: every token's score is independent of
// the others, and the largest wins. Many blocks, one 64-bit maximum.
#include "arith/gumbel.h"
#include "arith/philox.h"
#include "device/check.h"
#include "kernels/overlap.h"
#include "kernels/sample.cuh"

namespace orcd::kernels {
namespace {

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
__global__ void __launch_bounds__(kDrawThreads) sample_kernel(const float* logits, uint32_t vocab,
                                                              const __grid_constant__ DrawBatch draws,
                                                              const DeviceDraw* stored, const uint32_t* seen_all,
                                                              uint32_t words, unsigned long long* best,
                                                              uint32_t* arrived, uint32_t* drawn) {
  wait_for_predecessor();
  const DeviceDraw d = stored ? stored[blockIdx.y] : draws.draw[blockIdx.y];
  if (d.filtered) return;
  const float* row = logits + uint64_t(d.row) * vocab;
  const uint32_t* seen = seen_all + uint64_t(d.slot) * words;
  unsigned long long mine = 0;
  const uint32_t step = gridDim.x * kDrawThreads * 4;
  for (uint32_t base = (blockIdx.x * kDrawThreads + threadIdx.x) * 4; base < vocab; base += step) {
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
  settle(mine, &best[blockIdx.y], &arrived[blockIdx.y], &drawn[blockIdx.y]);
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
  const dim3 blocks(blocks_per_draw(vocab, n), n);
  launch_kernel(sample_kernel, {blocks, kDrawThreads}, overlap, stream, logits, vocab, draws, stored, seen, words, best,
                arrived, drawn);
}

}  // namespace orcd::kernels
