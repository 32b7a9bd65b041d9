// Products of K-quants on several rows.
#include "kernels/matmul.cuh"

namespace orcd::kernels {

template void matmul_of<TensorType::kQ4_K>(SeveralRowsArgs&, cudaStream_t);
template void matmul_of<TensorType::kQ5_K>(SeveralRowsArgs&, cudaStream_t);
template void matmul_of<TensorType::kQ6_K>(SeveralRowsArgs&, cudaStream_t);

}  // namespace orcd::kernels
