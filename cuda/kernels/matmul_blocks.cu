// Products of types with blocks of 32 and a scale on several rows.
#include "kernels/matmul.cuh"

namespace orcd::kernels {

template void matmul_of<TensorType::kQ4_0>(SeveralRowsArgs&, cudaStream_t);
template void matmul_of<TensorType::kQ5_0>(SeveralRowsArgs&, cudaStream_t);
template void matmul_of<TensorType::kQ8_0>(SeveralRowsArgs&, cudaStream_t);

}  // namespace orcd::kernels
