// Attention of runs of consecutive rows for heads of 256 values. A block of eight warps computes 64 rows of one head;
// two warps share 16 of them: each finds the scores of half of a split's keys, and the sums of half of the head's values.
// Shared memory has one page: the next keys come while weights and values are worked on, values while scores are.
#include "device/check.h"
#include "kernels/attend.cuh"
#include "kernels/launch.h"
#include "kernels/rope.cuh"

namespace orcd::kernels {
namespace {

constexpr uint32_t kDim = 256;
constexpr uint32_t kBlocks = kDim / 32;
constexpr uint32_t kThreads = 256;
constexpr uint32_t kRows = 64;
constexpr uint32_t kGroups = kRows / 16;          // of rows: two warps each
constexpr uint32_t kOctets = kAttnSplit / 2 / 8;  // of a warp's keys in a split
constexpr uint32_t kValueOctets = kDim / 2 / 8;   // of a warp's values
constexpr KvPage kAt = {kDim};
static_assert(kThreads == kGroups * 64 && kAttnSplit == 64);

struct Shared {
  uint4 queries[kGroups][kBlocks][2][32];  // high parts, low parts, by lane as QueryFragments has them
  uint8_t keys[kAt.values()];              // a page's high, low
  uint8_t values[kAt.key_scales() - kAt.values()];
  float scales[2][2 * kAttnSplit];   // of keys, then of values; of this split and the next
  uint4 weights[kGroups][2][2][32];  // by half of the keys: high parts, low parts, by lane
  float q_scale[kRows];
  float top[2][kRows];      // of the scores of half of the keys
  float largest[2][kRows];  // of their values' scales
  int32_t sum[2][kRows];    // of their weights
};

__device__ __forceinline__ void fetch(const uint8_t* from, void* to, uint32_t bytes) {
  for (uint32_t i = threadIdx.x; i < bytes / 16; i += kThreads)
    copy_16(from + 16 * i, static_cast<uint8_t*>(to) + 16 * i);
}

// Makes the rows integers, each warp eight of them; rows that are not there are zeros.
__device__ __forceinline__ void quantize_queries(Shared& s, const Heads& h, const float* q, const PrefillTile& tile,
                                                 uint32_t head) {
  const uint32_t lane = threadIdx.x % 32, first = threadIdx.x / 32 * 8;
#pragma unroll 1
  for (uint32_t row = first; row < first + 8; ++row) {
    float x[kBlocks];
    uint32_t top = 0;
#pragma unroll
    for (uint32_t b = 0; b < kBlocks; ++b) {
      x[b] = row < tile.count ? q[(uint64_t(tile.row + row) * h.n_heads + head) * kDim + 32 * b + lane] : 0.0f;
      top = max(top, arith::bits_of(x[b]) & 0x7fffffffu);
    }
    const arith::HeadScale scale = arith::head_scale(__reduce_max_sync(kFull, top), arith::kKeyMost);
    // This lane's value of a block lies in word `word` of lane `to`.
    const uint32_t to = row % 8 * 4 + lane % 16 / 4, word = row % 16 / 8 + lane / 16 * 2;
#pragma unroll
    for (uint32_t b = 0; b < kBlocks; ++b) {
      const int32_t integer = arith::head_integer(x[b], scale);
      uint8_t* bytes = reinterpret_cast<uint8_t*>(&s.queries[row / 16][b][0][to]) + 4 * word + lane % 4;
      bytes[0] = uint8_t(integer >> 4);
      bytes[32 * sizeof(uint4)] = uint8_t(integer & 15);
    }
    if (lane == 0) s.q_scale[row] = scale.d * h.scale;
  }
}

// Scores of the warp's rows and half of the keys. `cap`: 0 for none.
__device__ __forceinline__ void find_scores(const Shared& s, const float* key_scales /* (64) */, uint32_t group,
                                            uint32_t half, float cap, float (&t)[kOctets][4]) {
  const uint32_t lane = threadIdx.x % 32;
  const auto four = [&](uint32_t place) { return *reinterpret_cast<const uint4*>(s.keys + place + lane * 16); };
  Dots dots[kOctets];
#pragma unroll
  for (uint32_t b = 0; b < kBlocks; ++b) {
    const uint4 q[2] = {s.queries[group][b][0][lane], s.queries[group][b][1][lane]};
    const uint32_t high[4] = {q[0].x, q[0].y, q[0].z, q[0].w}, low[4] = {q[1].x, q[1].y, q[1].z, q[1].w};
    const uint4 nibbles = four(kAt.low() + (half * kBlocks + b) * 512);
    const uint4 first = four((2 * half * kBlocks + b) * 512), second = four(((2 * half + 1) * kBlocks + b) * 512);
    dots[0].add(high, low, first.x, first.y, nibbles.x);
    dots[1].add(high, low, first.z, first.w, nibbles.y);
    dots[2].add(high, low, second.x, second.y, nibbles.z);
    dots[3].add(high, low, second.z, second.w, nibbles.w);
  }
  const uint32_t own = 16 * group + lane / 4;
  const float q_scale[2] = {s.q_scale[own], s.q_scale[own + 8]};
#pragma unroll
  for (uint32_t o = 0; o < kOctets; ++o) {
    const float2 d = *reinterpret_cast<const float2*>(key_scales + 32 * half + 8 * o + lane % 4 * 2);
#pragma unroll
    for (int i = 0; i < 4; ++i) t[o][i] = dots[o][i] * (q_scale[i / 2] * (i % 2 ? d.y : d.x));
  }
  cap_scores(t, cap);
}

// The split's keys that a lane's two rows see: from[row] .. seen[row] - 1.
struct SeenKeys {
  uint32_t from[2], seen[2];

  __device__ __forceinline__ bool operator()(uint32_t key, int row) const {
    return key >= from[row] && key < seen[row];
  }
};

// Leaves the largest score and the largest scale of the values, of half of the keys, by row.
__device__ __forceinline__ void find_tops(Shared& s, const float* value_scales /* (64) */, uint32_t group,
                                          uint32_t half, const float t[kOctets][4], const SeenKeys& sees) {
  const uint32_t lane = threadIdx.x % 32;
  float top[2] = {-arith::infinity(), -arith::infinity()}, largest[2] = {0.0f, 0.0f};
#pragma unroll
  for (uint32_t o = 0; o < kOctets; ++o) {
    const uint32_t key = 32 * half + 8 * o + lane % 4 * 2;
    const float2 d = *reinterpret_cast<const float2*>(value_scales + key);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (!sees(key + i % 2, i / 2)) continue;
      top[i / 2] = fmaxf(top[i / 2], t[o][i]);
      largest[i / 2] = fmaxf(largest[i / 2], i % 2 ? d.y : d.x);
    }
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const uint32_t row = 16 * group + lane / 4 + 8 * r;
    top[r] = row_max(top[r]);
    largest[r] = row_max(largest[r]);
    if (lane % 4 == 0) s.top[half][row] = top[r], s.largest[half][row] = largest[r];
  }
}

// What a split is in two rows' results.
struct SplitParts {
  float m[2], unit[2];
};

// Leaves the weights of half of the keys, and their sums.
__device__ __forceinline__ SplitParts find_weights(Shared& s, const float* value_scales /* (64) */, uint32_t group,
                                                   uint32_t half, const float t[kOctets][4], const SeenKeys& sees) {
  const uint32_t lane = threadIdx.x % 32, own = 16 * group + lane / 4;
  SplitParts part;
  arith::WeightUnit unit[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const uint32_t row = own + 8 * r;
    part.m[r] = ceilf(fmaxf(s.top[0][row], s.top[1][row]));
    unit[r] = arith::weight_unit(fmaxf(s.largest[0][row], s.largest[1][row]));
    part.unit[r] = unit[r].unit;
  }
  int32_t sum[2] = {0, 0};
  uint32_t high[4], low[4];
#pragma unroll
  for (uint32_t pair = 0; pair < kOctets / 2; ++pair) {
    uint32_t w[2][4];  // (row, octet · 2 + key)
#pragma unroll
    for (uint32_t j = 0; j < 2; ++j) {
      const uint32_t o = 2 * pair + j, key = 32 * half + 8 * o + lane % 4 * 2;
      const float2 d = *reinterpret_cast<const float2*>(value_scales + key);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int r = i / 2;
        const bool seen = sees(key + i % 2, r);
        const float p = arith::exp2_below(t[o][i] - part.m[r]);
        const uint32_t weight = arith::value_weight(p, i % 2 ? d.y : d.x, unit[r]);
        sum[r] += seen ? arith::sum_weight(p) : 0;
        w[r][2 * j + i % 2] = seen ? weight : 0;
      }
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const WeightWords words = weight_words(w[r]);
      high[2 * pair + r] = words.high;
      low[2 * pair + r] = words.low;
    }
  }
  s.weights[group][half][0][lane] = {high[0], high[1], high[2], high[3]};
  s.weights[group][half][1][lane] = {low[0], low[1], low[2], low[3]};
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    sum[r] = row_sum(sum[r]);
    if (lane % 4 == 0) s.sum[half][own + 8 * r] = sum[r];
  }
  return part;
}

using Values = float[kValueOctets][4];  // of a lane's two rows, in fragments

// o = o · f.a + factor · Σ W · v for the rows that join.
__device__ __forceinline__ void add_values(const Shared& s, uint32_t group, uint32_t half, const bool joins[2],
                                           const Factors<2>& f, const float factor[2], Values& o) {
  const uint32_t lane = threadIdx.x % 32;
  uint32_t high[2][4], low[2][4];  // weights, by half of the keys
#pragma unroll
  for (uint32_t i = 0; i < 2; ++i) {
    const uint4 a = s.weights[group][i][0][lane], b = s.weights[group][i][1][lane];
    high[i][0] = a.x, high[i][1] = a.y, high[i][2] = a.z, high[i][3] = a.w;
    low[i][0] = b.x, low[i][1] = b.y, low[i][2] = b.z, low[i][3] = b.w;
  }
#pragma unroll
  for (uint32_t octet = 0; octet < kValueOctets; ++octet) {
    const uint32_t place = ((half * kValueOctets + octet) * 32 + lane) * 16;
    const uint4 v = *reinterpret_cast<const uint4*>(s.values + place);
    int32_t of_high[4] = {}, of_low[4] = {};
    mma_us(of_high, high[0], v.x, v.y);
    mma_us(of_low, low[0], v.x, v.y);
    mma_us(of_high, high[1], v.z, v.w);
    mma_us(of_low, low[1], v.z, v.w);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float sum = float(of_high[i] * 256 + of_low[i]);
      if (joins[i / 2]) o[octet][i] = arith::fma32(sum, factor[i / 2], o[octet][i] * f.a[i / 2]);
    }
  }
}

// A run joins the results of earlier ones, or is the first that a row sees.
__device__ __forceinline__ void end_run(uint32_t index, const uint32_t position[2], const RowWindows& windows,
                                        const Sums<2>& run, const Values& o, Sums<2>& all, Values& total) {
  bool opens[2], joins[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    opens[r] = index == windows.first_run(r);
    joins[r] = index > windows.first_run(r) && index * kAttnRun * kAttnSplit <= position[r];
  }
  const Factors<2> f = join(all, run.m, run.l, joins);
#pragma unroll
  for (int r = 0; r < 2; ++r)
    if (opens[r]) all.m[r] = run.m[r], all.l[r] = run.l[r];
#pragma unroll
  for (uint32_t octet = 0; octet < kValueOctets; ++octet)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int r = i / 2;
      if (opens[r]) total[octet][i] = o[octet][i];
      else if (joins[r]) total[octet][i] = arith::fma32(o[octet][i], f.b[r], total[octet][i] * f.a[r]);
    }
}

// kGeneral: with what AttentionParams may have; without, they are plain.
template <bool kGeneral>
__global__ void __launch_bounds__(kThreads, 1)
    attention_prefill_wide_kernel(Heads h, KvLayer kv, const float* q, const PrefillTile* tiles, float* out,
                                  AttentionParams params) {
  extern __shared__ __align__(16) uint8_t memory[];
  Shared& s = *reinterpret_cast<Shared*>(memory);
  const PrefillTile tile = tiles[gridDim.x - 1 - blockIdx.x];  // the longest begin first
  const uint32_t head = blockIdx.y, kv_head = head / (h.n_heads / h.n_kv_heads);
  const uint32_t lane = threadIdx.x % 32, group = threadIdx.x / 64, half = threadIdx.x / 32 % 2;
  const uint32_t own = 16 * group + lane / 4;  // and own + 8
  const uint32_t splits = (tile.start + tile.count - 1) / kAttnSplit + 1;
  const auto from = [&](uint32_t row) { return kGeneral ? arith::first_seen(tile.start + row, params.window) : 0; };
  const uint32_t first_split = from(0) / kAttnSplit;
  const auto page = [&](uint32_t split) { return head_at(h, kv, page_of(kv, tile.slot, split * kAttnSplit), kv_head); };
  const auto fetch_keys = [&](uint32_t split) {
    const uint8_t* bytes = page(split);
    fetch(bytes, s.keys, sizeof s.keys);
    fetch(bytes + kAt.key_scales(), s.scales[split % 2], sizeof s.scales[0]);
  };

  fetch_keys(first_split);
  commit_copies();
  quantize_queries(s, h, q, tile, head);
  const uint32_t position[2] = {tile.start + own, tile.start + own + 8};
  const RowWindows windows = {{from(own), from(own + 8)}};

  Sums<2> run, all = {};
  Values o = {}, total = {};
#pragma unroll 1
  for (uint32_t split = first_split; split < splits; ++split) {
    await_copies<0>();
    __syncthreads();  // the keys are there, and the values before are used up; so the queries are there
    fetch(page(split) + kAt.values(), s.values, sizeof s.values);
    commit_copies();
    const uint32_t first = split * kAttnSplit;
    const float* value_scales = s.scales[split % 2] + kAttnSplit;
    // A run begins from nothing, which gives the bits of its first part, whichever that is for a row.
    if (split == first_split || split % kAttnRun == 0) run = {{-arith::infinity(), -arith::infinity()}, {0.0f, 0.0f}};
    bool joins[2];
    SeenKeys sees;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      joins[r] = first <= position[r] && windows.sees_split(r, split);
      sees.from[r] = windows.from_in(r, split);
      sees.seen[r] = joins[r] ? position[r] + 1 - first : 0;
    }
    float t[kOctets][4];
    find_scores(s, s.scales[split % 2], group, half, kGeneral ? params.soft_cap : 0.0f, t);
    find_tops(s, value_scales, group, half, t, sees);
    __syncthreads();  // all have their scores: the keys are used up
    if (split + 1 < splits) fetch_keys(split + 1);
    commit_copies();
    const SplitParts part = find_weights(s, value_scales, group, half, t, sees);
    await_copies<1>();
    __syncthreads();  // the values are there, and all weights
    float l[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) l[r] = float(s.sum[0][own + 8 * r] + s.sum[1][own + 8 * r]);
    const Factors<2> f = join(run, part.m, l, joins);
    const float factor[2] = {f.b[0] * part.unit[0], f.b[1] * part.unit[1]};
    add_values(s, group, half, joins, f, factor, o);
    if (split % kAttnRun == kAttnRun - 1 || split + 1 == splits)
      end_run(split / kAttnRun, position, windows, run, o, all, total);
  }

#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const uint32_t row = own + 8 * r;
    if (row >= tile.count) continue;
    Factors<1> f = {};
    const bool sinks = kGeneral && params.sinks;
    if (sinks) f = join_sink(all.m[r], all.l[r], params.sinks[head]);
    const float inverse = __fdiv_rn(1.0f, all.l[r] * arith::kSumUnit);
    float* to = out + (uint64_t(tile.row + row) * h.n_heads + head) * kDim + half * (kDim / 2) + lane % 4 * 2;
#pragma unroll
    for (uint32_t octet = 0; octet < kValueOctets; ++octet) {
      float2 y = {total[octet][2 * r], total[octet][2 * r + 1]};
      if (sinks) y = {after_sink(y.x, f), after_sink(y.y, f)};
      *reinterpret_cast<float2*>(to + 8 * octet) = {y.x * inverse, y.y * inverse};
    }
  }
}

template <bool kGeneral>
void launch_form(const Heads& h, const KvLayer& kv, const float* q, const PrefillTile* tiles, uint32_t n_tiles,
                 const AttentionParams& params, float* out, cudaStream_t stream) {
  constexpr int bytes = sizeof(Shared);
  const auto kernel = attention_prefill_wide_kernel<kGeneral>;
  static const bool ready = [&] {
    ORCD_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    return true;
  }();
  (void)ready;
  kernel<<<dim3(n_tiles, h.n_heads), kThreads, bytes, stream>>>(h, kv, q, tiles, out, params);
  ORCD_CUDA(cudaGetLastError());
}

}  // namespace

size_t prefill_wide_shared_bytes() { return sizeof(Shared); }

void attention_prefill_wide(const Heads& h, const KvLayer& kv, const float* q, const PrefillTile* tiles,
                            uint32_t n_tiles, const AttentionParams& params, float* out, cudaStream_t stream) {
  if (params.plain()) launch_form<false>(h, kv, q, tiles, n_tiles, params, out, stream);
  else launch_form<true>(h, kv, q, tiles, n_tiles, params, out, stream);
}

}  // namespace orcd::kernels
