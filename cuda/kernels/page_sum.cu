// Sums of what is in KV pages: see arith/page_sum.h.
#include "arith/page_sum.h"

#include "device/check.h"
#include "engine/layout_version.h"
#include "kernels/kv_page.cuh"
#include "kernels/launch.h"
#include "kernels/pdl.h"

namespace orcd::kernels {
namespace {

constexpr uint32_t kThreads = 256;
constexpr uint32_t kQuads = 4;  // 16 bytes that a thread takes of a layer
constexpr uint32_t kPositionThreads = 1024;

// Blocks add to a page's sum in any order, which is free for integers.
__device__ uint64_t warp_sum(uint64_t sum) {
  for (uint32_t offset = 16; offset; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
  return sum;
}

// What the sums of whole pages begin with, and those that were noted of their positions.
__global__ void begin_kernel(const __grid_constant__ PageBatch pages, uint64_t words, const unsigned long long* sums,
                             unsigned long long* found, unsigned long long* noted) {
  const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= pages.count) return;
  unsigned long long sum = 0;
#pragma unroll 16
  for (uint32_t p = 0; p < kAttnSplit; ++p) sum += sums[uint64_t{pages.page[i]} * kAttnSplit + p];
  noted[i] = sum;
  found[i] = arith::empty_page_sum(words);
}

__global__ void sum_kernel(const __grid_constant__ PageBatch pages, PoolPages pool, unsigned long long* found) {
  const uint32_t layer = blockIdx.y, i = blockIdx.z, layer_words = pool.page_bytes / 4;
  const uint8_t* page = pool.memory + layer * pool.layer_bytes + uint64_t{pages.page[i]} * pool.page_bytes;
  const uint4* quads = reinterpret_cast<const uint4*>(page);
  uint64_t sum = 0;
  for (uint32_t k = 0; k < kQuads; ++k) {
    const uint32_t quad = (blockIdx.x * kQuads + k) * kThreads + threadIdx.x;
    if (quad >= pool.page_bytes / 16) break;
    const uint4 w = quads[quad];
    const uint32_t at = layer * layer_words + quad * 4;
    sum += arith::page_sum_of(w.x, at) + arith::page_sum_of(w.y, at + 1) + arith::page_sum_of(w.z, at + 2) +
           arith::page_sum_of(w.w, at + 3);
  }
  sum = warp_sum(sum);
  __shared__ unsigned long long of_block;
  if (threadIdx.x == 0) of_block = 0;
  __syncthreads();
  if (threadIdx.x % 32 == 0) atomicAdd(&of_block, (unsigned long long)sum);
  __syncthreads();
  if (threadIdx.x == 0) atomicAdd(&found[i], of_block);
}

// Bytes of a position in a head, as words of which it has all or one byte.
struct Part {
  uint32_t offset, mask;
};

// Words of a head's page that have bytes of one position.
__device__ __forceinline__ uint32_t parts_of(const KvPage& page) { return page.width() / 8 * 11 + 2; }

__device__ __forceinline__ Part part(const KvPage& page, uint32_t position, uint32_t i) {
  const uint32_t width = page.width();
  if (i < width) {
    const uint32_t offset = page.value_of(position, i);
    return {offset / 4 * 4, 0xffu << 8 * (offset % 4)};
  }
  i -= width;
  if (i < width / 4) return {page.high_of(position, i * 4), ~0u};
  i -= width / 4;
  if (i < width / 8) return {page.low_of(position, i / 4 * 32 + i % 4 * 4), ~0u};
  i -= width / 8;
  return {(i ? page.value_scales() : page.key_scales()) + position * 4, ~0u};
}

// A block has one position of one page, with all its layers and heads.
template <bool kCheck>
__global__ void __launch_bounds__(kPositionThreads)
    positions_kernel(const __grid_constant__ PageRowsBatch batch, PoolPages pool, unsigned long long* sums,
                     unsigned long long* damaged) {
  const PageRows rows = batch.rows[blockIdx.y];
  const uint32_t position = rows.from + blockIdx.x;
  if (position >= rows.to) return;
  const KvPage page = {pool.head_dim};
  const uint32_t head_bytes = page.bytes(), heads = pool.page_bytes / head_bytes, parts = parts_of(page);
  const uint64_t first = uint64_t{rows.page} * pool.page_bytes;
  uint64_t sum = 0;
#pragma unroll 4
  for (uint32_t i = threadIdx.x; i < pool.layers * heads * parts; i += kPositionThreads) {
    const uint32_t head = i / parts, layer = head / heads;
    const Part p = part(page, position, i % parts);
    const uint32_t at = head % heads * head_bytes + p.offset;
    const uint32_t word = *reinterpret_cast<const uint32_t*>(pool.memory + layer * pool.layer_bytes + first + at);
    sum += arith::page_sum_of(word & p.mask, (layer * pool.page_bytes + at) / 4);
  }
  __shared__ uint64_t of_warp[kPositionThreads / 32];
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x >= 32) return;
  sum = warp_sum(of_warp[threadIdx.x]) + arith::empty_position_sum(uint64_t{pool.layers} * pool.page_bytes / 4);
  if (threadIdx.x) return;
  unsigned long long* noted = sums + uint64_t{rows.page} * kAttnSplit + position;
  if (!kCheck) *noted = sum;
  else if (*noted != sum) damaged[blockIdx.y] = 1;
}

template <bool kCheck>
void launch_positions(const PoolPages& pool, const PageRowsBatch& batch, unsigned long long* sums,
                      unsigned long long* damaged, cudaStream_t stream) {
  uint32_t most = 1;
  for (uint32_t i = 0; i < batch.count; ++i) most = max(most, batch.rows[i].to - batch.rows[i].from);
  positions_kernel<kCheck><<<{most, batch.count}, kPositionThreads, 0, stream>>>(batch, pool, sums, damaged);
  ORCD_CUDA(cudaGetLastError());
}

__global__ void copy_kernel(PoolPages pool, uint32_t from, uint32_t to, unsigned long long* sums) {
  const uint32_t quad = blockIdx.x * kThreads + threadIdx.x, layer = blockIdx.y;
  uint8_t* base = pool.memory + layer * pool.layer_bytes;
  const auto* source = reinterpret_cast<const uint4*>(base + uint64_t{from} * pool.page_bytes);
  auto* target = reinterpret_cast<uint4*>(base + uint64_t{to} * pool.page_bytes);
  if (quad < pool.page_bytes / 16) target[quad] = source[quad];
  if (layer == 0 && quad < kAttnSplit)
    sums[uint64_t{to} * kAttnSplit + quad] = sums[uint64_t{from} * kAttnSplit + quad];
}

}  // namespace

void sum_positions(const PoolPages& pool, const PageRowsBatch& rows, unsigned long long* sums, cudaStream_t stream) {
  launch_positions<false>(pool, rows, sums, nullptr, stream);
}

void check_positions(const PoolPages& pool, const PageRowsBatch& rows, const unsigned long long* sums,
                     unsigned long long* damaged, cudaStream_t stream) {
  // Only read: see the kernel.
  launch_positions<true>(pool, rows, const_cast<unsigned long long*>(sums), damaged, stream);
}

void check_pages(const PoolPages& pool, const PageBatch& pages, const unsigned long long* sums,
                 unsigned long long* checked, cudaStream_t stream) {
  const uint64_t words = uint64_t{pool.layers} * pool.page_bytes / 4;
  begin_kernel<<<(pages.count + kThreads - 1) / kThreads, kThreads, 0, stream>>>(pages, words, sums, checked,
                                                                                 checked + PageBatch::kMost);
  constexpr uint32_t bytes = kThreads * kQuads * 16;
  const dim3 grid((pool.page_bytes + bytes - 1) / bytes, pool.layers, pages.count);
  sum_kernel<<<grid, kThreads, 0, stream>>>(pages, pool, checked);
  ORCD_CUDA(cudaGetLastError());
}

void copy_page(const PoolPages& pool, uint32_t from, uint32_t to, unsigned long long* sums, cudaStream_t stream) {
  constexpr uint32_t bytes = kThreads * 16;
  // At least one block has all the sums.
  static_assert(kThreads >= kAttnSplit);
  const dim3 grid((pool.page_bytes + bytes - 1) / bytes, pool.layers);
  copy_kernel<<<grid, kThreads, 0, stream>>>(pool, from, to, sums);
  ORCD_CUDA(cudaGetLastError());
}

void load_page_kernels() {
  load_kernel(begin_kernel), load_kernel(sum_kernel), load_kernel(copy_kernel);
  load_kernel(positions_kernel<false>), load_kernel(positions_kernel<true>);
}

uint32_t page_layout(uint32_t head_dim) {
  const KvPage page = {head_dim};
  LayoutHash hash;
  for (uint32_t key = 0; key < kAttnSplit; ++key)
    for (uint32_t d = 0; d < head_dim; ++d)
      hash.add(page.high_of(key, d)), hash.add(page.low_of(key, d)), hash.add(page.value_of(key, d));
  hash.add(page.key_scales()), hash.add(page.value_scales()), hash.add(page.bytes());
  return hash.value();
}

}  // namespace orcd::kernels
