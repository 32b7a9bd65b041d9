// Products with experts of types with blocks of 32.
#include "kernels/matmul.cuh"

namespace orcd::kernels {

template void matmul_experts_of<TensorType::kQ4_0>(ExpertsArgs&, uint32_t, uint32_t, bool, cudaStream_t);
template void matmul_experts_of<TensorType::kQ4_1>(ExpertsArgs&, uint32_t, uint32_t, bool, cudaStream_t);
template void matmul_experts_of<TensorType::kQ5_0>(ExpertsArgs&, uint32_t, uint32_t, bool, cudaStream_t);
template void matmul_experts_of<TensorType::kQ5_1>(ExpertsArgs&, uint32_t, uint32_t, bool, cudaStream_t);
template void matmul_experts_of<TensorType::kQ8_0>(ExpertsArgs&, uint32_t, uint32_t, bool, cudaStream_t);
template void matmul_experts_of<TensorType::kMXFP4>(ExpertsArgs&, uint32_t, uint32_t, bool, cudaStream_t);

}  // namespace orcd::kernels
