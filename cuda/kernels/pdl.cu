#include "kernels/pdl.h"

namespace orcd::kernels {
namespace {

__global__ void probe() {}

}  // namespace

const Processor& processor() {
  static const Processor p = [] {
    int device = 0, count = 0, shared_bytes = 0, major = 0, minor = 0;
    ORCD_CUDA(cudaGetDevice(&device));
    ORCD_CUDA(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device));
    ORCD_CUDA(cudaDeviceGetAttribute(&shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
    ORCD_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
    ORCD_CUDA(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device));
    return Processor{uint32_t(count), uint32_t(shared_bytes), major == 9 && minor == 0};
  }();
  return p;
}

cudaError_t loads() {
  cudaFuncAttributes a = {};
  const cudaError_t code = cudaFuncGetAttributes(&a, probe);
  cudaGetLastError();  // told here, and not again at the next launch
  return code;
}

bool has_pdl() {
  static const bool can = [] {
    cudaFuncAttributes a = {};
    ORCD_CUDA(cudaFuncGetAttributes(&a, probe));
    // Compiled at load time from an older architecture's PTX, the binary is new and its code waits for nobody.
    return a.binaryVersion >= 90 && a.ptxVersion >= 90;
  }();
  return can;
}

}  // namespace orcd::kernels
