#include "gpu/unfit.h"

#include <cuda_runtime.h>

#ifndef ORCD_CUDA_ARCHS
#error "ORCD_CUDA_ARCHS has to be the compute capabilities that this build is for, such as \"80,90\""
#endif

namespace orcd::gpu {
namespace {

std::string cuda(int version) { return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10); }

}  // namespace

std::string unfit_driver(int version) {
  if (version == 0) return "no NVIDIA driver on this machine; install one, or use --device cpu";
  return "the NVIDIA driver is for CUDA " + cuda(version) + ", this build needs " + cuda(CUDART_VERSION) +
         "; install a newer driver, or use --device cpu";
}

std::string unfit_device(const char* name, int major, int minor, int driver) {
  return std::string(name) + " has compute capability " + std::to_string(major) + "." + std::to_string(minor) +
         " and a driver for CUDA " + cuda(driver) + "; this build, of CUDA " + cuda(CUDART_VERSION) +
         ", is for compute capabilities " ORCD_CUDA_ARCHS
         " (90 is 9.0) and newer ones of a driver that compiles for them: use another GPU or driver, a build with "
         "ORCD_CUDA_ARCHS for this one, or --device cpu";
}

}  // namespace orcd::gpu
