// Attention of one new token per sequence. A warp does one split of 64 keys: lanes hold keys l and
// l + 32 for the scores, then values l, l + 32, … of the head for the sum. A block of four warps takes
// every gridDim.x-th run of four splits of one head; what it finds is combined in ascending order, in shared
// memory when one block holds all splits, otherwise by the block that arrives last.
#include "arith/exp2.h"
#include "device/check.h"
#include "kernels/launch.h"
#include "kernels/pdl.h"
#include "kernels/rope.cuh"
#include "kernels/warp.cuh"

namespace orcd::kernels {
namespace {

constexpr uint32_t kWarps = 4;
static_assert(kDecodeShallow == kWarps * kAttnSplit);  // these splits meet in shared memory

// A split's keys and values on their way: lane holds keys lane, lane + 32 and values lane, lane + 32, …
template <uint32_t kDim>
struct SplitData {
  uint4 k[2][kDim / 8];                // (key, 8 values)
  uint4 v[kDim / 32][kAttnSplit / 8];  // (value, 8 keys)
};

// Keeps the first `keep` of eight binary16 values, zeros for the rest: what lies there may be no number.
__device__ __forceinline__ uint4 first_of(uint4 v, uint32_t keep) {
  uint32_t* words = reinterpret_cast<uint32_t*>(&v);
#pragma unroll
  for (uint32_t i = 0; i < 4; ++i) words[i] &= keep >= 2 * i + 2 ? kFull : keep == 2 * i + 1 ? 0xffffu : 0u;
  return v;
}

// Keys from `n` on come as zeros.
template <uint32_t kDim>
__device__ __forceinline__ void load_split(SplitData<kDim>& x, const Heads& h, const KvLayer& kv, uint32_t kv_head,
                                           uint32_t page, uint32_t n) {
  const uint32_t lane = threadIdx.x % 32;
#pragma unroll
  for (uint32_t i = 0; i < 2; ++i)
#pragma unroll
    for (uint32_t d = 0; d < kDim / 8; ++d) {
      x.k[i][d] = uint4{};
      if (lane + 32 * i < n)
        x.k[i][d] = *reinterpret_cast<const uint4*>(k_at(h, kv, page, kv_head, lane + 32 * i, 8 * d));
    }
#pragma unroll
  for (uint32_t i = 0; i < kDim / 32; ++i)
#pragma unroll
    for (uint32_t o = 0; o < kAttnSplit / 8; ++o) {
      x.v[i][o] = uint4{};
      if (8 * o < n) x.v[i][o] = *reinterpret_cast<const uint4*>(v_at(h, kv, page, kv_head, 8 * o, lane + 32 * i));
      if (8 * o < n && 8 * o + 8 > n) x.v[i][o] = first_of(x.v[i][o], n - 8 * o);
    }
}

template <uint32_t kDim>
struct SplitResult {
  float m, l, o[kDim / 32];  // o: values lane, lane + 32, …
};

// Attention over the first n keys of a split. With `fresh` the last of them is this step's: it comes from
// shared memory, and being the last it is added last.
template <uint32_t kDim>
__device__ __forceinline__ SplitResult<kDim> split_attention(SplitData<kDim>& x, float scale, uint32_t n, bool fresh,
                                                             const float* q, const __half* fresh_k,
                                                             const float* fresh_v, float* p) {
  const uint32_t lane = threadIdx.x % 32, last = n - 1;
  if (fresh && lane == last % 32) {
#pragma unroll
    for (uint32_t d = 0; d < kDim / 8; ++d) {
      const uint4 eight = *reinterpret_cast<const uint4*>(fresh_k + 8 * d);
      (last < 32 ? x.k[0][d] : x.k[1][d]) = eight;
    }
  }
  float t[2] = {0.0f, 0.0f};
#pragma unroll
  for (uint32_t d = 0; d < kDim / 8; ++d) {
    const __half2* first = reinterpret_cast<const __half2*>(&x.k[0][d]);
    const __half2* second = reinterpret_cast<const __half2*>(&x.k[1][d]);
#pragma unroll
    for (uint32_t j = 0; j < 2; ++j) {
      const float4 four = *reinterpret_cast<const float4*>(q + 8 * d + 4 * j);
      const float2 a = __half22float2(first[2 * j]), b = __half22float2(second[2 * j]);
      const float2 c = __half22float2(first[2 * j + 1]), e = __half22float2(second[2 * j + 1]);
      t[0] = arith::fma32(four.x, a.x, t[0]);
      t[1] = arith::fma32(four.x, b.x, t[1]);
      t[0] = arith::fma32(four.y, a.y, t[0]);
      t[1] = arith::fma32(four.y, b.y, t[1]);
      t[0] = arith::fma32(four.z, c.x, t[0]);
      t[1] = arith::fma32(four.z, e.x, t[1]);
      t[0] = arith::fma32(four.w, c.y, t[0]);
      t[1] = arith::fma32(four.w, e.y, t[1]);
    }
  }
#pragma unroll
  for (uint32_t i = 0; i < 2; ++i) t[i] = lane + 32 * i < n ? t[i] * scale : -arith::infinity();
  SplitResult<kDim> r;
  float top = fmaxf(t[0], t[1]);
#pragma unroll
  for (int stride = 16; stride; stride /= 2) top = fmaxf(top, __shfl_xor_sync(kFull, top, stride));
  r.m = ceilf(top);
  const float w0 = lane < n ? arith::exp2(t[0] - r.m) : 0.0f;
  const float w1 = lane + 32 < n ? arith::exp2(t[1] - r.m) : 0.0f;
  const float of_last = __shfl_sync(kFull, last < 32 ? w0 : w1, last % 32);
  p[lane] = fresh && lane == last ? 0.0f : w0;
  p[lane + 32] = fresh && lane + 32 == last ? 0.0f : w1;
  __syncwarp();

  r.l = 0.0f;
#pragma unroll
  for (uint32_t i = 0; i < kDim / 32; ++i) r.o[i] = 0.0f;
#pragma unroll
  for (uint32_t o = 0; o < kAttnSplit / 8; ++o) {
    if (8 * o >= n) break;
    const float4 low = *reinterpret_cast<const float4*>(p + 8 * o),
                 high = *reinterpret_cast<const float4*>(p + 8 * o + 4);
    const float w[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
    for (uint32_t j = 0; j < 8; j += 2) {  // weights behind the last key are 0, and so are the values
      r.l = (r.l + w[j]) + w[j + 1];
#pragma unroll
      for (uint32_t i = 0; i < kDim / 32; ++i) {
        const float2 v = __half22float2(reinterpret_cast<const __half2*>(&x.v[i][o])[j / 2]);
        r.o[i] = arith::fma32(w[j], v.x, r.o[i]);
        r.o[i] = arith::fma32(w[j + 1], v.y, r.o[i]);
      }
    }
  }
  if (fresh) {
    r.l = r.l + of_last;
#pragma unroll
    for (uint32_t i = 0; i < kDim / 32; ++i) r.o[i] = arith::fma32(of_last, fresh_v[lane + 32 * i], r.o[i]);
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

// The largest of a warp's values up to each lane's.
__device__ __forceinline__ float prefix_max(float m) {
  const uint32_t lane = threadIdx.x % 32;
#pragma unroll
  for (uint32_t stride = 1; stride < 32; stride *= 2) {
    const float before = __shfl_up_sync(kFull, m, stride);
    if (lane >= stride) m = fmaxf(m, before);
  }
  return m;
}

// Combines splits that lie in device memory: one warp finds the factors of 32 of them at once, from their
// running maximum, and then each thread goes through its value's chain. By the whole block.
template <uint32_t kDim>
__device__ __forceinline__ void combine_many(const float* partial, uint32_t splits, float& L, float& O) {
  __shared__ float old_factor[32], new_factor[32], sums[32];
  constexpr uint32_t kAtOnce = 16;  // loads in flight
  const uint32_t lane = threadIdx.x % 32, d = min(threadIdx.x, kDim - 1);
  float largest = 0.0f;  // of all splits before
  for (uint32_t first = 0; first < splits; first += 32) {
    const uint32_t n = min(32u, splits - first);
    __syncthreads();
    if (threadIdx.x < 32) {
      const float* own = partial + uint64_t(first + min(lane, n - 1)) * (kDim + 2) + kDim;
      const float m = __ldcg(own), within = prefix_max(m);
      const float M = first ? fmaxf(largest, within) : within;
      const float up = __shfl_up_sync(kFull, M, 1), before = lane ? up : largest;
      old_factor[lane] = arith::pow2i(before - M);
      new_factor[lane] = arith::pow2i(m - M);
      sums[lane] = __ldcg(own + 1);
      largest = __shfl_sync(kFull, M, 31);
    }
    __syncthreads();
    for (uint32_t base = 0; base < n; base += kAtOnce) {
      float o[kAtOnce];
#pragma unroll
      for (uint32_t i = 0; i < kAtOnce; ++i)
        o[i] = base + i < n ? __ldcg(partial + uint64_t(first + base + i) * (kDim + 2) + d) : 0.0f;
#pragma unroll
      for (uint32_t i = 0; i < kAtOnce; ++i) {
        const uint32_t at = base + i;
        if (at >= n) break;
        const bool start = first + at == 0;
        L = start ? sums[at] : arith::fma32(sums[at], new_factor[at], L * old_factor[at]);
        O = start ? o[i] : arith::fma32(o[i], new_factor[at], O * old_factor[at]);
      }
    }
  }
}

template <uint32_t kDim>
__global__ void __launch_bounds__(kWarps * 32) attention_decode_kernel(const __grid_constant__ DecodeAttention a) {
  __shared__ __align__(16) float q[kDim], fresh_v[kDim];
  __shared__ __align__(16) __half fresh_k[kDim];
  __shared__ __align__(16) float p[kWarps][kAttnSplit];
  __shared__ float local[kWarps][kDim + 2];
  __shared__ bool last;

  pdl_launch_dependents();
  const Heads& h = a.heads;
  const uint32_t head = blockIdx.y, count_index = blockIdx.z;
  const uint32_t row = a.row ? a.row[count_index] : count_index;
  // Written by the step's first kernel, for which no kernel behind embed has waited itself.
  const uint32_t position = __ldcg(a.position + row), slot = __ldcg(a.slot + row);
  const uint32_t splits = position / kAttnSplit + 1;
  const uint32_t blocks = min((splits + kWarps - 1) / kWarps, gridDim.x);
  if (blockIdx.x >= blocks) return;
  const uint32_t kv_head = head / (h.n_heads / h.n_kv_heads);
  const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;

  // What earlier steps left in the cache depends on no kernel of this one: fetch before waiting.
  const auto keys_in = [&](uint32_t split) { return split + 1 == splits ? position % kAttnSplit + 1 : kAttnSplit; };
  uint32_t split = blockIdx.x * kWarps + warp;
  SplitData<kDim> data;
  if (a.rotate && split < splits) {
    const uint32_t stored = keys_in(split) - (split + 1 == splits ? 1 : 0);
    load_split(data, h, a.kv, kv_head, page_of(a.kv, slot, split * kAttnSplit), stored);
  }
  const uint32_t d = threadIdx.x;  // the value of the head that this thread rotates and combines
  const Pair pair = pair_of(h.style, kDim, d);
  const float2 angle = a.rotate && d < kDim ? angle_of(h, position, pair) : float2{};
  // One block appends for all heads of the group; nobody reads this key from the cache in this step.
  const bool appends = a.rotate && d < kDim && head % (h.n_heads / h.n_kv_heads) == 0 && blockIdx.x == 0;
  const uint32_t append_page = appends ? page_of(a.kv, slot, position) : 0;
  __half* k_to = k_at(h, a.kv, append_page, kv_head, position % kAttnSplit, d);
  __half* v_to = v_at(h, a.kv, append_page, kv_head, position % kAttnSplit, d);
  const float* q_row = a.q + (uint64_t(row) * h.n_heads + head) * kDim;
  const float* k_row = a.k + (uint64_t(row) * h.n_kv_heads + kv_head) * kDim;
  const float* v_row = a.v + (uint64_t(row) * h.n_kv_heads + kv_head) * kDim;
  // Arguments and addresses that are fetched before the wait cost nothing.
  asm volatile("" : "+l"(q_row), "+l"(k_row), "+l"(v_row), "+l"(k_to), "+l"(v_to));
  pdl_wait();
  if (!a.rotate && split < splits)
    load_split(data, h, a.kv, kv_head, page_of(a.kv, slot, split * kAttnSplit), keys_in(split));

  if (d < kDim) {
    if (a.rotate) {
      const float q0 = q_row[d], q1 = q_row[pair.partner], k0 = k_row[d], k1 = k_row[pair.partner];
      const __half v = __float2half_rn(v_row[d]), k = __float2half_rn(rotate(k0, k1, angle, pair.first));
      q[d] = rotate(q0, q1, angle, pair.first);
      fresh_k[d] = k;
      fresh_v[d] = __half2float(v);
      if (appends) *k_to = k, *v_to = v;
    } else {
      q[d] = q_row[d];
    }
  }
  __syncthreads();

  float* partial = a.partial + (uint64_t(count_index) * h.n_heads + head) * a.splits * (kDim + 2);
  while (split < splits) {
    const bool newest = split + 1 == splits;
    const SplitResult<kDim> r =
        split_attention<kDim>(data, h.scale, keys_in(split), newest && a.rotate, q, fresh_k, fresh_v, p[warp]);
    float* to = blocks == 1 && splits <= kWarps ? local[warp] : partial + uint64_t(split) * (kDim + 2);
#pragma unroll
    for (uint32_t i = 0; i < kDim / 32; ++i) to[lane + 32 * i] = r.o[i];
    if (lane == 0) to[kDim] = r.m, to[kDim + 1] = r.l;
    split += blocks * kWarps;
    if (split < splits) {
      const uint32_t stored = keys_in(split) - (a.rotate && split + 1 == splits ? 1 : 0);
      load_split(data, h, a.kv, kv_head, page_of(a.kv, slot, split * kAttnSplit), stored);
    }
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
  float L = 0, O = 0;
  if (in_shared) {
    float M = 0;
    for (uint32_t i = 0; i < splits && d < kDim; ++i)
      combine(M, L, O, local[i][kDim], local[i][kDim + 1], local[i][d], i == 0);
  } else {
    combine_many<kDim>(partial, splits, L, O);
  }
  if (d >= kDim) return;  // whole warps: kDim is a multiple of 32
  const float y = __fdiv_rn(O, L);
  a.out.x[(uint64_t(row) * h.n_heads + head) * kDim + d] = y;
  if (!a.out.q && !a.tiled.q) return;
  const QuantizedLane quantized = quantize_block(y);
  if (a.out.q) store_block(a.out, row, (head * kDim + d) / 32, quantized);
  else store_block(a.tiled, row, (head * kDim + d) / 32, quantized);
}

template <uint32_t kDim>
void launch(const DecodeAttention& a, uint32_t count, bool pdl, cudaStream_t stream) {
  // Enough blocks to fill the device for a long context of few sequences; those without a split leave at once,
  // yet each must have been there before the next kernel may begin.
  const uint32_t most = (a.splits + kWarps - 1) / kWarps,
                 filling = 2 * processor().count / (a.heads.n_heads * max(count, 1u));
  const dim3 blocks(min(most, max(1u, filling)), a.heads.n_heads, count);
  launch_kernel(attention_decode_kernel<kDim>, {blocks, kWarps * 32}, pdl, stream, a);
}

}  // namespace

void attention_decode(const DecodeAttention& a, uint32_t count, bool pdl, cudaStream_t stream) {
  switch (a.heads.head_dim) {
    case 32: return launch<32>(a, count, pdl, stream);
    case 64: return launch<64>(a, count, pdl, stream);
    case 96: return launch<96>(a, count, pdl, stream);
    case 128: return launch<128>(a, count, pdl, stream);
    default: no_such_head(a.heads.head_dim);
  }
}

}  // namespace orcd::kernels
