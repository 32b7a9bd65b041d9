// Sums of what is in KV pages: see arith/page_sum.h. Blocks add to a page's sum in any order, which is free for integers.
#include "arith/page_sum.h"

#include "device/check.h"
#include "engine/layout_version.h"
#include "kernels/kv_page.cuh"
#include "kernels/launch.h"

namespace orcd::kernels {
namespace {

constexpr uint32_t kThreads = 256;
constexpr uint32_t kQuads = 4;  // 16 bytes that a thread takes of a layer

// Where a page's sum goes: to its own place, or by its place in the batch.
__device__ uint32_t target(const PageBatch& pages, uint32_t i, bool by_page) { return by_page ? pages.page[i] : i; }

// What sums begin with. `noted`, if there is one, gets those that were there.
__global__ void begin_kernel(const __grid_constant__ PageBatch pages, uint64_t words, bool by_page,
                             unsigned long long* sums, const unsigned long long* noted_in, unsigned long long* noted) {
  const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= pages.count) return;
  if (noted) noted[i] = noted_in[pages.page[i]];
  sums[target(pages, i, by_page)] = arith::empty_page_sum(words);
}

__global__ void sum_kernel(const __grid_constant__ PageBatch pages, PoolPages pool, bool by_page,
                           unsigned long long* sums) {
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
  for (uint32_t offset = 16; offset; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
  __shared__ unsigned long long of_block;
  if (threadIdx.x == 0) of_block = 0;
  __syncthreads();
  if (threadIdx.x % 32 == 0) atomicAdd(&of_block, (unsigned long long)sum);
  __syncthreads();
  if (threadIdx.x == 0) atomicAdd(&sums[target(pages, i, by_page)], of_block);
}

void launch(const PoolPages& pool, const PageBatch& pages, bool by_page, unsigned long long* sums,
            const unsigned long long* noted_in, unsigned long long* noted, cudaStream_t stream) {
  const uint64_t words = uint64_t{pool.layers} * pool.page_bytes / 4;
  begin_kernel<<<(pages.count + kThreads - 1) / kThreads, kThreads, 0, stream>>>(pages, words, by_page, sums, noted_in,
                                                                                 noted);
  constexpr uint32_t bytes = kThreads * kQuads * 16;
  const dim3 grid((pool.page_bytes + bytes - 1) / bytes, pool.layers, pages.count);
  sum_kernel<<<grid, kThreads, 0, stream>>>(pages, pool, by_page, sums);
  ORCD_CUDA(cudaGetLastError());
}

}  // namespace

void sum_pages(const PoolPages& pool, const PageBatch& pages, unsigned long long* sums, cudaStream_t stream) {
  launch(pool, pages, true, sums, nullptr, nullptr, stream);
}

void check_pages(const PoolPages& pool, const PageBatch& pages, const unsigned long long* sums,
                 unsigned long long* checked, cudaStream_t stream) {
  launch(pool, pages, false, checked, sums, checked + PageBatch::kMost, stream);
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
