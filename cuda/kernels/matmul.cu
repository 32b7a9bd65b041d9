// Products on many rows, for prefill: int8 matrix units give the exact integer sums of each block of 32,
// the float chain of the contract runs beside them in registers.
//
// A thread block computes 64 rows of activations by 64 weight rows. Per segment of 128 it unpacks one
// block of weights per thread into shared memory; warp w takes rows 16 (w % 4) .. and weight rows
// 32 (w / 4) .. as four tiles of m16n8k32.
#include "device/check.h"
#include "kernels/block.cuh"
#include "kernels/launch.h"
#include "kernels/warp.cuh"

namespace orcd::kernels {
namespace {

constexpr uint32_t kTileRows = 64;     // activation rows
constexpr uint32_t kTileWeights = 64;  // weight rows
constexpr uint32_t kThreads = 256;
constexpr uint32_t kStride = 144;  // bytes of a shared row: 36 words keep fragment loads off each other's banks

struct Stage {
  int8_t a[kTileRows][kStride];     // (row, k) activations of the segment
  int8_t w[kTileWeights][kStride];  // (weight row, k)
  float da[kTileRows][4];           // activation scales of the segment's blocks
  float sum[kTileRows][4];          // float(a) of the contract
  float dw[kTileWeights][4];
  float mw[kTileWeights][4];
  int32_t sc[kTileWeights][4];  // Q6_K: both scales of the block, 16 bits each
};

__device__ __forceinline__ void mma_k32(int32_t c[4], const uint32_t a[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%10,%10,%10};"
      : "=r"(c[0]), "=r"(c[1]), "=r"(c[2]), "=r"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "r"(0));
}

__device__ __forceinline__ void mma_k16(int32_t c[4], uint32_t a0, uint32_t a1, uint32_t b) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%7,%7,%7,%7};"
               : "=r"(c[0]), "=r"(c[1]), "=r"(c[2]), "=r"(c[3])
               : "r"(a0), "r"(a1), "r"(b), "r"(0));
}

// Subtracts the type's offset from four stored values: bytes of a signed result.
template <TensorType T>
__device__ __forceinline__ uint32_t signed_bytes(uint32_t stored) {
  if constexpr (kOffset<T> == 0) return stored;
  constexpr uint32_t offset = kOffset<T> * 0x01010101u;
  return ((stored | 0x80808080u) - offset) ^ 0x80808080u;  // no borrow leaves its byte
}

// This thread's share of a segment, on its way from device to shared memory.
template <TensorType T>
struct InFlight {
  WeightBlock<T> w;
  uint4 a[2];
  float da, sum;
};

template <TensorType T>
__device__ __forceinline__ InFlight<T> load_segment(const Tensor& weights, const Activations& act, uint32_t rows,
                                                    uint32_t row0, uint32_t weight0, uint32_t seg) {
  const uint32_t nb = act.cols / 32;
  const uint32_t i = threadIdx.x / 4, j = threadIdx.x % 4, b = seg * kSegmentBlocks + j;
  InFlight<T> f = {};
  // For the weights, lanes of eight share a block, as the layout wants it.
  const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const uint32_t wj = lane / 8, wb = seg * kSegmentBlocks + wj, n = weight0 + warp * 8 + lane % 8;
  if (n < weights.rows && wb < nb) {
    const uint8_t* group = weights.data + uint64_t(n / kGroupRows) * kGroupRows * formats::row_bytes(T, act.cols);
    const uint32_t in_group = min(kGroupRows, weights.rows - n / kGroupRows * kGroupRows);
    f.w = in_group == kGroupRows ? load_block<T, true>(group, kGroupRows, nb, wb, n % kGroupRows)
                                 : load_block<T, false>(group, in_group, nb, wb, n % kGroupRows);
  }
  if (row0 + i < rows && b < nb) {
    const uint64_t row = row0 + i;
    const uint4* q = reinterpret_cast<const uint4*>(act.q + row * act.cols + b * 32);
    f.a[0] = q[0];
    f.a[1] = q[1];
    f.da = act.d[row * nb + b];
    f.sum = float(act.sum[row * nb + b]);
  }
  return f;
}

template <TensorType T>
__device__ __forceinline__ void store_segment(Stage& s, const InFlight<T>& f) {
  const uint32_t i = threadIdx.x / 4, j = threadIdx.x % 4;
  const uint32_t lane = threadIdx.x % 32, n = threadIdx.x / 32 * 8 + lane % 8, wj = lane / 8;
  uint32_t* to = reinterpret_cast<uint32_t*>(&s.w[n][wj * 32]);
#pragma unroll
  for (int word = 0; word < 8; ++word) to[word] = signed_bytes<T>(f.w.w[word]);
  s.dw[n][wj] = f.w.d;
  s.mw[n][wj] = f.w.m;
  if constexpr (kSplit<T>) s.sc[n][wj] = (f.w.sc0 & 0xffff) | f.w.sc1 << 16;
  *reinterpret_cast<uint4*>(&s.a[i][j * 32]) = f.a[0];
  *reinterpret_cast<uint4*>(&s.a[i][j * 32 + 16]) = f.a[1];
  s.da[i][j] = f.da;
  s.sum[i][j] = f.sum;
}

// Adds one segment to the warp's results.
template <TensorType T>
__device__ __forceinline__ void multiply(const Stage& s, uint32_t blocks, float y[4][4]) {
  const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const uint32_t row = warp % 4 * 16 + g, weight = warp / 4 * 32;
  float acc[4][4] = {};
#pragma unroll
  for (uint32_t j = 0; j < kSegmentBlocks; ++j) {
    if (j >= blocks) break;
    const uint32_t k = j * 32 + t * 4;
    const auto at = [](const int8_t* p) { return *reinterpret_cast<const uint32_t*>(p); };
    const uint32_t a[4] = {at(&s.a[row][k]), at(&s.a[row + 8][k]), at(&s.a[row][k + 16]), at(&s.a[row + 8][k + 16])};
    const float da[2] = {s.da[row][j], s.da[row + 8][j]};
    const float sum[2] = {s.sum[row][j], s.sum[row + 8][j]};
#pragma unroll
    for (uint32_t tile = 0; tile < 4; ++tile) {
      const int8_t* w = s.w[weight + tile * 8 + g];
      const uint32_t b0 = at(w + k), b1 = at(w + k + 16);
      const uint32_t column = weight + tile * 8 + t * 2;
      int32_t c[4];
      if constexpr (kSplit<T>) {
        int32_t first[4], second[4];
        mma_k16(first, a[0], a[1], b0);
        mma_k16(second, a[2], a[3], b1);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int32_t sc = s.sc[column + i % 2][j];
          c[i] = int32_t(int16_t(sc)) * first[i] + (sc >> 16) * second[i];
        }
      } else {
        mma_k32(c, a, b0, b1);
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {  // (row, column), (row, column + 1), (row + 8, ...)
        const float d = da[i / 2];
        acc[tile][i] = arith::fma32(s.dw[column + i % 2][j] * d, float(c[i]), acc[tile][i]);
        if constexpr (kAffine<T>) acc[tile][i] = arith::fma32(s.mw[column + i % 2][j] * d, sum[i / 2], acc[tile][i]);
      }
    }
  }
#pragma unroll
  for (int tile = 0; tile < 4; ++tile)
#pragma unroll
    for (int i = 0; i < 4; ++i) y[tile][i] = y[tile][i] + acc[tile][i];
}

template <TensorType T>
__global__ void __launch_bounds__(kThreads) matmul_kernel(MatmulArgs p, Activations act, uint32_t rows) {
  extern __shared__ __align__(16) uint8_t memory[];
  Stage* stages = reinterpret_cast<Stage*>(memory);  // two: one is read while the other is filled
  const uint32_t row0 = blockIdx.y * kTileRows, weight0 = blockIdx.x * kTileWeights;
  const uint32_t nb = act.cols / 32, segments = (nb + kSegmentBlocks - 1) / kSegmentBlocks;
  float y[4][4] = {};
  store_segment<T>(stages[0], load_segment<T>(p.w, act, rows, row0, weight0, 0));
  __syncthreads();
  for (uint32_t seg = 0; seg < segments; ++seg) {
    InFlight<T> next;
    const bool more = seg + 1 < segments;
    if (more) next = load_segment<T>(p.w, act, rows, row0, weight0, seg + 1);
    multiply<T>(stages[seg % 2], min(kSegmentBlocks, nb - seg * kSegmentBlocks), y);
    if (more) store_segment<T>(stages[(seg + 1) % 2], next);
    __syncthreads();
  }
  const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
  for (uint32_t tile = 0; tile < 4; ++tile)
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) {
      const uint32_t row = row0 + warp % 4 * 16 + lane / 4 + i / 2 * 8;
      const uint32_t n = weight0 + warp / 4 * 32 + tile * 8 + lane % 4 * 2 + i % 2;
      if (row >= rows || n >= p.w.rows) continue;
      float* to = p.y + uint64_t(row) * p.w.rows + n;
      const float product = p.bias ? y[tile][i] + p.bias[n] : y[tile][i];
      *to = p.add ? *to + product : product;
    }
}

template <TensorType T>
void launch(const MatmulArgs& p, const Activations& a, uint32_t rows, cudaStream_t stream) {
  constexpr int bytes = 2 * sizeof(Stage);
  static const bool ready = [] {
    ORCD_CUDA(cudaFuncSetAttribute(matmul_kernel<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    return true;
  }();
  (void)ready;
  const dim3 grid((p.w.rows + kTileWeights - 1) / kTileWeights, (rows + kTileRows - 1) / kTileRows);
  matmul_kernel<T><<<grid, kThreads, bytes, stream>>>(p, a, rows);
  ORCD_CUDA(cudaGetLastError());
}

}  // namespace

void matmul(const MatmulArgs& p, const Activations& a, uint32_t rows, cudaStream_t stream) {
  if (!formats::is_quantized(p.w.type)) return matmul_float(p, a, rows, stream);
  formats::with_format(p.w.type, [&]<TensorType T>() { launch<T>(p, a, rows, stream); });
}

}  // namespace orcd::kernels
