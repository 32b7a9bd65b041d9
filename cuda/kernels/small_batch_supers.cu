// Products of a small batch of K-quants.
#include "kernels/small_batch.cuh"

namespace orcd::kernels {

SmallBatchKernel small_batch_of_supers(TensorType type, TensorType other) {
  using enum TensorType;
  if (type == kQ4_K && other == kQ6_K) return small_kernel_of<kQ4_K, kQ6_K>();
  if (type == kQ5_K && other == kQ6_K) return small_kernel_of<kQ5_K, kQ6_K>();
  if (type != other) return nullptr;
  switch (type) {
    case kQ4_K: return small_kernel_of<kQ4_K>();
    case kQ5_K: return small_kernel_of<kQ5_K>();
    case kQ6_K: return small_kernel_of<kQ6_K>();
    default: return nullptr;
  }
}

}  // namespace orcd::kernels
