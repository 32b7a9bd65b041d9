// What a kernel of kernels/small_batch.cuh is told.
#pragma once

#include "kernels/launch.h"
#include "kernels/several_rows.cuh"

namespace orcd::kernels {

// Warps of a thread block, and units of weights that each has on their way.
inline constexpr uint32_t kSmallWarps = 16, kSmallSlots = 3;

struct SmallBatchJob {
  const uint8_t* data;
  const float* bias;
  float* y;
  uint32_t n, add;
  TensorType type;
  uint32_t first_group;  // of sixteen weight rows, among those of all jobs
  uint64_t group_bytes;  // of eight weight rows
};

struct SmallBatchArgs {
  SmallBatchJob jobs[kMostJobs];
  uint32_t n_jobs, cols, rows, gated;
  Activation activation;       // of a gated unit
  uint32_t groups;             // of sixteen weight rows, of a thread block
  uint32_t slots, slot_bytes;  // of a warp
  GemvInput input;
  Activations hidden;
  uint32_t* arrived;
};

using SmallBatchKernel = void (*)(SmallBatchArgs);

// The kernel for jobs of these types, null where there is none.
SmallBatchKernel small_batch_of_blocks(TensorType type, TensorType other);
SmallBatchKernel small_batch_of_supers(TensorType type, TensorType other);

}  // namespace orcd::kernels
