// What a step begins with: its rows to where its kernels read them.
#include "device/check.h"
#include "kernels/launch.h"
#include "kernels/warp.cuh"

namespace orcd::kernels {
namespace {

__global__ void begin_kernel(const __grid_constant__ RowBatch rows, RowPlaces to) {
  const uint32_t row = threadIdx.x;
  if (row >= rows.count) return;
  to.token[row] = rows.token[row];
  to.slot[row] = rows.slot[row];
  to.position[row] = rows.position[row];
  to.place[row] = rows.place[row];
}

__global__ void begin_step_kernel(const StepArgs* order, uint32_t rows, RowPlaces to, SampleArgs* samples) {
  pdl_launch_dependents();
  const uint32_t row = threadIdx.x;
  // Samples go as words, one after the other, and by all threads.
  constexpr uint32_t kParts = (sizeof(SampleArgs) + sizeof(uint4) - 1) / sizeof(uint4);
  const uint4* from = reinterpret_cast<const uint4*>(order->samples);
  const uint32_t parts = (rows * sizeof(SampleArgs) + sizeof(uint4) - 1) / sizeof(uint4);
  // All loads before the first use: each goes to the host's memory and back.
  uint32_t id = 0, of = 0, at = 0, place = 0;
  if (row < rows) {
    id = __ldcv(order->rows.token + row), of = __ldcv(order->rows.slot + row);
    at = __ldcv(order->rows.position + row), place = __ldcv(order->rows.place + row);
  }
  uint4 part[kParts];
#pragma unroll
  for (uint32_t i = 0; i < kParts; ++i)
    if (i * blockDim.x + row < parts) part[i] = __ldcv(from + i * blockDim.x + row);
  if (row < rows) to.token[row] = id, to.slot[row] = of, to.position[row] = at, to.place[row] = place;
#pragma unroll
  for (uint32_t i = 0; i < kParts; ++i)
    if (i * blockDim.x + row < parts) reinterpret_cast<uint4*>(samples)[i * blockDim.x + row] = part[i];
}

}  // namespace

void begin_rows(const RowBatch& rows, const RowPlaces& to, cudaStream_t stream) {
  begin_kernel<<<1, kSmallM, 0, stream>>>(rows, to);
  ORCD_CUDA(cudaGetLastError());
}

void begin_step(const StepArgs* order, uint32_t rows, const RowPlaces& to, SampleArgs* samples, cudaStream_t stream) {
  begin_step_kernel<<<1, (rows + 31) / 32 * 32, 0, stream>>>(order, rows, to, samples);
  ORCD_CUDA(cudaGetLastError());
}

}  // namespace orcd::kernels
