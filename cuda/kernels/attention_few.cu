// Attention of few single rows: a block of four groups of warps takes every gridDim.x-th run of splits, each group every
// fourth split of it. What splits give lies in shared memory until all of the run are there; then each thread goes
// through its values' chains. Runs are combined in ascending order by the block that arrives last.
#include "kernels/attention_few.h"

#include "kernels/attend_rows.cuh"
#include "kernels/pdl.h"

namespace orcd::kernels {
namespace {

constexpr uint32_t kGroups = 4;
constexpr uint32_t kThreads = kGroups * kWarps * 32;
constexpr uint32_t kNone = ~0u;

// A run's splits before they are joined.
template <uint32_t kDim, int kRows>
struct SplitSums {
  static constexpr uint32_t kStride = kDim + 8;  // stores of a warp's eight heads off each other's banks
  float value[kAttnRun][8 * kRows][kStride];
  float m[kAttnRun][8 * kRows], l[kAttnRun][8 * kRows];
  float unit[kAttnRun];
};

template <uint32_t kDim, int kRows>
struct Shared {
  QueryBytes<kDim, kRows> q;
  SplitShared<kRows> split[kGroups];
  SplitSums<kDim, kRows> sums;
  float* partial;  // (heads, runs, kDim + 2) rather than in registers
  bool last;
};

// Leaves what a lane has of a split.
template <uint32_t kDim, int kRows>
__device__ __forceinline__ void leave_split(SplitSums<kDim, kRows>& to, uint32_t at, uint32_t heads,
                                            const SplitData<padded_head(kDim)>& x, const SplitWeights<kRows>& part) {
  constexpr uint32_t kBlocks = padded_head(kDim) / 32;
  const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32 % kWarps, g = lane / 4, t = lane % 4;
  float even = 0.0f;
  sum_values<kRows>(x, part, [&](uint32_t octet, int i, float sum) {
    const uint32_t head = g + i / 2 * 8, first = (warp * kBlocks + octet) * 8;
    if (i % 2 == 0) even = sum;
    else if (head < heads && in_head<kDim>(first))
      *reinterpret_cast<float2*>(&to.value[at][head][first + 2 * t]) = {even, sum};
  });
  if (warp != 0 || t != 0) return;
#pragma unroll
  for (int row = 0; row < kRows; ++row) to.m[at][g + 8 * row] = part.m[row], to.l[at][g + 8 * row] = part.l[row];
  if (lane == 0) to.unit[at] = part.unit;
}

struct RunResult {
  float o;
  Sums<1> sums;
};

// Value d of a head of a run of n splits.
template <uint32_t kDim, int kRows>
__device__ __forceinline__ RunResult join_splits(const SplitSums<kDim, kRows>& s, uint32_t n, uint32_t head,
                                                 uint32_t d) {
  RunResult r = {s.value[0][head][d] * s.unit[0], {{s.m[0][head]}, {s.l[0][head]}}};
#pragma unroll 4
  for (uint32_t i = 1; i < n; ++i) {
    const bool joins = true;
    const Factors<1> f = join(r.sums, &s.m[i][head], &s.l[i][head], &joins);
    r.o = arith::fma32(s.value[i][head][d], f.b[0] * s.unit[i], r.o * f.a[0]);
  }
  return r;
}

// kGeneral: with what AttentionParams may have; without, they are plain.
template <uint32_t kDim, int kRows, bool kGeneral>
__global__ void __launch_bounds__(kThreads, 1) attention_few_kernel(const __grid_constant__ DecodeAttention a) {
  extern __shared__ __align__(16) uint8_t memory[];
  Shared<kDim, kRows>& s = *reinterpret_cast<Shared<kDim, kRows>*>(memory);
  pdl_launch_dependents();
  constexpr uint32_t kWidth = padded_head(kDim), kBlocks = kWidth / 32;
  const Heads& h = a.heads;
  const uint32_t kv_head = blockIdx.y, count_index = blockIdx.z, heads = h.n_heads / h.n_kv_heads;
  const uint32_t row = a.row ? a.row[count_index] : a.first + count_index;
  // Written by the step's first kernel, for which no kernel behind embed has waited itself.
  const uint32_t position = __ldcg(a.position + row), slot = __ldcg(a.slot + row);
  const RowSplits all = splits_of(position, kGeneral ? a.params.window : 0);
  const uint32_t splits = all.splits, runs = all.runs;
  const uint32_t blocks = min(runs, gridDim.x);
  if (blockIdx.x >= blocks) return;
  const uint32_t group = threadIdx.x / (kWarps * 32), g = threadIdx.x % 32 / 4;
  const auto page = [&](uint32_t split) { return head_at(h, a.kv, page_of(a.kv, slot, split * kAttnSplit), kv_head); };

  // What earlier steps left in the cache depends on no kernel of this one: fetch before waiting. The newest split is
  // still to be completed.
  uint32_t run = blockIdx.x, held = kNone;
  SplitData<kWidth> data;
  if (const uint32_t first = all.start_of(run) + group; a.rotate && first < all.end_of(run) && first + 1 < splits) {
    load_split<kWidth>(data, page(first));
    held = first;
  }
  // Those that come next are brought nearer; weights have driven them out since the last step.
  if (a.rotate)
    for (uint32_t next = all.start_of(run) + kGroups; next < all.end_of(run); ++next)
      prefetch<KvPage{kWidth}.bytes()>(page(next));
  float2 angle[kBlocks] = {};
  load_angles<kDim>(a, position, angle);
  // The block that has the newest split appends to it; nobody else reads it in this step.
  uint8_t* append_to = a.rotate && (runs - 1) % blocks == blockIdx.x ? page(splits - 1) : nullptr;
  pdl_wait();
  take_inputs<kGroups * kWarps>(s.q, a, row, position, kv_head, angle, append_to);
  if (runs > 1 && threadIdx.x == 0) s.partial = partial_of<kDim>(a, row, kv_head, runs);
  __syncthreads();
  QueryFragments<kWidth> queries;
  load_queries<kWidth, kRows == 2>(queries, s.q.high[0], s.q.low[0], QueryBytes<kDim, kRows>::kStride);
  float q_scale[kRows];
#pragma unroll
  for (int i = 0; i < kRows; ++i) q_scale[i] = s.q.scale[g + 8 * i];
  const float* sinks = sinks_of<kGeneral>(a, kv_head);

#pragma unroll 1
  for (; run < runs; run += blocks) {
    const uint32_t start = all.start_of(run), end = all.end_of(run);
#pragma unroll 1
    for (uint32_t split = start + group; split < end; split += kGroups) {
      if (held != split) load_split<kWidth>(data, page(split));
      // The next one's keys and values come as soon as these are used up. Of the next run it is the group's first.
      held = split + kGroups < end ? split + kGroups : run + blocks < runs ? all.start_of(run + blocks) + group : kNone;
      if (held >= splits) held = kNone;
      const auto add_dots = [&](Dots(&dots)[2]) {
#pragma unroll
        for (uint32_t b = 0; b < kBlocks; ++b) {
          dots[0].add(queries.high[b], queries.low[b], data.high[b].x, data.high[b].y, data.low[b].x);
          dots[1].add(queries.high[b], queries.low[b], data.high[b].z, data.high[b].w, data.low[b].y);
        }
      };
      const SplitWeights<kRows> part =
          weigh_split<kRows>(s.split[group], data, q_scale, kGeneral ? a.params.soft_cap : 0.0f,
                             all.seen(split, position), GroupBarrier{group}, add_dots, [] {});
      leave_split<kDim, kRows>(s.sums, split - start, heads, data, part);
      if (held != kNone) load_split<kWidth>(data, page(held));
    }
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < heads * kDim; i += kThreads) {
      const uint32_t head = i / kDim, d = i % kDim;
      RunResult r = join_splits<kDim, kRows>(s.sums, end - start, head, d);
      if (runs > 1) {
        float* to = s.partial + uint64_t(head * runs + run) * (kDim + 2);
        to[d] = r.o;
        if (d == 0) to[kDim] = r.sums.m[0], to[kDim + 1] = r.sums.l[0];
      } else {
        if (sinks) r.o = after_sink(r.o, join_sink(r.sums.m[0], r.sums.l[0], sinks[head]));
        store_attended<kDim>(a, row, kv_head * heads * kDim + i, r.o * __fdiv_rn(1.0f, r.sums.l[0] * arith::kSumUnit));
      }
    }
    if (run + blocks < runs) __syncthreads();  // the sums are used up
  }
  if (runs == 1 || !arrives_last(a, count_index, kv_head, blocks, s.last)) return;
  for (uint32_t i = threadIdx.x; i < heads * kDim; i += kThreads)
    store_attended<kDim>(a, row, kv_head * heads * kDim + i, combine_runs<kDim>(s.partial, runs, i, sinks));
}

template <uint32_t kDim, int kRows, bool kGeneral>
void launch_form(const DecodeAttention& a, uint32_t count, bool pdl, cudaStream_t stream) {
  constexpr uint32_t bytes = sizeof(Shared<kDim, kRows>);
  const auto kernel = attention_few_kernel<kDim, kRows, kGeneral>;
  static const bool ready = [&] {
    ORCD_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes)));
    return true;
  }();
  (void)ready;
  // One for each processor; those without a run leave at once.
  const uint32_t filling = processor().count / (a.heads.n_kv_heads * max(count, 1u));
  const dim3 blocks(min(a.runs, max(1u, filling)), a.heads.n_kv_heads, count);
  launch_kernel(kernel, {blocks, kThreads, bytes}, pdl, stream, a);
}

template <uint32_t kDim>
void launch(const DecodeAttention& a, uint32_t count, bool pdl, cudaStream_t stream) {
  const bool one = a.heads.n_heads / a.heads.n_kv_heads <= 8, plain = a.params.plain();
  if (one && plain) launch_form<kDim, 1, false>(a, count, pdl, stream);
  else if (one) launch_form<kDim, 1, true>(a, count, pdl, stream);
  else if (plain) launch_form<kDim, 2, false>(a, count, pdl, stream);
  else launch_form<kDim, 2, true>(a, count, pdl, stream);
}

}  // namespace

bool are_few(const DecodeAttention& a, uint32_t count) {
  // Of wider heads a split does not fit into a group's registers beside the queries.
  constexpr uint32_t kWidest = 128;
  return a.heads.head_dim <= kWidest && 2 * count * a.heads.n_kv_heads <= processor().count &&
         sizeof(Shared<kWidest, 2>) <= processor().shared_bytes;
}

void attention_few(const DecodeAttention& a, uint32_t count, bool pdl, cudaStream_t stream) {
  switch (a.heads.head_dim) {
    case 32: return launch<32>(a, count, pdl, stream);
    case 64: return launch<64>(a, count, pdl, stream);
    case 80: return launch<80>(a, count, pdl, stream);
    case 96: return launch<96>(a, count, pdl, stream);
    case 128: return launch<128>(a, count, pdl, stream);
    default: no_such_head(a.heads.head_dim);
  }
}

}  // namespace orcd::kernels
