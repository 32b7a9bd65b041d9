// What a step begins with: its rows to where its kernels read them.
#include "device/check.h"
#include "kernels/launch.h"
#include "kernels/warp.cuh"

namespace orcd::kernels {
namespace {

__global__ void begin_kernel(const __grid_constant__ RowBatch rows, uint32_t* token, uint32_t* slot,
                             uint32_t* position) {
  const uint32_t row = threadIdx.x;
  if (row >= rows.count) return;
  token[row] = rows.token[row];
  slot[row] = rows.slot[row];
  position[row] = rows.position[row];
}

__global__ void begin_step_kernel(const StepArgs* order, uint32_t rows, uint32_t* token, uint32_t* slot,
                                  uint32_t* position, SampleArgs* samples) {
  pdl_launch_dependents();
  const uint32_t row = threadIdx.x;
  if (row >= rows) return;
  // All loads before the first use: each goes to the host's memory and back.
  const uint32_t id = __ldcv(order->rows.token + row), of = __ldcv(order->rows.slot + row);
  const uint32_t at = __ldcv(order->rows.position + row);
  constexpr uint32_t kParts = sizeof(SampleArgs) / sizeof(uint4);
  static_assert(sizeof(SampleArgs) % sizeof(uint4) == 0);
  uint4 part[kParts];
#pragma unroll
  for (uint32_t i = 0; i < kParts; ++i) part[i] = __ldcv(reinterpret_cast<const uint4*>(order->samples + row) + i);
  token[row] = id;
  slot[row] = of;
  position[row] = at;
#pragma unroll
  for (uint32_t i = 0; i < kParts; ++i) reinterpret_cast<uint4*>(samples + row)[i] = part[i];
}

}  // namespace

void begin_rows(const RowBatch& rows, uint32_t* token, uint32_t* slot, uint32_t* position, cudaStream_t stream) {
  begin_kernel<<<1, kSmallM, 0, stream>>>(rows, token, slot, position);
  ORCD_CUDA(cudaGetLastError());
}

void begin_step(const StepArgs* order, uint32_t rows, uint32_t* token, uint32_t* slot, uint32_t* position,
                SampleArgs* samples, cudaStream_t stream) {
  begin_step_kernel<<<1, (rows + 31) / 32 * 32, 0, stream>>>(order, rows, token, slot, position, samples);
  ORCD_CUDA(cudaGetLastError());
}

}  // namespace orcd::kernels
