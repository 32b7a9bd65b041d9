// Products of types with blocks of 32, a scale and an addend on several rows.
#include "kernels/matmul.cuh"

namespace orcd::kernels {

template void matmul_of<TensorType::kQ4_1>(SeveralRowsArgs&, cudaStream_t);
template void matmul_of<TensorType::kQ5_1>(SeveralRowsArgs&, cudaStream_t);

}  // namespace orcd::kernels
