// Products of a small batch of types with blocks of 32.
#include "kernels/small_batch.cuh"

namespace orcd::kernels {

SmallBatchKernel small_batch_of_blocks(TensorType type, TensorType other) {
  using enum TensorType;
  if (type == kQ5_0 && other == kQ8_0) return small_kernel_of<kQ5_0, kQ8_0>();
  if (type != other) return nullptr;
  switch (type) {
    case kQ4_0: return small_kernel_of<kQ4_0>();
    case kQ4_1: return small_kernel_of<kQ4_1>();
    case kQ5_0: return small_kernel_of<kQ5_0>();
    case kQ5_1: return small_kernel_of<kQ5_1>();
    case kQ8_0: return small_kernel_of<kQ8_0>();
    default: return nullptr;
  }
}

}  // namespace orcd::kernels
