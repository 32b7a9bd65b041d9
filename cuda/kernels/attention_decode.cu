// Attention of single rows, each with all query heads of a KV head at once: a block of one group of four warps takes
// every gridDim.x-th run of splits. Runs are combined in ascending order by the block that arrives last.
#include "kernels/attend_rows.cuh"
#include "kernels/attention_few.h"
#include "kernels/pdl.h"

namespace orcd::kernels {
namespace {

constexpr uint32_t kThreads = kWarps * 32;

// Whether registers hold two splits, and the queries. Of wider heads a split's keys and values are replaced by the next
// ones' as they are used up, and queries stay in shared memory.
template <uint32_t kWidth>
inline constexpr bool kHoldsTwo = kWidth <= 128;

template <uint32_t kDim, int kRows>
struct Shared {
  QueryBytes<kDim, kRows> q;
  SplitShared<kRows> split;
  float y[8 * kRows * kDim];
  float* partial;  // (heads, runs, kDim + 2) rather than in registers
  bool last;
};

// A lane's results: of each octet of the warp's values the two of its lane, by row.
template <uint32_t kWidth, int kRows>
struct Result {
  Sums<kRows> sums;
  float o[kWidth / 32][kRows][2];
};

// One split; joins `r`. By the whole block. `cap`: 0 for none. `next`: the page that x is to
// have from then on, or null; without kHoldsTwo.
template <uint32_t kDim, int kRows>
__device__ __forceinline__ void attend_split(Shared<kDim, kRows>& s, SplitData<padded_head(kDim)>& x,
                                             const QueryFragments<padded_head(kDim)>& q, const float* q_scale,
                                             float cap, const Seen& seen, bool begins, const uint8_t* next,
                                             Result<padded_head(kDim), kRows>& r) {
  constexpr uint32_t kWidth = padded_head(kDim), kBlocks = kWidth / 32;
  const auto add_dots = [&](Dots(&dots)[2]) {
#pragma unroll
    for (uint32_t b = 0; b < kBlocks; ++b) {
      if constexpr (kHoldsTwo<kWidth>) {
        dots[0].add(q.high[b], q.low[b], x.high[b].x, x.high[b].y, x.low[b].x);
        dots[1].add(q.high[b], q.low[b], x.high[b].z, x.high[b].w, x.low[b].y);
      } else {
        QueryFragments<32> block;
        load_queries<32, kRows == 2>(block, s.q.high[0] + 32 * b, s.q.low[0] + 32 * b,
                                     QueryBytes<kDim, kRows>::kStride);
        dots[0].add(block.high[0], block.low[0], x.high[b].x, x.high[b].y, x.low[b].x);
        dots[1].add(block.high[0], block.low[0], x.high[b].z, x.high[b].w, x.low[b].y);
      }
    }
  };
  const SplitWeights<kRows> part = weigh_split<kRows>(s.split, x, q_scale, cap, seen, BlockBarrier{}, add_dots, [&] {
    if (!kHoldsTwo<kWidth> && next) load_keys<kWidth>(x, next);
  });
  Factors<kRows> f = {};
  if (begins) {
#pragma unroll
    for (int row = 0; row < kRows; ++row) r.sums.m[row] = part.m[row], r.sums.l[row] = part.l[row];
  } else {
    bool joins[kRows];
#pragma unroll
    for (int row = 0; row < kRows; ++row) joins[row] = true;
    f = join(r.sums, part.m, part.l, joins);
  }
  sum_values<kRows>(x, part, [&](uint32_t octet, int i, float sum) {
    float& o = r.o[octet][i / 2][i % 2];
    o = begins ? sum * part.unit : arith::fma32(sum, f.b[i / 2] * part.unit, o * f.a[i / 2]);
  });
  if (!kHoldsTwo<kWidth> && next) load_values<kWidth>(x, next);
}

// kGeneral: with what AttentionParams may have; without, they are plain.
template <uint32_t kDim, int kRows, bool kGeneral>
__global__ void __launch_bounds__(kThreads) attention_decode_kernel(const __grid_constant__ DecodeAttention a) {
  __shared__ Shared<kDim, kRows> s;
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
  const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
  const auto page = [&](uint32_t split) { return head_at(h, a.kv, page_of(a.kv, slot, split * kAttnSplit), kv_head); };

  // What earlier steps left in the cache depends on no kernel of this one: fetch before waiting. The newest split is
  // still to be completed.
  uint32_t run = blockIdx.x, split = all.start_of(run);
  const bool early = a.rotate && split + 1 < splits;
  SplitData<kWidth> data;
  if (early) load_split<kWidth>(data, page(split));
  // Those that come next are brought nearer; weights have driven them out since the last step.
  if (a.rotate)
    for (uint32_t next = split + 1; next < all.end_of(run); ++next) prefetch<KvPage{kWidth}.bytes()>(page(next));
  float2 angle[kBlocks] = {};
  load_angles<kDim>(a, position, angle);
  // The block that has the newest split appends to it; nobody else reads it in this step.
  uint8_t* append_to = a.rotate && (runs - 1) % blocks == blockIdx.x ? page(splits - 1) : nullptr;
  pdl_wait();
  if (!a.rotate) load_split<kWidth>(data, page(split));
  take_inputs<kWarps>(s.q, a, row, position, kv_head, angle, append_to);
  if (runs > 1 && threadIdx.x == 0) s.partial = partial_of<kDim>(a, row, kv_head, runs);
  __syncthreads();
  if (a.rotate && !early) load_split<kWidth>(data, page(split));
  QueryFragments<kWidth> queries;
  if constexpr (kHoldsTwo<kWidth>)
    load_queries<kWidth, kRows == 2>(queries, s.q.high[0], s.q.low[0], QueryBytes<kDim, kRows>::kStride);
  float q_scale[kRows];
#pragma unroll
  for (int i = 0; i < kRows; ++i) q_scale[i] = s.q.scale[g + 8 * i];

  Result<kWidth, kRows> r;
#pragma unroll 1
  while (run < runs) {
    const bool ends = split + 1 == splits || split % kAttnRun == kAttnRun - 1;
    const uint32_t next_run = ends ? run + blocks : run, next = ends ? all.start_of(next_run) : split + 1;
    const uint8_t* replaces = nullptr;
    SplitData<kWidth> ahead;
    if constexpr (kHoldsTwo<kWidth>) {
      if (next_run < runs) load_split<kWidth>(ahead, page(next));
    } else {
      if (next_run < runs) replaces = page(next);
    }
    const bool begins = split % kAttnRun == 0 || (kGeneral && split == all.first_split());
    attend_split<kDim, kRows>(s, data, queries, q_scale, kGeneral ? a.params.soft_cap : 0.0f, all.seen(split, position),
                              begins, replaces, r);
    if (ends && runs > 1) {
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        const uint32_t head = g + 8 * i;
        if (head >= heads) continue;
        float* to = s.partial + uint64_t(head * runs + run) * (kDim + 2);
#pragma unroll
        for (uint32_t o = 0; o < kBlocks; ++o)
          if (in_head<kDim>((warp * kBlocks + o) * 8))
            *reinterpret_cast<float2*>(to + (warp * kBlocks + o) * 8 + 2 * t) = {r.o[o][i][0], r.o[o][i][1]};
        if (warp == 0 && t == 0) *reinterpret_cast<float2*>(to + kDim) = {r.sums.m[i], r.sums.l[i]};
      }
    }
    if constexpr (kHoldsTwo<kWidth>) data = ahead;
    run = next_run;
    split = next;
  }

  const float* sinks = sinks_of<kGeneral>(a, kv_head);
  if (runs > 1) {
    if (!arrives_last(a, count_index, kv_head, blocks, s.last)) return;
  } else {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      if (sinks && g + 8 * i < heads) {
        const Factors<1> f = join_sink(r.sums.m[i], r.sums.l[i], sinks[g + 8 * i]);
#pragma unroll
        for (uint32_t o = 0; o < kBlocks; ++o)
#pragma unroll
          for (float& value : r.o[o][i]) value = after_sink(value, f);
      }
      const float inverse = __fdiv_rn(1.0f, r.sums.l[i] * arith::kSumUnit);
#pragma unroll
      for (uint32_t o = 0; o < kBlocks; ++o) {
        if (!in_head<kDim>((warp * kBlocks + o) * 8)) continue;
        float* to = s.y + (g + 8 * i) * kDim + (warp * kBlocks + o) * 8 + 2 * t;
        to[0] = r.o[o][i][0] * inverse;
        to[1] = r.o[o][i][1] * inverse;
      }
    }
    __syncthreads();
  }
  for (uint32_t i = threadIdx.x; i < heads * kDim; i += kThreads) {
    const float y = runs > 1 ? combine_runs<kDim>(s.partial, runs, i, sinks) : s.y[i];
    store_attended<kDim>(a, row, kv_head * heads * kDim + i, y);
  }
}

template <uint32_t kDim, bool kGeneral>
void launch_form(const DecodeAttention& a, uint32_t count, bool pdl, cudaStream_t stream) {
  // Enough blocks to fill the device for a long context of several sequences; those without a run leave at once,
  // yet each must have been there before the next kernel may begin.
  const uint32_t filling = 4 * processor().count / (a.heads.n_kv_heads * max(count, 1u));
  const dim3 blocks(min(a.runs, max(1u, filling)), a.heads.n_kv_heads, count);
  if (a.heads.n_heads / a.heads.n_kv_heads <= 8)
    launch_kernel(attention_decode_kernel<kDim, 1, kGeneral>, {blocks, kThreads}, pdl, stream, a);
  else launch_kernel(attention_decode_kernel<kDim, 2, kGeneral>, {blocks, kThreads}, pdl, stream, a);
}

template <uint32_t kDim>
void launch(const DecodeAttention& a, uint32_t count, bool pdl, cudaStream_t stream) {
  if (a.params.plain()) launch_form<kDim, false>(a, count, pdl, stream);
  else launch_form<kDim, true>(a, count, pdl, stream);
}

}  // namespace

void attention_decode(const DecodeAttention& a, uint32_t count, bool pdl, cudaStream_t stream) {
  if (are_few(a, count)) attention_few(a, count, pdl, stream);
  else attention_many(a, count, pdl, stream);
}

void attention_many(const DecodeAttention& a, uint32_t count, bool pdl, cudaStream_t stream) {
  switch (a.heads.head_dim) {
    case 32: return launch<32>(a, count, pdl, stream);
    case 64: return launch<64>(a, count, pdl, stream);
    case 80: return launch<80>(a, count, pdl, stream);
    case 96: return launch<96>(a, count, pdl, stream);
    case 128: return launch<128>(a, count, pdl, stream);
    case 256: return launch<256>(a, count, pdl, stream);
    default: no_such_head(a.heads.head_dim);
  }
}

}  // namespace orcd::kernels
