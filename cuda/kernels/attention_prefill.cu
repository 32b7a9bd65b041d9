// Attention of runs of consecutive rows of one sequence, whose keys are in the cache already. A block of four warps
// computes 64 rows of one head, split by split in ascending order; a warp has 16 of the rows. Pages come into shared
// memory as they are, one ahead of the one that is worked on.
#include "device/check.h"
#include "kernels/attend.cuh"
#include "kernels/launch.h"
#include "kernels/rope.cuh"

namespace orcd::kernels {
namespace {

constexpr uint32_t kThreads = 128;
constexpr uint32_t kRows = 64;
constexpr uint32_t kOctets = kAttnSplit / 8;  // of keys in a split
static_assert(kAttnSplit == 64);

template <uint32_t kDim>
struct Shared {
  static constexpr uint32_t kPageBytes = KvPage{kDim}.bytes();
  static constexpr uint32_t kStride =
      padded_head(kDim) + 16;  // of a row's bytes: fragment loads off each other's banks
  uint8_t pages[2][kPageBytes];
  float q_scale[kRows];
  union {
    struct {
      uint8_t high[kRows][kStride], low[kRows][kStride];
    } q;                                  // before the first split
    float total[kDim / 8 * 4][kThreads];  // what earlier runs of splits gave, by thread
  };
};

template <uint32_t kDim>
__device__ __forceinline__ void fetch(const uint8_t* from, uint8_t* to) {
  for (uint32_t i = threadIdx.x; i < Shared<kDim>::kPageBytes / 16; i += kThreads) copy_16(from + 16 * i, to + 16 * i);
  commit_copies();
}

// Makes the warp's rows integers, in shared memory; rows that are not there are zeros.
template <uint32_t kDim>
__device__ __forceinline__ void quantize_queries(Shared<kDim>& s, const Heads& h, const float* q, const PrefillTile& t,
                                                 uint32_t head) {
  constexpr uint32_t kBlocks = padded_head(kDim) / 32;
  const uint32_t lane = threadIdx.x % 32, first = threadIdx.x / 32 * 16;
#pragma unroll 4
  for (uint32_t row = first; row < first + 16; ++row) {
    float x[kBlocks];
    uint32_t top = 0;
#pragma unroll
    for (uint32_t i = 0; i < kBlocks; ++i) {
      x[i] = row < t.count && in_head<kDim>(32 * i + lane)
                 ? q[(uint64_t(t.row + row) * h.n_heads + head) * kDim + 32 * i + lane]
                 : 0.0f;
      top = max(top, arith::bits_of(x[i]) & 0x7fffffffu);
    }
    const arith::HeadScale scale = arith::head_scale(__reduce_max_sync(kFull, top), arith::kKeyMost);
#pragma unroll
    for (uint32_t i = 0; i < kBlocks; ++i) {
      const int32_t integer = arith::head_integer(x[i], scale);
      s.q.high[row][32 * i + lane] = uint8_t(integer >> 4);
      s.q.low[row][32 * i + lane] = uint8_t(integer & 15);
    }
    if (lane == 0) s.q_scale[row] = scale.d * h.scale;
  }
  __syncwarp();
}

// Scores of the warp's rows: (octet of keys, fragment). `cap`: 0 for none.
template <uint32_t kWidth>
__device__ __forceinline__ void find_scores(const uint8_t* page, const QueryFragments<kWidth>& q,
                                            const float q_scale[2], float cap, float (&t)[kOctets][4]) {
  constexpr KvPage at = {kWidth};
  constexpr uint32_t kBlocks = kWidth / 32;
  const uint32_t lane = threadIdx.x % 32;
  const auto four = [&](uint32_t place) { return *reinterpret_cast<const uint4*>(page + place + lane * 16); };
#pragma unroll
  for (uint32_t half = 0; half < 2; ++half) {
    Dots dots[4];
#pragma unroll
    for (uint32_t b = 0; b < kBlocks; ++b) {
      const uint4 low = four(at.low() + (half * kBlocks + b) * 512);
      const uint4 first = four((2 * half * kBlocks + b) * 512), second = four(((2 * half + 1) * kBlocks + b) * 512);
      dots[0].add(q.high[b], q.low[b], first.x, first.y, low.x);
      dots[1].add(q.high[b], q.low[b], first.z, first.w, low.y);
      dots[2].add(q.high[b], q.low[b], second.x, second.y, low.z);
      dots[3].add(q.high[b], q.low[b], second.z, second.w, low.w);
    }
#pragma unroll
    for (uint32_t o = 0; o < 4; ++o) {
      const float2 d =
          *reinterpret_cast<const float2*>(page + at.key_scales() + (32 * half + 8 * o + lane % 4 * 2) * 4);
#pragma unroll
      for (int i = 0; i < 4; ++i) t[4 * half + o][i] = dots[o][i] * (q_scale[i / 2] * (i % 2 ? d.y : d.x));
    }
  }
  cap_scores(t, cap);
}

// A split's part in two rows' results.
struct SplitParts {
  float m[2], l[2], unit[2];
  uint32_t high[2][4], low[2][4];  // weights, by half of the keys
};

// Each of the two rows sees the split's keys from[row] .. seen[row] - 1. kAll: all of them.
template <bool kAll>
__device__ __forceinline__ void find_weights(const float* value_scales /* (64) shared */, float t[kOctets][4],
                                             const uint32_t from[2], const uint32_t seen[2], SplitParts& s) {
  const uint32_t first = threadIdx.x % 4 * 2;
  const auto sees = [&](uint32_t o, int i) {
    const uint32_t key = 8 * o + first + i % 2;
    return kAll || (key >= from[i / 2] && key < seen[i / 2]);
  };
  float top[2] = {-arith::infinity(), -arith::infinity()}, largest[2] = {0.0f, 0.0f};
#pragma unroll
  for (uint32_t o = 0; o < kOctets; ++o) {
    const float2 d = *reinterpret_cast<const float2*>(value_scales + 8 * o + first);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (sees(o, i)) top[i / 2] = fmaxf(top[i / 2], t[o][i]);
      if ((!kAll || i < 2) && sees(o, i)) largest[i / 2] = fmaxf(largest[i / 2], i % 2 ? d.y : d.x);
    }
  }
  int32_t sum[2] = {0, 0};
  arith::WeightUnit unit[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    s.m[r] = ceilf(row_max(top[r]));
    unit[r] = kAll && r == 1 ? unit[0] : arith::weight_unit(row_max(largest[r]));
    s.unit[r] = unit[r].unit;
  }
#pragma unroll
  for (uint32_t pair = 0; pair < kOctets / 2; ++pair) {
    uint32_t w[2][4];  // (row, octet · 2 + key)
#pragma unroll
    for (uint32_t j = 0; j < 2; ++j) {
      const uint32_t o = 2 * pair + j;
      const float2 d = *reinterpret_cast<const float2*>(value_scales + 8 * o + first);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int r = i / 2;
        const float p = arith::exp2_below(t[o][i] - s.m[r]);
        const uint32_t weight = arith::value_weight(p, i % 2 ? d.y : d.x, unit[r]);
        sum[r] += sees(o, i) ? arith::sum_weight(p) : 0;
        w[r][2 * j + i % 2] = sees(o, i) ? weight : 0;
      }
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const WeightWords words = weight_words(w[r]);
      s.high[pair / 2][pair % 2 * 2 + r] = words.high;
      s.low[pair / 2][pair % 2 * 2 + r] = words.low;
    }
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) s.l[r] = float(row_sum(sum[r]));
}

// kGeneral: with what AttentionParams may have; without, they are plain.
template <uint32_t kDim, bool kGeneral>
__global__ void __launch_bounds__(kThreads)
    attention_prefill_kernel(Heads h, KvLayer kv, const float* q, const PrefillTile* tiles, float* out,
                             AttentionParams params) {
  extern __shared__ __align__(16) uint8_t memory[];
  Shared<kDim>& s = *reinterpret_cast<Shared<kDim>*>(memory);
  constexpr uint32_t kWidth = padded_head(kDim);
  constexpr KvPage at = {kDim};
  const PrefillTile tile = tiles[gridDim.x - 1 - blockIdx.x];  // the longest begin first
  const uint32_t head = blockIdx.y, kv_head = head / (h.n_heads / h.n_kv_heads);
  const uint32_t lane = threadIdx.x % 32, own = threadIdx.x / 32 * 16 + lane / 4;  // and own + 8
  const uint32_t splits = (tile.start + tile.count - 1) / kAttnSplit + 1;
  const auto from = [&](uint32_t row) { return kGeneral ? arith::first_seen(tile.start + row, params.window) : 0; };
  const uint32_t first_split = from(0) / kAttnSplit;
  const auto page = [&](uint32_t split) { return head_at(h, kv, page_of(kv, tile.slot, split * kAttnSplit), kv_head); };

  fetch<kDim>(page(first_split), s.pages[first_split % 2]);
  quantize_queries<kDim>(s, h, q, tile, head);
  QueryFragments<kWidth> queries;
  load_queries<kWidth, true>(queries, s.q.high[threadIdx.x / 32 * 16], s.q.low[threadIdx.x / 32 * 16],
                             Shared<kDim>::kStride);
  const float q_scale[2] = {s.q_scale[own], s.q_scale[own + 8]};
  const uint32_t position[2] = {tile.start + own, tile.start + own + 8};
  const RowWindows windows = {{from(own), from(own + 8)}};
  const bool in_shared = kGeneral ? (splits - 1) / kAttnRun > first_split / kAttnRun : splits > kAttnRun;

  Sums<2> run = {}, all = {};
  float o[kDim / 8][4];
  if (kGeneral) {
#pragma unroll
    for (uint32_t octet = 0; octet < kDim / 8; ++octet)
#pragma unroll
      for (int i = 0; i < 4; ++i) o[octet][i] = 0.0f;
  }
#pragma unroll 1
  for (uint32_t split = first_split; split < splits; ++split) {
    await_copies<0>();
    __syncthreads();  // the page is there, and the one before is used up; so are the queries' bytes
    if (split + 1 < splits) fetch<kDim>(page(split + 1), s.pages[(split + 1) % 2]);
    const uint8_t* bytes = s.pages[split % 2];
    const float* value_scales = reinterpret_cast<const float*>(bytes + at.value_scales());

    const uint32_t first = split * kAttnSplit;
    // Rows may see their first split at another than the first of a run. So a run of the general form begins from
    // nothing (maximum -inf, sums 0), which gives the bits of its first part.
    const bool begins = !kGeneral && split % kAttnRun == 0;
    if (kGeneral && (split % kAttnRun == 0 || split == first_split))
      run = {{-arith::infinity(), -arith::infinity()}, {0.0f, 0.0f}};
    const bool joins[2] = {first <= position[0] && (!kGeneral || windows.sees_split(0, split)),
                           first <= position[1] && (!kGeneral || windows.sees_split(1, split))};
    float t[kOctets][4];
    find_scores<kWidth>(bytes, queries, q_scale, kGeneral ? params.soft_cap : 0.0f, t);
    SplitParts part;
    // Whether the warp's first row sees its end, and its last row its begin.
    if (first + kAttnSplit <= tile.start + own / 16 * 16 + 1 && (!kGeneral || from(own / 16 * 16 + 15) <= first)) {
      const uint32_t none[2] = {0, 0}, whole[2] = {kAttnSplit, kAttnSplit};
      find_weights<true>(value_scales, t, none, whole, part);
    } else {
      const uint32_t seen[2] = {joins[0] ? position[0] + 1 - first : 0, joins[1] ? position[1] + 1 - first : 0};
      const uint32_t unseen[2] = {kGeneral ? windows.from_in(0, split) : 0, kGeneral ? windows.from_in(1, split) : 0};
      find_weights<false>(value_scales, t, unseen, seen, part);
    }
    Factors<2> f = {};
    if (begins) {
      run = {{part.m[0], part.m[1]}, {part.l[0], part.l[1]}};
    } else {
      f = join(run, part.m, part.l, joins);
    }
    const float factor[2] = {begins ? part.unit[0] : f.b[0] * part.unit[0],
                             begins ? part.unit[1] : f.b[1] * part.unit[1]};
#pragma unroll
    for (uint32_t octet = 0; octet < kDim / 8; ++octet) {
      const uint4 v = *reinterpret_cast<const uint4*>(bytes + at.values() + (octet * 32 + lane) * 16);
      int32_t high[4] = {}, low[4] = {};
      mma_us(high, part.high[0], v.x, v.y);
      mma_us(low, part.low[0], v.x, v.y);
      mma_us(high, part.high[1], v.z, v.w);
      mma_us(low, part.low[1], v.z, v.w);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float sum = float(high[i] * 256 + low[i]);
        if (begins) o[octet][i] = sum * factor[i / 2];
        else if (joins[i / 2]) o[octet][i] = arith::fma32(sum, factor[i / 2], o[octet][i] * f.a[i / 2]);
      }
    }
    if (!in_shared || (split % kAttnRun != kAttnRun - 1 && split + 1 < splits)) continue;

    // The run's end.
    const uint32_t start = first / (kAttnRun * kAttnSplit) * (kAttnRun * kAttnSplit);
    bool saw[2] = {start <= position[0], start <= position[1]};
    if constexpr (kGeneral) {
      bool opens[2];  // whether it is the first run that the row sees
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        opens[r] = split / kAttnRun == windows.first_run(r);
        saw[r] = saw[r] && split / kAttnRun > windows.first_run(r);
      }
      f = join(all, run.m, run.l, saw);
#pragma unroll
      for (int r = 0; r < 2; ++r)
        if (opens[r]) all.m[r] = run.m[r], all.l[r] = run.l[r];
#pragma unroll
      for (uint32_t i = 0; i < kDim / 2; ++i) {
        float& total = s.total[i][threadIdx.x];
        const int r = i % 4 / 2;
        if (opens[r]) total = o[i / 4][i % 4];
        else if (saw[r]) total = arith::fma32(o[i / 4][i % 4], f.b[r], total * f.a[r]);
      }
      continue;
    }
    if (start == 0) {
      all = run;
#pragma unroll
      for (uint32_t i = 0; i < kDim / 2; ++i) s.total[i][threadIdx.x] = o[i / 4][i % 4];
      continue;
    }
    f = join(all, run.m, run.l, saw);
#pragma unroll
    for (uint32_t i = 0; i < kDim / 2; ++i) {
      float& total = s.total[i][threadIdx.x];
      const int r = i % 4 / 2;
      if (saw[r]) total = arith::fma32(o[i / 4][i % 4], f.b[r], total * f.a[r]);
    }
  }

  if (!in_shared) all = run;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const uint32_t row = own + 8 * r;
    if (row >= tile.count) continue;
    Factors<1> f = {};
    const bool sinks = kGeneral && params.sinks;
    if (sinks) f = join_sink(all.m[r], all.l[r], params.sinks[head]);
    const float inverse = __fdiv_rn(1.0f, all.l[r] * arith::kSumUnit);
    float* to = out + (uint64_t(tile.row + row) * h.n_heads + head) * kDim + lane % 4 * 2;
#pragma unroll
    for (uint32_t octet = 0; octet < kDim / 8; ++octet) {
      float2 y;
      y.x = in_shared ? s.total[4 * octet + 2 * r][threadIdx.x] : o[octet][2 * r];
      y.y = in_shared ? s.total[4 * octet + 2 * r + 1][threadIdx.x] : o[octet][2 * r + 1];
      if (sinks) y = {after_sink(y.x, f), after_sink(y.y, f)};
      *reinterpret_cast<float2*>(to + 8 * octet) = {y.x * inverse, y.y * inverse};
    }
  }
}

template <uint32_t kDim, bool kGeneral>
void launch_form(const Heads& h, const KvLayer& kv, const float* q, const PrefillTile* tiles, uint32_t n_tiles,
                 const AttentionParams& params, float* out, cudaStream_t stream) {
  constexpr int bytes = sizeof(Shared<kDim>);
  const auto kernel = attention_prefill_kernel<kDim, kGeneral>;
  static const bool ready = [&] {
    ORCD_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    return true;
  }();
  (void)ready;
  kernel<<<dim3(n_tiles, h.n_heads), kThreads, bytes, stream>>>(h, kv, q, tiles, out, params);
  ORCD_CUDA(cudaGetLastError());
}

template <uint32_t kDim>
void launch(const Heads& h, const KvLayer& kv, const float* q, const PrefillTile* tiles, uint32_t n_tiles,
            const AttentionParams& params, float* out, cudaStream_t stream) {
  if (params.plain()) launch_form<kDim, false>(h, kv, q, tiles, n_tiles, params, out, stream);
  else launch_form<kDim, true>(h, kv, q, tiles, n_tiles, params, out, stream);
}

}  // namespace

size_t prefill_shared_bytes(uint32_t head_dim) {
  switch (head_dim) {
    case 32: return sizeof(Shared<32>);
    case 64: return sizeof(Shared<64>);
    case 80: return sizeof(Shared<80>);
    case 96: return sizeof(Shared<96>);
    case 128: return sizeof(Shared<128>);
    case 256: return prefill_wide_shared_bytes();
    default: no_such_head(head_dim);
  }
}

void attention_prefill(const Heads& h, const KvLayer& kv, const float* q, const PrefillTile* tiles, uint32_t n_tiles,
                       const AttentionParams& params, float* out, cudaStream_t stream) {
  switch (h.head_dim) {
    case 32: return launch<32>(h, kv, q, tiles, n_tiles, params, out, stream);
    case 64: return launch<64>(h, kv, q, tiles, n_tiles, params, out, stream);
    case 80: return launch<80>(h, kv, q, tiles, n_tiles, params, out, stream);
    case 96: return launch<96>(h, kv, q, tiles, n_tiles, params, out, stream);
    case 128: return launch<128>(h, kv, q, tiles, n_tiles, params, out, stream);
    case 256: return attention_prefill_wide(h, kv, q, tiles, n_tiles, params, out, stream);
    default: no_such_head(h.head_dim);
  }
}

}  // namespace orcd::kernels
