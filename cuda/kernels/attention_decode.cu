// Attention of one new token per sequence. A warp does one split of 64 keys: lanes hold keys l and
// l + 32 for the scores, then values l, l + 32, … of the head for the sum. A block of four warps takes
// every gridDim.x-th run of four splits of one head; what it finds is combined in ascending order, in shared
// memory when one block holds all splits, otherwise by the block that arrives last.
#include "arith/exp2.h"
#include "device/check.h"
#include "kernels/launch.h"
#include "kernels/rope.cuh"
#include "kernels/warp.cuh"

namespace orcd::kernels {
namespace {

constexpr uint32_t kWarps = 4;

template <uint32_t kDim>
struct SplitResult {
  float m, l, o[kDim / 32];  // o: values lane, lane + 32, …
};

// Keys first .. first + n of a sequence; key `fresh` (if in there) comes from shared memory.
template <uint32_t kDim>
__device__ SplitResult<kDim> split_attention(const DecodeAttention& a, uint32_t kv_head, uint32_t page, uint32_t n,
                                             uint32_t fresh, const float* q, const float* fresh_k,
                                             const float* fresh_v, float* p) {
  const Heads& h = a.heads;
  const uint32_t lane = threadIdx.x % 32;
  float t[2];
#pragma unroll
  for (uint32_t i = 0; i < 2; ++i) {
    const uint32_t key = lane + 32 * i;
    float s = 0.0f;
    if (key < n && key != fresh) {
      const __half* k = k_at(h, a.kv, page, kv_head, key, 0);
#pragma unroll
      for (uint32_t d = 0; d < kDim; d += 8) {
        const uint4 eight = *reinterpret_cast<const uint4*>(k + d / 8 * (kAttnSplit * 8));
        const __half2* pairs = reinterpret_cast<const __half2*>(&eight);
#pragma unroll
        for (uint32_t j = 0; j < 4; ++j) {
          const float2 two = __half22float2(pairs[j]);
          s = arith::fma32(q[d + 2 * j], two.x, s);
          s = arith::fma32(q[d + 2 * j + 1], two.y, s);
        }
      }
    } else if (key < n) {
      for (uint32_t d = 0; d < kDim; ++d) s = arith::fma32(q[d], fresh_k[d], s);
    }
    t[i] = key < n ? s * h.scale : -arith::infinity();
  }
  SplitResult<kDim> r;
  float top = fmaxf(t[0], t[1]);
#pragma unroll
  for (int stride = 16; stride; stride /= 2) top = fmaxf(top, __shfl_xor_sync(kFull, top, stride));
  r.m = ceilf(top);
#pragma unroll
  for (uint32_t i = 0; i < 2; ++i) p[lane + 32 * i] = lane + 32 * i < n ? arith::exp2(t[i] - r.m) : 0.0f;
  __syncwarp();

  r.l = 0.0f;
#pragma unroll
  for (uint32_t i = 0; i < kDim / 32; ++i) r.o[i] = 0.0f;
  const __half* v = v_at(h, a.kv, page, kv_head, 0, lane);
#pragma unroll 16
  for (uint32_t key = 0; key < n; ++key) {
    const float w = p[key];
    r.l = r.l + w;
#pragma unroll
    for (uint32_t i = 0; i < kDim / 32; ++i) {
      const float value = key == fresh ? fresh_v[lane + 32 * i] : __half2float(v[uint64_t(key) * kDim + 32 * i]);
      r.o[i] = arith::fma32(w, value, r.o[i]);
    }
  }
  __syncwarp();
  return r;
}

// Appends split (m, l, o) to the running combination; one thread per value of the head.
__device__ __forceinline__ void combine(float& M, float& L, float& O, float m, float l, float o, bool first) {
  if (first) {
    M = m, L = l, O = o;
    return;
  }
  const float top = fmaxf(M, m);
  const float a = arith::pow2i(M - top), b = arith::pow2i(m - top);
  L = arith::fma32(l, b, L * a);
  O = arith::fma32(o, b, O * a);
  M = top;
}

template <uint32_t kDim>
__global__ void __launch_bounds__(kWarps * 32) attention_decode_kernel(const __grid_constant__ DecodeAttention a) {
  __shared__ float q[kDim], fresh_k[kDim], fresh_v[kDim], raw_q[kDim], raw_k[kDim];
  __shared__ float p[kWarps][kAttnSplit];
  __shared__ float local[kWarps][kDim + 2];
  __shared__ bool last;

  let_successor_start();
  wait_for_predecessor();
  const Heads& h = a.heads;
  const uint32_t head = blockIdx.y, count_index = blockIdx.z;
  const uint32_t row = a.row ? a.row[count_index] : count_index;
  const uint32_t position = a.position[row], slot = a.slot[row];
  const uint32_t splits = position / kAttnSplit + 1;
  const uint32_t blocks = min((splits + kWarps - 1) / kWarps, gridDim.x);
  if (blockIdx.x >= blocks) return;
  const uint32_t kv_head = head / (h.n_heads / h.n_kv_heads);
  const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;

  const float* q_row = a.q + (uint64_t(row) * h.n_heads + head) * kDim;
  const float* k_row = a.k + (uint64_t(row) * h.n_kv_heads + kv_head) * kDim;
  const float* v_row = a.v + (uint64_t(row) * h.n_kv_heads + kv_head) * kDim;
  for (uint32_t d = threadIdx.x; d < kDim; d += blockDim.x) {
    raw_q[d] = q_row[d];
    if (a.rotate) {
      raw_k[d] = k_row[d];
      fresh_v[d] = __half2float(__float2half_rn(v_row[d]));
    }
  }
  __syncthreads();
  for (uint32_t d = threadIdx.x; d < kDim; d += blockDim.x) {
    q[d] = a.rotate ? rotated(h, raw_q, position, d) : raw_q[d];
    if (!a.rotate) continue;
    const __half k = __float2half_rn(rotated(h, raw_k, position, d));
    fresh_k[d] = __half2float(k);
    // One block appends for all heads of the group; nobody reads this key from the cache in this step.
    if (head % (h.n_heads / h.n_kv_heads) == 0 && blockIdx.x == 0) {
      const uint32_t page = page_of(a.kv, slot, position);
      *k_at(h, a.kv, page, kv_head, position % kAttnSplit, d) = k;
      *v_at(h, a.kv, page, kv_head, position % kAttnSplit, d) = __float2half_rn(v_row[d]);
    }
  }
  __syncthreads();

  float* partial = a.partial + (uint64_t(count_index) * h.n_heads + head) * a.splits * (kDim + 2);
  for (uint32_t split = blockIdx.x * kWarps + warp; split < splits; split += blocks * kWarps) {
    const bool newest = split + 1 == splits;
    const uint32_t n = newest ? position % kAttnSplit + 1 : kAttnSplit;
    const uint32_t fresh = newest && a.rotate ? position % kAttnSplit : kAttnSplit;
    const SplitResult<kDim> r = split_attention<kDim>(a, kv_head, page_of(a.kv, slot, split * kAttnSplit), n, fresh, q,
                                                      fresh_k, fresh_v, p[warp]);
    float* to = blocks == 1 && splits <= kWarps ? local[warp] : partial + uint64_t(split) * (kDim + 2);
#pragma unroll
    for (uint32_t i = 0; i < kDim / 32; ++i) to[lane + 32 * i] = r.o[i];
    if (lane == 0) to[kDim] = r.m, to[kDim + 1] = r.l;
  }

  const bool in_shared = blocks == 1 && splits <= kWarps;
  if (blocks > 1) {
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
      uint32_t* arrived = a.arrived + count_index * h.n_heads + head;
      last = atomicAdd(arrived, 1) + 1 == blocks;
      if (last) *arrived = 0;
    }
    __syncthreads();
    if (!last) return;
    __threadfence();
  } else {
    __syncthreads();
  }
  for (uint32_t d = threadIdx.x; d < kDim; d += blockDim.x) {
    float M = 0, L = 0, O = 0;
#pragma unroll 4
    for (uint32_t split = 0; split < splits; ++split) {
      const float* from = in_shared ? local[split] : partial + uint64_t(split) * (kDim + 2);
      const float m = in_shared ? from[kDim] : __ldcg(from + kDim), l = in_shared ? from[kDim + 1] : __ldcg(from + kDim + 1);
      combine(M, L, O, m, l, in_shared ? from[d] : __ldcg(from + d), split == 0);
    }
    a.out[(uint64_t(row) * h.n_heads + head) * kDim + d] = __fdiv_rn(O, L);
  }
}

template <uint32_t kDim>
void launch(const DecodeAttention& a, uint32_t count, bool overlap, cudaStream_t stream) {
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  // Enough blocks for a long context of few sequences; those without a split leave at once.
  const uint32_t most = (a.splits + kWarps - 1) / kWarps;
  config.gridDim = dim3(min(most, max(1u, 64u / max(count, 1u))), a.heads.n_heads, count);
  config.blockDim = kWarps * 32;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = overlap ? 1 : 0;
  ORCD_CUDA(cudaLaunchKernelEx(&config, attention_decode_kernel<kDim>, a));
}

}  // namespace

void attention_decode(const DecodeAttention& a, uint32_t count, bool overlap, cudaStream_t stream) {
  switch (a.heads.head_dim) {
    case 32: return launch<32>(a, count, overlap, stream);
    case 64: return launch<64>(a, count, overlap, stream);
    case 96: return launch<96>(a, count, overlap, stream);
    case 128: return launch<128>(a, count, overlap, stream);
    default:
      throw Error(ErrorKind::kInvalid, "head_dim " + std::to_string(a.heads.head_dim) +
                                           " is not supported on CUDA; 32, 64, 96 and 128 are");
  }
}

}  // namespace orcd::kernels
