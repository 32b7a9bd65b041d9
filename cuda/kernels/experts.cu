// Feed-forward parts with experts: which ones a row takes, their products, and the sum of what they give. A place is a
// row and one of its experts. Of few places each has the weights to itself; many are sorted by expert, and a warp that
// has read eight of its weight rows takes all of its places.
#include "arith/half.h"
#include "arith/router.h"
#include "arith/super_block.h"
#include "device/check.h"
#include "kernels/block.cuh"
#include "kernels/launch.h"
#include "kernels/pdl.h"
#include "kernels/warp.cuh"

namespace orcd::kernels {
namespace {

constexpr uint32_t kWarps = 8;
constexpr uint32_t kThreads = kWarps * 32;
constexpr uint32_t kSortThreads = 1024;

// One warp a row. A lane has every 32nd expert.
__global__ void choose_kernel(const __grid_constant__ Mixture m, bool sorted) {
  constexpr uint32_t kEach = kMostExperts / 32;
  __shared__ float masses[kMostExpertsUsed];
  pdl_launch_dependents();
  pdl_wait();
  const uint64_t row = blockIdx.x;
  const uint32_t lane = threadIdx.x;
  const float* logits = m.logits + row * m.experts;
  uint32_t taken = 0;  // bit i: this lane's i-th expert
  bool sound = true;
  for (uint32_t i = 0; i < kEach && lane + 32 * i < m.experts; ++i) sound &= arith::is_finite(logits[lane + 32 * i]);
  sound = __all_sync(kFull, sound);
  float first = 0.0f;
  for (uint32_t rank = 0; rank < m.used; ++rank) {
    float best = 0.0f;
    uint32_t at = kMostExperts;
    for (uint32_t i = 0; i < kEach && lane + 32 * i < m.experts; ++i) {
      const uint32_t e = lane + 32 * i;
      if (taken >> i & 1u) continue;
      if (at == kMostExperts || arith::goes_before(logits[e], e, best, at)) best = logits[e], at = e;
    }
#pragma unroll
    for (int stride = 16; stride; stride /= 2) {
      const float other = __shfl_xor_sync(kFull, best, stride);
      const uint32_t other_at = __shfl_xor_sync(kFull, at, stride);
      if (other_at != kMostExperts && (at == kMostExperts || arith::goes_before(other, other_at, best, at)))
        best = other, at = other_at;
    }
    if (!sound) at = rank;
    if (at % 32 == lane) taken |= 1u << at / 32;
    if (rank == 0) first = best;
    if (lane != 0) continue;
    const uint32_t pair = uint32_t(row) * m.used + rank;
    m.expert[pair] = at;
    masses[rank] = sound ? arith::expert_mass(best, first) : arith::float_of(0x7fc00000u);
    if (sorted) continue;
    m.place[pair] = pair;
    m.row[pair] = uint32_t(row);
  }
  if (lane != 0) return;
  arith::shares(masses, m.used, m.scale);
  for (uint32_t rank = 0; rank < m.used; ++rank) m.weight[row * m.used + rank] = masses[rank];
}

// Places by expert, in one thread block. Which of an expert's places a pair gets changes nothing.
__global__ void __launch_bounds__(kSortThreads) sort_kernel(const __grid_constant__ Mixture m, uint32_t pairs) {
  __shared__ uint32_t next[kMostExperts];
  pdl_launch_dependents();
  pdl_wait();
  for (uint32_t e = threadIdx.x; e < m.experts; e += kSortThreads) next[e] = 0;
  __syncthreads();
  for (uint32_t i = threadIdx.x; i < pairs; i += kSortThreads) atomicAdd(next + m.expert[i], 1);
  __syncthreads();
  if (threadIdx.x == 0) {
    uint32_t behind = 0;
    for (uint32_t e = 0; e < m.experts; ++e) {
      const uint32_t n = next[e];
      next[e] = behind;
      m.end[e] = behind += n;
    }
  }
  __syncthreads();
  for (uint32_t i = threadIdx.x; i < pairs; i += kSortThreads) {
    const uint32_t place = atomicAdd(next + m.expert[i], 1);
    m.place[i] = place;
    m.row[place] = i / m.used;
  }
}

struct ExpertArgs {
  Tensor w[2];           // all experts' rows, one after the other; the second may be absent
  const float* bias[2];  // (experts, rows of each) or null
  float* y[2];           // (places, rows of each)
  Activations input;
  const uint32_t* row;     // (places) of the input; null: as the place
  const uint32_t* expert;  // (places); null: blockIdx.y is an expert, with the places up to `end`
  const uint32_t* end;     // (experts)
  uint32_t rows;           // of each expert
};

// Whether a group of eight rows always begins at a multiple of 16 bytes. Of MXFP4 it does not where a row has an odd
// number of blocks: then it is read by words.
template <TensorType T>
inline constexpr bool kAligned = !formats::kHasPower<formats::Format<T>>;

struct Places {
  uint32_t first, end, expert;
};

__device__ __forceinline__ Places places_of(const ExpertArgs& a) {
  const uint32_t i = blockIdx.y;
  if (a.expert) return {i, i + 1, a.expert[i]};
  return {i ? a.end[i - 1] : 0, a.end[i], i};
}

// Binary16 sums of two halves of a block as int16.
__device__ __forceinline__ int32_t sums_of(int32_t word) {
  const __half2 h = *reinterpret_cast<const __half2*>(&word);
  const float2 f = __half22float2(h);
  return (int32_t(f.x) & 0xffff) | int32_t(f.y) << 16;
}

// What four lanes of a row have found, in their order; all four get it.
__device__ __forceinline__ float add_four(float y, float mine, uint32_t lanes, uint32_t n) {
#pragma unroll
  for (uint32_t i = 0; i < 4; ++i) {
    const float part = __shfl_sync(kFull, mine, i * kGroupRows + lanes);
    if (i < n) y = y + part;
  }
  return y;
}

// Eight weight rows by one warp, by some rows of the input: a lane has one of the weight rows, and every fourth segment of
// it, which it unpacks once for all.
template <TensorType T, uint32_t kPlaces>
__device__ __forceinline__ void by_segments(const uint8_t* group, const Activations& in, const uint64_t (&row)[kPlaces],
                                            float (&y)[kPlaces]) {
  const uint32_t nb = in.cols / 32, lane = threadIdx.x % 32, r = lane % kGroupRows, own = lane / kGroupRows;
  const uint32_t segments = (nb + kSegmentBlocks - 1) / kSegmentBlocks;
  for (uint32_t base = 0; base < segments; base += 4) {
    const uint32_t first = (base + own) * kSegmentBlocks;
    float acc[kPlaces] = {};
    for (uint32_t b = first; b < min(first + kSegmentBlocks, nb); ++b) {
      const WeightBlock<T> w = load_block<T, kAligned<T>>(group, kGroupRows, nb, b, r);
#pragma unroll
      for (uint32_t p = 0; p < kPlaces; ++p) {
        const uint4* x = reinterpret_cast<const uint4*>(in.blocks.q + row[p] * in.cols + b * 32);
        const float d = in.blocks.d[row[p] * nb + b];
        const int32_t sum = in.blocks.sum[row[p] * nb + b];
        acc[p] = arith::fma32(w.d * d, float(dot(w, x[0], x[1], sum)), acc[p]);
        if constexpr (kAffine<T>) acc[p] = arith::fma32(w.dmin * d, float(sum), acc[p]);
      }
    }
#pragma unroll
    for (uint32_t p = 0; p < kPlaces; ++p) y[p] = add_four(y[p], acc[p], r, segments - base);
  }
}

// The same with every fourth super-block.
template <TensorType T, uint32_t kPlaces>
__device__ __forceinline__ void by_supers(const uint8_t* group, const Activations& in, const uint64_t (&row)[kPlaces],
                                          float (&y)[kPlaces]) {
  const uint32_t nb = in.cols / 32, lane = threadIdx.x % 32, r = lane % kGroupRows, own = lane / kGroupRows;
  const uint32_t supers = nb / kSuperBlocks;
  for (uint32_t base = 0; base < supers; base += 4) {
    const uint32_t super = min(base + own, supers - 1);
    SuperSums sums[kPlaces] = {};
    uint32_t shifts[kPlaces];
#pragma unroll
    for (uint32_t p = 0; p < kPlaces; ++p) shifts[p] = in.supers.shifts[row[p] * supers + super];
    float d = 0.0f, dmin = 0.0f;
#pragma unroll
    for (uint32_t half = 0; half < 2; ++half)
#pragma unroll
      for (uint32_t j = 0; j < kSegmentBlocks; ++j) {
        const uint32_t b = super * kSuperBlocks + half * kSegmentBlocks + j;
        const WeightBlock<T> w = load_block<T, kAligned<T>>(group, kGroupRows, nb, b, r);
        d = w.d, dmin = w.dmin;  // of the whole super-block
#pragma unroll
        for (uint32_t p = 0; p < kPlaces; ++p) {
          const uint4* x = reinterpret_cast<const uint4*>(in.supers.q + row[p] * in.cols + b * 32);
          add_block<T>(sums[p], w, x[0], x[1], arith::shifts_of_half(shifts[p], half) >> j * 8,
                       sums_of(in.supers.sum[row[p] * nb + b]));
        }
      }
#pragma unroll
    for (uint32_t p = 0; p < kPlaces; ++p) {
      const float part =
          finish_super<T>(sums[p].products, float(sums[p].minima), d, dmin, in.supers.d[row[p] * supers + super]);
      y[p] = add_four(y[p], part, r, supers - base);
    }
  }
}

// kPlaces: at once.
template <TensorType T, uint32_t kPlaces>
__global__ void __launch_bounds__(kThreads) expert_kernel(const __grid_constant__ ExpertArgs a) {
  pdl_launch_dependents();
  pdl_wait();
  const Places places = places_of(a);
  const uint32_t tile = blockIdx.x * kWarps + threadIdx.x / 32, lane = threadIdx.x % 32, second = blockIdx.z;
  if (tile >= a.rows / kGroupRows) return;
  const Tensor& w = a.w[second];
  const uint64_t row_bytes = formats::row_bytes(T, w.cols);
  const uint8_t* group = w.data + (uint64_t(places.expert) * a.rows + tile * kGroupRows) * row_bytes;
  const uint32_t n = tile * kGroupRows + lane % kGroupRows;
  const float* biases = a.bias[second];
  const float bias = biases ? biases[uint64_t(places.expert) * a.rows + n] : 0.0f;
  for (uint32_t first = places.first; first < places.end; first += kPlaces) {
    uint64_t row[kPlaces];
    float y[kPlaces] = {};
#pragma unroll
    for (uint32_t i = 0; i < kPlaces; ++i) {
      const uint32_t p = min(first + i, places.end - 1);
      row[i] = a.row ? a.row[p] : p;
    }
    if constexpr (kSupers<T>) by_supers<T>(group, a.input, row, y);
    else by_segments<T>(group, a.input, row, y);
    if (lane >= kGroupRows) continue;
#pragma unroll
    for (uint32_t i = 0; i < kPlaces; ++i)
      if (first + i < places.end) a.y[second][uint64_t(first + i) * a.rows + n] = biases ? y[i] + bias : y[i];
  }
}

__device__ __forceinline__ float float_at(const Tensor& w, uint64_t i) {
  if (w.type == TensorType::kF32) return reinterpret_cast<const float*>(w.data)[i];
  const uint16_t bits = reinterpret_cast<const uint16_t*>(w.data)[i];
  return w.type == TensorType::kF16 ? arith::f16_to_f32(bits) : arith::bf16_to_f32(bits);
}

// Of float weights: a warp a weight row.
__global__ void __launch_bounds__(kThreads) expert_float_kernel(const __grid_constant__ ExpertArgs a) {
  pdl_launch_dependents();
  pdl_wait();
  const Places places = places_of(a);
  const uint32_t n = blockIdx.x * kWarps + threadIdx.x / 32, lane = threadIdx.x % 32, second = blockIdx.z;
  if (n >= a.rows) return;
  const Tensor& w = a.w[second];
  const uint64_t at = uint64_t(places.expert) * a.rows + n;
  const float* biases = a.bias[second];
  for (uint32_t p = places.first; p < places.end; ++p) {
    const float* x = a.input.x + uint64_t(a.row ? a.row[p] : p) * w.cols;
    float y = 0.0f;
    for (uint32_t segment = 0; segment < w.cols; segment += kSegment) {
      float s = 0.0f;
      for (uint32_t k = segment + lane; k < min(segment + kSegment, w.cols); k += kDotLanes)
        s = arith::fma32(float_at(w, at * w.cols + k), x[k], s);
      y = y + tree32(s);
    }
    if (lane == 0) a.y[second][uint64_t(p) * a.rows + n] = biases ? y + biases[at] : y;
  }
}

// Rows of x to their places.
__global__ void gather_kernel(const __grid_constant__ Mixture m, const float* x) {
  pdl_launch_dependents();
  pdl_wait();
  const uint64_t cols = m.input.cols, place = blockIdx.x, row = m.row[place];
  for (uint32_t k = threadIdx.x; k < cols; k += kThreads) m.input.x[place * cols + k] = x[row * cols + k];
}

// y[r] = Σ weight · given over ranks ascending.
__global__ void sum_kernel(const __grid_constant__ Mixture m, uint32_t cols, float* y) {
  pdl_launch_dependents();
  pdl_wait();
  const uint64_t row = blockIdx.y;
  const uint32_t k = blockIdx.x * kThreads + threadIdx.x;
  if (k >= cols) return;
  float sum = 0.0f;
  for (uint32_t rank = 0; rank < m.used; ++rank) {
    const uint64_t pair = row * m.used + rank;
    sum = arith::fma32(m.weight[pair], m.given[uint64_t(m.place[pair]) * cols + k], sum);
  }
  y[row * cols + k] = sum;
}

void multiply(const ExpertArgs& a, uint32_t ranges, cudaStream_t stream) {
  const Tensor& w = a.w[0];
  const bool floats = !formats::is_quantized(w.type);
  const uint32_t units = floats ? a.rows : a.rows / kGroupRows;
  const dim3 blocks((units + kWarps - 1) / kWarps, ranges, a.w[1] ? 2 : 1);
  if (floats) return launch_kernel(expert_float_kernel, {blocks, kThreads}, true, stream, a);
  formats::with_format(w.type, [&]<TensorType T>() {
    if (a.expert) launch_kernel(expert_kernel<T, 1>, {blocks, kThreads}, true, stream, a);
    else launch_kernel(expert_kernel<T, 4>, {blocks, kThreads}, true, stream, a);
  });
}

}  // namespace

void route(const Mixture& m, uint32_t rows, bool sorted, cudaStream_t stream) {
  launch_kernel(choose_kernel, {rows, 32}, true, stream, m, sorted);
  if (sorted) launch_kernel(sort_kernel, {1, kSortThreads}, true, stream, m, rows * m.used);
}

void gather(const Mixture& m, const float* x, uint32_t places, cudaStream_t stream) {
  launch_kernel(gather_kernel, {places, kThreads}, true, stream, m, x);
}

void sum_experts(const Mixture& m, uint32_t rows, uint32_t cols, float* y, cudaStream_t stream) {
  launch_kernel(sum_kernel, {dim3((cols + kThreads - 1) / kThreads, rows), kThreads}, true, stream, m, cols, y);
}

void mix(const Mixture& m, const Activations& normed, uint32_t rows, float* y, cudaStream_t stream) {
  // Up to so many places, on so many times the weights that are read then, sorting and long loops cost more.
  constexpr uint32_t kFew = 64;
  const uint32_t pairs = rows * m.used, d_model = normed.cols, d_ff = m.hidden.cols;
  const bool sorted = pairs > kFew;
  route(m, rows, sorted, stream);
  const uint32_t ranges = sorted ? m.experts : pairs;
  const uint32_t* expert = sorted ? nullptr : m.expert;
  const ExpertArgs up = {
      {m.gate, m.up}, {m.gate_bias, m.up_bias}, {m.gated, m.upped}, normed, m.row, expert, m.end, d_ff};
  if (m.gate.type == m.up.type) {
    multiply(up, ranges, stream);
  } else {
    for (uint32_t i = 0; i < 2; ++i)
      multiply({{up.w[i], {}}, {up.bias[i], nullptr}, {up.y[i], nullptr}, normed, m.row, expert, m.end, d_ff}, ranges,
               stream);
  }
  Activations hidden = m.hidden;
  hidden.supers.tiles = nullptr;
  glu(m.activation, m.gated, m.upped, pairs, hidden, stream);
  multiply({{m.down, {}}, {m.down_bias, nullptr}, {m.given, nullptr}, hidden, nullptr, expert, m.end, d_model}, ranges,
           stream);
  sum_experts(m, rows, d_model, y, stream);
}

}  // namespace orcd::kernels
