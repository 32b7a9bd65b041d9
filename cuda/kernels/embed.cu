// Embedding lookup: a thread block per row, a thread per block of 32 values (per value for floats).
#include "formats/formats.h"
#include "kernels/block.cuh"
#include "kernels/launch.h"
#include "kernels/pdl.h"
#include "kernels/warp.cuh"

namespace orcd::kernels {
namespace {

constexpr uint32_t kThreads = 128;

template <TensorType T>
inline constexpr bool kSignedBytes = kPlanes<T>.low == 32 || formats::HasTable<formats::Format<T>>;

template <TensorType T>
__device__ void embed_block(const Tensor& table, uint32_t token, uint32_t b, float scale, float* x) {
  const uint32_t nb = table.cols / 32;
  const uint8_t* group = table.data + uint64_t(token / kGroupRows) * kGroupRows * formats::row_bytes(T, table.cols);
  const uint32_t in_group = min(kGroupRows, table.rows - token / kGroupRows * kGroupRows);
  const WeightBlock<T> w = load_block<T, false>(group, in_group, nb, b, token % kGroupRows);
  float d[2] = {w.d, w.d}, m[2] = {w.dmin, w.dmin};
#pragma unroll
  for (uint32_t h = 0; h < 2; ++h) {
    if (kSupers<T>) d[h] = w.d * float(w.sc[h]);
    if (kMinima<T>) m[h] = -(w.dmin * float(w.mn[h]));
  }
#pragma unroll
  for (uint32_t i = 0; i < 32; ++i) {
    const uint32_t byte = w.w[i / 4] >> (8 * (i % 4)) & 255u;
    const int32_t q = kSignedBytes<T> ? int32_t(int8_t(byte)) : int32_t(byte) - kOffset<T>;
    const float product = d[i / 16] * float(q);
    x[b * 32 + i] = (kAffine<T> ? product + m[i / 16] : product) * scale;
  }
}

__global__ void embed_kernel(Tensor table, const uint32_t* token, float scale, float* x) {
  // In this order, other than elsewhere: attention looks at positions before it waits, so no later kernel may
  // begin until the step's rows are there.
  pdl_wait();
  pdl_launch_dependents();
  const uint32_t id = token[blockIdx.x];
  float* to = x + uint64_t(blockIdx.x) * table.cols;
  if (!formats::is_quantized(table.type)) {
    const uint64_t row = uint64_t(id) * table.cols;
    for (uint32_t k = threadIdx.x; k < table.cols; k += kThreads) {
      if (table.type == TensorType::kF32) {
        to[k] = reinterpret_cast<const float*>(table.data)[row + k] * scale;
      } else {
        const uint16_t bits = reinterpret_cast<const uint16_t*>(table.data)[row + k];
        to[k] = (table.type == TensorType::kF16 ? arith::f16_to_f32(bits) : arith::bf16_to_f32(bits)) * scale;
      }
    }
    return;
  }
  for (uint32_t b = threadIdx.x; b < table.cols / 32; b += kThreads)
    formats::with_format(table.type, [&]<TensorType T>() { embed_block<T>(table, id, b, scale, to); });
}

}  // namespace

void embed(const Tensor& table, const uint32_t* token, uint32_t rows, float scale, float* x, bool pdl,
           cudaStream_t stream) {
  launch_kernel(embed_kernel, {rows, kThreads}, pdl, stream, table, token, scale, x);
}

}  // namespace orcd::kernels
