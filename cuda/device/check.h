// Every CUDA return code is looked at: a failing call becomes orcd::Error with the call's text.
#pragma once

#include <cuda_runtime.h>

#include <string>

#include "orcd/engine.h"

namespace orcd::device {

[[noreturn]] inline void fail(cudaError_t code, const char* call, const char* file, int line) {
  const bool memory = code == cudaErrorMemoryAllocation;
  if (memory) cudaGetLastError();  // not sticky: clear it, the context is sound
  throw Error(memory ? ErrorKind::kOutOfMemory : ErrorKind::kDevice,
              std::string(call) + " failed: " + cudaGetErrorString(code) + " (" + cudaGetErrorName(code) + ") at " +
                  file + ":" + std::to_string(line));
}

}  // namespace orcd::device

#define ORCD_CUDA(call)                                                                       \
  do {                                                                                        \
    const cudaError_t orcd_code = (call);                                                     \
    if (orcd_code != cudaSuccess) ::orcd::device::fail(orcd_code, #call, __FILE__, __LINE__); \
  } while (0)
