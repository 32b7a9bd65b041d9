// Launching a kernel that may begin before its predecessor in the stream has ended (programmatic dependent
// launch). Such a kernel calls pdl_wait() before it touches what earlier ones wrote.
#pragma once

#include <cstdint>

#include "device/check.h"

namespace orcd::kernels {

// Whether this program has kernels for the present device: cudaSuccess, or what it fails with.
cudaError_t loads();

// Has a kernel loaded, which else is done with its first launch.
template <class... Parameters>
void load_kernel(void (*kernel)(Parameters...)) {
  cudaFuncAttributes a = {};
  ORCD_CUDA(cudaFuncGetAttributes(&a, kernel));
}

// Whether kernels of this program wait for their predecessors by themselves on the present device: it and what
// they were compiled for must be of compute capability 9.0 or later. Others must not be let begin early.
bool has_pdl();

// Properties of the current device that decide launches, asked for once.
struct Processor {
  uint32_t count, shared_bytes;
  bool warpgroups;  // one of Hopper's: it has matrix units that read Activations' tiles (ops/tiles.h)
};
const Processor& processor();

struct Grid {
  dim3 blocks;
  uint32_t threads;
  uint32_t shared_bytes = 0;
};

template <class... Parameters, class... Arguments>
void launch_kernel(void (*kernel)(Parameters...), const Grid& grid, bool pdl, cudaStream_t stream,
                   Arguments&&... arguments) {
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid.blocks;
  config.blockDim = grid.threads;
  config.dynamicSmemBytes = grid.shared_bytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = pdl && has_pdl() ? 1 : 0;
  ORCD_CUDA(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...));
}

}  // namespace orcd::kernels
