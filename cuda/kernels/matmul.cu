// Products on several rows: those of one type share a launch.
#include "formats/formats.h"
#include "kernels/several_rows.cuh"

namespace orcd::kernels {
namespace {

void launch_alike(const MatmulArgs* products, uint32_t n, const Activations& x, uint32_t rows, cudaStream_t stream) {
  SeveralRowsArgs a = several_rows(products, n, x, rows);
  formats::with_format(products[0].w.type, [&]<TensorType T>() {
    if constexpr (kHasShapes<T>) matmul_of<T>(a, stream);
    else matmul_direct<T>(a, stream);
  });
}

}  // namespace

void matmul(const MatmulArgs* products, uint32_t n, const Activations& a, uint32_t rows, cudaStream_t stream) {
  for (uint32_t first = 0, end; first < n; first = end) {
    const TensorType type = products[first].w.type;
    end = first + 1;
    if (!formats::is_quantized(type)) {
      matmul_float(products[first], a, rows, stream);
      continue;
    }
    while (end < n && end - first < kMostJobs && products[end].w.type == type) ++end;
    launch_alike(products + first, end - first, a, rows, stream);
  }
}

}  // namespace orcd::kernels
