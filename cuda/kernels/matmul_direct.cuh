// Products on several rows of the formats that few models have: a small kernel for each, where those of matmul.cuh are
// many and large. The contract's chain is the same.
//
// A thread block computes sixteen weight rows by up to 64 rows of activations. Its warps take a unit each (a segment of four
// blocks, or a super-block), straight from device memory to where the matrix unit wants it, and what these give is added
// up in the contract's order from shared memory. There are no copies ahead: many thread blocks share a processor.
#pragma once

#include "kernels/fragments.cuh"
#include "kernels/multiply.cuh"
#include "kernels/pdl.h"
#include "kernels/several_rows.cuh"
#include "kernels/shared_results.cuh"
#include "kernels/warp.cuh"

namespace orcd::kernels {
namespace {

struct DirectShape {
  static constexpr uint32_t kTiles = 8, kRows = kTiles * 8, kShares = 8;
  static constexpr uint32_t kThreads = kShares * 32, kWeights = kWarpWeights;
};
static_assert(sizeof(Part<DirectShape>) <= 48 * 1024);

// Where this lane's weight rows g and g + 8 lie. Of rows that there are not, others are taken: nobody reads the results.
struct DirectRows {
  const uint8_t* group[kWarpGroups];
  uint32_t rows[kWarpGroups], row[kWarpGroups];  // of the group; of the lane in it
};

template <TensorType T>
__device__ __forceinline__ DirectRows direct_rows(const SeveralRowsJob& job, uint32_t cols, uint32_t weight0) {
  const uint64_t row_bytes = formats::row_bytes(T, cols);
  DirectRows out;
#pragma unroll
  for (uint32_t i = 0; i < kWarpGroups; ++i) {
    const uint32_t wanted = weight0 + i * kGroupRows, first = wanted < job.n ? wanted : weight0;
    out.group[i] = job.data + first * row_bytes;
    out.rows[i] = min(kGroupRows, job.n - first);
    out.row[i] = min(threadIdx.x % 32 / 4, out.rows[i] - 1);
  }
  return out;
}

// Values 4t .. and 16 + 4t .. of a block as signed bytes. All loads are of words that are aligned in any group.
template <TensorType T>
__device__ __forceinline__ void direct_values(const uint8_t* group, const BlockPlace& at, uint32_t (&out)[2]) {
  constexpr formats::Planes l = kPlanes<T>;
  static_assert(l.low == 0 || formats::HasTable<formats::Format<T>>);
  const uint32_t t = threadIdx.x % 4;
  const auto word = [&](uint32_t offset) { return *reinterpret_cast<const uint32_t*>(group + offset); };
  if constexpr (l.low > 0) {
    constexpr formats::Table table = formats::Format<T>::kTable;
    const LookedUp both = look_up(table, word(at.low + 4 * t));
    out[0] = both.low, out[1] = both.high;
  } else {
    out[0] = word(at.high) >> (2 * t) & 0x03030303u, out[1] = word(at.high + 4) >> (2 * t) & 0x03030303u;
    if constexpr (l.third > 0) {
      const uint32_t third = word(at.third) >> t;
      out[0] |= (third & 0x01010101u) << 2, out[1] |= (third >> 4 & 0x01010101u) << 2;
    }
    out[0] = signed_bytes<T>(out[0]), out[1] = signed_bytes<T>(out[1]);
  }
}

template <TensorType T>
struct DirectWeights {
  uint32_t a[kUnitBlocks<T>][4];
  float d[kWarpGroups][kSupers<T> ? 1 : kSegmentBlocks];
  uint4 head[kWarpGroups];  // of super-blocks
  float dmin[kWarpGroups];
  uint32_t mn[4];  // as mma_halves() takes it
};

// Two bytes, at most 63 each, as binary16 numbers.
__device__ __forceinline__ uint32_t bytes_as_halves(uint32_t bytes) {
  const uint32_t bits = __byte_perm(bytes, 0x64646464u, 0x4140u);  // 1024 + byte
  const __half2 h = __hsub2(*reinterpret_cast<const __half2*>(&bits), __half2half2(__ushort_as_half(0x6400)));
  return *reinterpret_cast<const uint32_t*>(&h);
}

// A unit of so many blocks, from the block `first` of a row of nb on.
template <TensorType T>
__device__ __forceinline__ DirectWeights<T> direct_weights(const DirectRows& own, uint32_t nb, uint32_t first,
                                                           uint32_t blocks) {
  constexpr formats::Planes l = kPlanes<T>;
  const uint32_t t = threadIdx.x % 4;
  DirectWeights<T> w = {};
#pragma unroll
  for (uint32_t i = 0; i < kWarpGroups; ++i) {
    const uint8_t* group = own.group[i];
    const auto half = [&](uint32_t offset) -> uint32_t { return *reinterpret_cast<const uint16_t*>(group + offset); };
#pragma unroll
    for (uint32_t j = 0; j < kUnitBlocks<T>; ++j) {
      if (j >= blocks) break;
      const BlockPlace at = place(l, own.rows[i], nb, first + j, own.row[i]);
      uint32_t values[2];
      direct_values<T>(group, at, values);
      w.a[j][i] = values[0], w.a[j][i + 2] = values[1];
      if constexpr (!kSupers<T>) {
        if constexpr (l.head == 1) w.d[i][j] = formats::power_of(group[at.head]);
        else w.d[i][j] = half_bits(half(at.head));
      }
    }
    if constexpr (kSupers<T>) {
      const BlockPlace at = place(l, own.rows[i], nb, first, own.row[i]);
      const auto word = [&](uint32_t k) {
        return 4 * k < l.head ? *reinterpret_cast<const uint32_t*>(group + at.head + 4 * k) : 0;
      };
      w.head[i] = {word(0), word(1), word(2), word(3)};
      w.d[i][0] = half_bits(l.tail ? half(at.tail) : w.head[i].x);
      if constexpr (kMinima<T>) {
        w.dmin[i] = half_bits(half(at.tail + 2));
        w.mn[i] = bytes_as_halves(half(at.head + 2 * t) >> 4 & 0x0f0fu);
        w.mn[i + 2] = bytes_as_halves(half(at.head + 8 + 2 * t) >> 4 & 0x0f0fu);
      }
    }
  }
  return w;
}

// Of a tile of eight rows: take(i, value), of a lane 4g + t weight rows g (i < 2) and g + 8, rows 2t (even i) and 2t + 1.
// row: of the activations, this lane's g; columns: its 2t and 2t + 1.
template <TensorType T, class Take>
__device__ __forceinline__ void direct_tile(const DirectWeights<T>& w, const SeveralRowsArgs& a, uint32_t first,
                                            uint32_t blocks, uint64_t row, const uint64_t (&columns)[2],
                                            const Take& take) {
  const uint32_t nb = a.cols / kQuantBlock, t = threadIdx.x % 4;
  const uint32_t* q = reinterpret_cast<const uint32_t*>(a.x.q + row * a.cols + first * kQuantBlock) + t;
  if constexpr (!kSupers<T>) {
    float acc[4] = {};
#pragma unroll
    for (uint32_t j = 0; j < kSegmentBlocks; ++j) {
      if (j >= blocks) break;
      int32_t dots[4];
      mma(dots, w.a[j], q[j * 8], q[j * 8 + 4], kMagicBits);
      const float da[2] = {a.x.d[columns[0] * nb + first + j], a.x.d[columns[1] * nb + first + j]};
#pragma unroll
      for (uint32_t e = 0; e < 4; ++e)
        acc[e] = arith::fma32(w.d[e / 2][j] * da[e % 2], arith::float_of(uint32_t(dots[e])) - kMagic, acc[e]);
    }
#pragma unroll
    for (uint32_t e = 0; e < 4; ++e) take(e, acc[e]);
  } else {
    const uint32_t supers = nb / kSuperBlocks, super = first / kSuperBlocks;
    uint32_t shifts[2];
    float da[2], minima[4] = {};
#pragma unroll
    for (uint32_t c = 0; c < 2; ++c)
      shifts[c] = a.x.shifts[columns[c] * supers + super], da[c] = a.x.d[columns[c] * supers + super];
    int32_t products[4] = {};
#pragma unroll
    for (uint32_t j = 0; j < kSuperBlocks; ++j) {
      int32_t sums[2][4], sc[kWarpGroups][2], mn[2] = {};
#pragma unroll
      for (uint32_t i = 0; i < kWarpGroups; ++i) scales_of<T>(w.head[i], j, sc[i], mn);
      const uint32_t b0 = q[j * 8], b1 = q[j * 8 + 4];
      if constexpr (kHalves<T>) {
        mma_k16(sums[0], w.a[j][0], w.a[j][1], b0);
        mma_k16(sums[1], w.a[j][2], w.a[j][3], b1);
      } else {
        mma(sums[0], w.a[j], b0, b1, 0);
      }
#pragma unroll
      for (uint32_t e = 0; e < 4; ++e) {
        int32_t scaled = sc[e / 2][0] * sums[0][e];
        if constexpr (kHalves<T>) scaled += sc[e / 2][1] * sums[1][e];
        products[e] += shifted(scaled, arith::shift_of(shifts[e % 2], j));
      }
    }
    if constexpr (kMinima<T>) {
      const int32_t* sums = a.x.sum + row * nb + first;
      mma_halves(minima, w.mn, uint32_t(sums[t]), uint32_t(sums[4 + t]));
    }
#pragma unroll
    for (uint32_t e = 0; e < 4; ++e)
      take(e, finish_super<T>(products[e], minima[e], w.d[e / 2][0], w.dmin[e / 2], da[e % 2]));
  }
}

template <TensorType T, bool kExperts>
__global__ void __launch_bounds__(DirectShape::kThreads)
    matmul_direct_kernel(const __grid_constant__ ArgsOf<kExperts> a) {
  using S = DirectShape;
  __shared__ Part<S> part;
  constexpr uint32_t kBlocks = kUnitBlocks<T>;
  const uint32_t warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  JobOf<kExperts> job = job_of(a, blockIdx.y);
  const uint32_t weight0 = (blockIdx.y - job.first_tile) * S::kWeights;
  const uint32_t nb = a.cols / kQuantBlock, units = (nb + kBlocks - 1) / kBlocks;
  OwnRows rows = {blockIdx.x * S::kRows, a.rows, nullptr};
  SharedResults<S> results;

  pdl_launch_dependents();
  pdl_wait();
  if constexpr (kExperts) {
    __shared__ uint32_t sources[S::kRows];
    if (!take_tile<T>(a, job, rows, sources)) return;
    __syncthreads();
  }
  const uint32_t count = min(S::kRows, rows.end - rows.first), tiles = (count + 7) / 8;
  const DirectRows own = direct_rows<T>(job, a.cols, weight0);
#pragma unroll 1
  for (uint32_t unit0 = 0; unit0 < units; unit0 += S::kShares) {
    const uint32_t unit = unit0 + warp;
    if (unit < units) {
      const uint32_t first = unit * kBlocks, blocks = min(kBlocks, nb - first);
      const DirectWeights<T> w = direct_weights<T>(own, nb, first, blocks);
#pragma unroll 1
      for (uint32_t n = 0; n < tiles; ++n) {
        const auto source = [&](uint32_t row) { return rows.source(min(n * 8 + row, count - 1)); };
        const uint64_t columns[2] = {source(t * 2), source(t * 2 + 1)};
        direct_tile<T>(w, a, first, blocks, source(g), columns,
                       [&](uint32_t e, float value) { part.y[warp][n * 8 + t * 2 + e % 2][e / 2 * 8 + g] = value; });
      }
    }
    __syncthreads();
    // Of rows that there are not, what lies there is added up too, and not stored.
    results.add(part, min(S::kShares, units - unit0));
    __syncthreads();
  }
  results.store(job, rows.end, rows.first, weight0);
}

}  // namespace

template <TensorType T>
void matmul_direct(SeveralRowsArgs& a, cudaStream_t stream) {
  const uint32_t tiles = cut_into_tiles(a, DirectShape::kWeights);
  const uint32_t blocks = (a.rows + DirectShape::kRows - 1) / DirectShape::kRows;
  launch_kernel(matmul_direct_kernel<T, false>, {dim3(blocks, tiles), DirectShape::kThreads}, true, stream, a);
}

template <TensorType T>
void matmul_experts_direct(ExpertsArgs& a, uint32_t row_tiles, cudaStream_t stream) {
  static_assert(DirectShape::kRows >= kMostTilePlaces);
  const uint32_t tiles = cut_into_tiles(a, DirectShape::kWeights);
  launch_kernel(matmul_direct_kernel<T, true>, {dim3(row_tiles, tiles), DirectShape::kThreads}, true, stream, a);
}

}  // namespace orcd::kernels
