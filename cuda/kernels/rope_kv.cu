// Biases, norms, rotation and append to the KV cache, for rows whose products lie in q, k, v: a block per row
// and head, a thread per value, and for what a page has behind the head.
#include "kernels/launch.h"
#include "kernels/pdl.h"
#include "kernels/rope.cuh"
#include "kernels/warp.cuh"

namespace orcd::kernels {
namespace {

// The head's scale, for all its threads. By the whole block.
__device__ __forceinline__ arith::HeadScale scale_of(float x, float most) {
  __shared__ uint32_t top;
  __syncthreads();  // the one before was read
  if (threadIdx.x == 0) top = 0;
  __syncthreads();
  const uint32_t of_warp = warp_magnitude(x);
  if (threadIdx.x % 32 == 0) atomicMax(&top, of_warp);
  __syncthreads();
  return arith::head_scale(top, most);
}

__global__ void rope_kv_kernel(Heads h, KvLayer kv, Rotation rotation, AttentionInputs in, const uint32_t* slot,
                               const uint32_t* position) {
  extern __shared__ float head[];  // (head_dim) before rotation
  pdl_launch_dependents();
  pdl_wait();
  const uint32_t row = blockIdx.y, d = threadIdx.x, p = position[row];
  const bool is_q = blockIdx.x < h.n_heads, live = d < h.head_dim;
  const uint32_t index = is_q ? blockIdx.x : blockIdx.x - h.n_heads;
  const uint32_t width = (is_q ? h.n_heads : h.n_kv_heads) * h.head_dim;
  float* x = (is_q ? in.q : in.k) + uint64_t(row) * width + index * h.head_dim;
  const float* bias = is_q ? in.q_bias : in.k_bias;
  if (live) head[d] = bias ? x[d] + bias[index * h.head_dim + d] : x[d];
  __syncthreads();
  const float* norm = is_q ? in.q_norm : in.k_norm;
  const float inverse = norm ? inverse_rms(head, h.head_dim, rotation.eps) : 0.0f;
  const auto before = [&](uint32_t i) { return norm ? (head[i] * inverse) * norm[i] : head[i]; };
  float y = 0.0f;
  if (live) {
    y = before(d);
    if (d < 2 * rotation.pairs) {
      const Pair pair = pair_of(h.style, 2 * rotation.pairs, d);
      const uint64_t at = (rotation.first ? rotation.first[slot[row]] : 0) + uint64_t(p);
      y = rotate(y, before(pair.partner), rotation.table[at * rotation.pairs + pair.index], pair.first);
    }
    if (is_q && rotation.query_scale) y = y * rotation.query_scale[p];
    x[d] = y;
  }
  if (is_q) return;
  uint8_t* page = head_at(h, kv, page_of(kv, slot[row], p), index);
  const uint32_t token = p % kAttnSplit;
  store_key(page, h.head_dim, token, d, y, scale_of(y, arith::kKeyMost));
  float* v = in.v + uint64_t(row) * width + index * h.head_dim + d;
  if (live && in.v_bias) *v = *v + in.v_bias[index * h.head_dim + d];
  const float value = live ? *v : 0.0f;
  store_value(page, h.head_dim, token, d, value, scale_of(value, arith::kValueMost));
}

}  // namespace

void rope_kv(const Heads& h, const KvLayer& kv, const Rotation& rotation, const AttentionInputs& in,
             const uint32_t* slot, const uint32_t* position, uint32_t rows, bool pdl, cudaStream_t stream) {
  const dim3 grid(h.n_heads + h.n_kv_heads, rows);
  launch_kernel(rope_kv_kernel, {grid, padded_head(h.head_dim), uint32_t(h.head_dim * sizeof(float))}, pdl, stream, h,
                kv, rotation, in, slot, position);
}

}  // namespace orcd::kernels
