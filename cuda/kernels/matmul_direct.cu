// Products of the formats that few models have, on several rows.
#include "kernels/matmul_direct.cuh"

namespace orcd::kernels {

template void matmul_direct<TensorType::kQ2_K>(SeveralRowsArgs&, cudaStream_t);
template void matmul_direct<TensorType::kQ3_K>(SeveralRowsArgs&, cudaStream_t);
template void matmul_direct<TensorType::kIQ4_NL>(SeveralRowsArgs&, cudaStream_t);
template void matmul_direct<TensorType::kIQ4_XS>(SeveralRowsArgs&, cudaStream_t);
template void matmul_direct<TensorType::kMXFP4>(SeveralRowsArgs&, cudaStream_t);

template void matmul_experts_direct<TensorType::kQ2_K>(ExpertsArgs&, uint32_t, cudaStream_t);
template void matmul_experts_direct<TensorType::kQ3_K>(ExpertsArgs&, uint32_t, cudaStream_t);
template void matmul_experts_direct<TensorType::kIQ4_NL>(ExpertsArgs&, uint32_t, cudaStream_t);
template void matmul_experts_direct<TensorType::kIQ4_XS>(ExpertsArgs&, uint32_t, cudaStream_t);

}  // namespace orcd::kernels
