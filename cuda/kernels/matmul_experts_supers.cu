// Products with experts of types with super-blocks.
#include "kernels/matmul.cuh"

namespace orcd::kernels {

template void matmul_experts_of<TensorType::kQ4_K>(ExpertsArgs&, uint32_t, uint32_t, bool, cudaStream_t);
template void matmul_experts_of<TensorType::kQ5_K>(ExpertsArgs&, uint32_t, uint32_t, bool, cudaStream_t);
template void matmul_experts_of<TensorType::kQ6_K>(ExpertsArgs&, uint32_t, uint32_t, bool, cudaStream_t);

}  // namespace orcd::kernels
