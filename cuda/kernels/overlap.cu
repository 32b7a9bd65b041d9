#include "kernels/overlap.h"

namespace orcd::kernels {
namespace {

__global__ void probe() {}

}  // namespace

bool can_overlap() {
  static const bool can = [] {
    cudaFuncAttributes a = {};
    ORCD_CUDA(cudaFuncGetAttributes(&a, probe));
    // Compiled at load time from an older architecture's PTX, the binary is new and its code waits for nobody.
    return a.binaryVersion >= 90 && a.ptxVersion >= 90;
  }();
  return can;
}

}  // namespace orcd::kernels
