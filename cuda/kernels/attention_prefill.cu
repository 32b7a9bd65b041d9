// Attention of runs of consecutive rows of one sequence, whose keys are in the cache already. A block
// of 256 threads computes 64 rows of one head, split by split in ascending order: scores, then the
// weighted sum, each thread four rows by four keys (or values).
#include "arith/exp2.h"
#include "device/check.h"
#include "kernels/launch.h"
#include "kernels/rope.cuh"
#include "kernels/warp.cuh"

namespace orcd::kernels {
namespace {

constexpr uint32_t kThreads = 256;
constexpr uint32_t kRows = 64;
static_assert(kAttnSplit == 64);

template <uint32_t kDim>
struct Tiles {
  float q[kDim][kRows];        // (value, row)
  float k[kDim][kAttnSplit];   // (value, key)
  float v[kAttnSplit][kDim];   // (key, value)
  float p[kAttnSplit][kRows];  // (key, row)
};

template <uint32_t kDim>
__device__ void load_queries(Tiles<kDim>& s, const Heads& h, const float* q, const PrefillTile& t, uint32_t head) {
  for (uint32_t i = threadIdx.x; i < kRows * kDim; i += kThreads) {
    const uint32_t row = i / kDim, d = i % kDim;
    s.q[d][row] = row < t.count ? q[(uint64_t(t.row + row) * h.n_heads + head) * kDim + d] : 0.0f;
  }
}

// Keys behind `n` are not written yet: zeros stand for them.
template <uint32_t kDim>
__device__ void load_split(Tiles<kDim>& s, const Heads& h, const KvLayer& kv, uint32_t page, uint32_t kv_head,
                           uint32_t n) {
  for (uint32_t i = threadIdx.x; i < kAttnSplit * kDim / 8; i += kThreads) {
    const uint32_t key = i % kAttnSplit, d = i / kAttnSplit * 8;
    uint4 eight = {};
    if (key < n) eight = *reinterpret_cast<const uint4*>(k_at(h, kv, page, kv_head, key, d));
    const __half* values = reinterpret_cast<const __half*>(&eight);
#pragma unroll
    for (uint32_t j = 0; j < 8; ++j) s.k[d + j][key] = __half2float(values[j]);
  }
  for (uint32_t i = threadIdx.x; i < kAttnSplit * kDim / 8; i += kThreads) {
    const uint32_t key = i / kDim * 8, d = i % kDim;
    uint4 eight = {};
    if (key < n) eight = *reinterpret_cast<const uint4*>(v_at(h, kv, page, kv_head, key, d));
    const __half* values = reinterpret_cast<const __half*>(&eight);
#pragma unroll
    for (uint32_t j = 0; j < 8; ++j) s.v[key + j][d] = key + j < n ? __half2float(values[j]) : 0.0f;
  }
}

// How many keys of the split that begins at `first` the row at `position` sees.
__device__ __forceinline__ uint32_t seen_of_split(uint32_t position, uint32_t first) {
  return position < first ? 0 : min(position + 1 - first, kAttnSplit);
}

template <uint32_t kDim>
__global__ void __launch_bounds__(kThreads)
    attention_prefill_kernel(Heads h, KvLayer kv, const float* q, const PrefillTile* tiles, float* out) {
  extern __shared__ __align__(16) uint8_t memory[];
  Tiles<kDim>& s = *reinterpret_cast<Tiles<kDim>*>(memory);
  constexpr uint32_t kValues = kDim / 16;  // values of the head per thread: tx, tx + 16, …
  const PrefillTile t = tiles[blockIdx.x];
  const uint32_t head = blockIdx.y, kv_head = head / (h.n_heads / h.n_kv_heads);
  const uint32_t tx = threadIdx.x % 16, ty = threadIdx.x / 16;  // keys 4 tx .., rows 4 ty ..
  const uint32_t end = t.start + t.count;                       // keys the last row sees

  load_queries(s, h, q, t, head);
  float M[4], L[4], O[4][kValues];
  for (uint32_t split = 0; split * kAttnSplit < end; ++split) {
    __syncthreads();  // the split before is used up; the queries are there
    const uint32_t first = split * kAttnSplit;
    load_split(s, h, kv, page_of(kv, t.slot, first), kv_head, end - first);
    __syncthreads();

    float score[4][4] = {};  // (row, key)
#pragma unroll 8
    for (uint32_t d = 0; d < kDim; ++d) {
      const float4 a = *reinterpret_cast<const float4*>(&s.q[d][4 * ty]);
      const float4 b = *reinterpret_cast<const float4*>(&s.k[d][4 * tx]);
      const float qs[4] = {a.x, a.y, a.z, a.w}, ks[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) score[i][j] = arith::fma32(qs[i], ks[j], score[i][j]);
    }
    float m[4];
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) {
      const uint32_t position = t.start + 4 * ty + i;
      float top = -arith::infinity();
#pragma unroll
      for (uint32_t j = 0; j < 4; ++j) {
        score[i][j] = first + 4 * tx + j <= position ? score[i][j] * h.scale : -arith::infinity();
        top = fmaxf(top, score[i][j]);
      }
#pragma unroll
      for (int stride = 8; stride; stride /= 2) top = fmaxf(top, __shfl_xor_sync(kFull, top, stride));
      m[i] = ceilf(top);
#pragma unroll
      for (uint32_t j = 0; j < 4; ++j)
        s.p[4 * tx + j][4 * ty + i] = first + 4 * tx + j <= position ? arith::exp2(score[i][j] - m[i]) : 0.0f;
    }
    __syncthreads();

    // A key that a row does not see leaves its sum alone: 0 · v is NaN for a value that is not finite.
    float l[4] = {}, o[4][kValues] = {};
    const auto add_key = [&](uint32_t key, auto sees) {
      const float4 a = *reinterpret_cast<const float4*>(&s.p[key][4 * ty]);
      const float ps[4] = {a.x, a.y, a.z, a.w};
#pragma unroll
      for (uint32_t j = 0; j < kValues; ++j) {
        const float v = s.v[key][tx + 16 * j];
#pragma unroll
        for (uint32_t i = 0; i < 4; ++i) o[i][j] = sees(i) ? arith::fma32(ps[i], v, o[i][j]) : o[i][j];
      }
#pragma unroll
      for (uint32_t i = 0; i < 4; ++i) l[i] = l[i] + ps[i];
    };
    const auto all_see = [](uint32_t) { return true; };
    if (first + kAttnSplit <= t.start + 1) {  // the tile's first row sees the whole split
#pragma unroll 4
      for (uint32_t key = 0; key < kAttnSplit; ++key) add_key(key, all_see);
    } else {
      const uint32_t seen = seen_of_split(t.start + 4 * ty, first), most = seen_of_split(t.start + 4 * ty + 3, first);
#pragma unroll 4
      for (uint32_t key = 0; key < seen; ++key) add_key(key, all_see);
      for (uint32_t key = seen; key < most; ++key)
        add_key(key, [&](uint32_t i) { return first + key <= t.start + 4 * ty + i; });
    }
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) {
      if (split == 0) {
        M[i] = m[i], L[i] = l[i];
#pragma unroll
        for (uint32_t j = 0; j < kValues; ++j) O[i][j] = o[i][j];
      } else if (first <= t.start + 4 * ty + i) {  // the row sees this split
        const float top = fmaxf(M[i], m[i]);
        const float a = arith::pow2i(M[i] - top), b = arith::pow2i(m[i] - top);
        L[i] = arith::fma32(l[i], b, L[i] * a);
#pragma unroll
        for (uint32_t j = 0; j < kValues; ++j) O[i][j] = arith::fma32(o[i][j], b, O[i][j] * a);
        M[i] = top;
      }
    }
  }
#pragma unroll
  for (uint32_t i = 0; i < 4; ++i) {
    const uint32_t row = 4 * ty + i;
    if (row >= t.count) continue;
#pragma unroll
    for (uint32_t j = 0; j < kValues; ++j)
      out[(uint64_t(t.row + row) * h.n_heads + head) * kDim + tx + 16 * j] = __fdiv_rn(O[i][j], L[i]);
  }
}

template <uint32_t kDim>
void launch(const Heads& h, const KvLayer& kv, const float* q, const PrefillTile* tiles, uint32_t n_tiles, float* out,
            cudaStream_t stream) {
  constexpr int bytes = sizeof(Tiles<kDim>);
  static const bool ready = [] {
    ORCD_CUDA(cudaFuncSetAttribute(attention_prefill_kernel<kDim>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    return true;
  }();
  (void)ready;
  attention_prefill_kernel<kDim><<<dim3(n_tiles, h.n_heads), kThreads, bytes, stream>>>(h, kv, q, tiles, out);
  ORCD_CUDA(cudaGetLastError());
}

}  // namespace

size_t prefill_shared_bytes(uint32_t head_dim) {
  switch (head_dim) {
    case 32: return sizeof(Tiles<32>);
    case 64: return sizeof(Tiles<64>);
    case 96: return sizeof(Tiles<96>);
    case 128: return sizeof(Tiles<128>);
    default: no_such_head(head_dim);
  }
}

void attention_prefill(const Heads& h, const KvLayer& kv, const float* q, const PrefillTile* tiles, uint32_t n_tiles,
                       float* out, cudaStream_t stream) {
  switch (h.head_dim) {
    case 32: return launch<32>(h, kv, q, tiles, n_tiles, out, stream);
    case 64: return launch<64>(h, kv, q, tiles, n_tiles, out, stream);
    case 96: return launch<96>(h, kv, q, tiles, n_tiles, out, stream);
    case 128: return launch<128>(h, kv, q, tiles, n_tiles, out, stream);
    default: no_such_head(h.head_dim);
  }
}

}  // namespace orcd::kernels
