// Products of a step of few rows with few weights. What such a step takes is the length of its chain of kernels, and how
// long each of these waits for others, so this one does what else is between two products: it normalizes what it reads,
// or has a gated unit's result quantized.
//
// A thread block has all of K at once: its warps fetch their weights before the kernel before has ended, the activations
// follow, and after one barrier each warp multiplies its units, sixteen weight rows by all rows each. What these give is
// added up in the contract's order behind a second barrier. There are eight rows at most.
#pragma once

#include "arith/glu.h"
#include "device/check.h"
#include "kernels/multiply.cuh"
#include "kernels/pdl.h"
#include "kernels/prologue.cuh"
#include "kernels/small_batch.h"
#include "kernels/tiles.cuh"

namespace orcd::kernels {
namespace {

// Units that a warp has on their way.
constexpr uint32_t kSlots = kSmallSlots;
constexpr uint32_t kThreads = kSmallWarps * 32, kRows = kSmallRows;
static_assert(kRows == kTileRows);
// Floats between a row's results of a unit and the next row's: four lie empty, to keep stores off each other's banks.
constexpr uint32_t kPartRow = kWarpWeights + 4;

// Super-blocks of hidden values that a thread block may have parts of.
constexpr uint32_t kMostSupers = 32;

struct SmallShared {
  uint8_t* weights;  // (warps, slots, slot_bytes)
  int8_t* values;    // (units, rows, unit), as UnitView has them; so are the next three
  float* d;
  uint32_t* sums;
  uint32_t* shifts;
  float* norm;     // (cols) its weights
  float* parts;    // (groups, units, rows, kPartRow)
  uint32_t* last;  // (kMostSupers) whether this thread block quantizes that super-block of its own
  uint32_t bytes;
};

template <bool kSupersOf>
struct UnitShape {
  static constexpr uint32_t kBlocks = kSupersOf ? kSuperBlocks : kSegmentBlocks, kValues = kBlocks * kQuantBlock;
  static constexpr uint32_t kScales = kSupersOf ? 1 : kSegmentBlocks;
};

template <bool kSupersOf>
__host__ __device__ inline SmallShared carve_small(uint8_t* base, const SmallBatchArgs& a) {
  using U = UnitShape<kSupersOf>;
  const uint32_t units = (a.cols + U::kValues - 1) / U::kValues;
  Carver c = {base};
  SmallShared s;
  s.weights = c.take<uint8_t>(kSmallWarps * a.slots * a.slot_bytes);
  s.values = c.take<int8_t>(units * kRows * U::kValues);
  s.d = c.take<float>(units * kRows * U::kScales);
  s.sums = c.take<uint32_t>(units * kRows * U::kBlocks);
  s.shifts = c.take<uint32_t>(kSupersOf ? units * kRows : 0);
  s.norm = c.take<float>(a.input.kind == Input::kNorm ? a.cols : 0);
  s.parts = c.take<float>(a.groups * units * kRows * kPartRow);
  s.last = c.take<uint32_t>(a.gated ? kMostSupers : 0);
  s.bytes = c.at;
  return s;
}

// Sixteen weight rows of one job.
struct WeightGroup {
  const SmallBatchJob& job;
  uint32_t first, rows;  // of the job; there may be fewer than sixteen, or none
};

// A group of this thread block. Of a gated unit those of the second job come behind those of the first.
__device__ __forceinline__ WeightGroup group_of(const SmallBatchArgs& a, uint32_t group) {
  uint32_t job = 0, at = blockIdx.x * a.groups + group;
  if (a.gated) {
    const uint32_t half = a.groups / 2;
    job = group >= half;
    at = blockIdx.x * half + group - job * half;
  } else {
    while (job + 1 < a.n_jobs && at >= a.jobs[job + 1].first_group) ++job;
    at -= a.jobs[job].first_group;
  }
  const uint32_t first = at * kWarpWeights, n = a.jobs[job].n;
  return {a.jobs[job], first, first < n ? min(n - first, kWarpWeights) : 0};
}

// What a warp works on, one after the other: unit by unit, group by group.
struct Task {
  uint32_t group, unit;
  __device__ __forceinline__ void advance(uint32_t by, uint32_t units) {
    for (unit += by; unit >= units; unit -= units) ++group;
  }
};

template <uint32_t kType, uint32_t kOther, class F>
__device__ __forceinline__ void of_type(TensorType type, const F& f) {
  if (kType == kOther || type == TensorType(kType)) with_type<kType>(type, f);
  else with_type<kOther>(type, f);
}

template <uint32_t kType, uint32_t kOther>
__device__ __forceinline__ void fetch_task(const SmallBatchArgs& a, const Task& task, uint8_t* to) {
  if (task.group >= a.groups) return;
  const WeightGroup g = group_of(a, task.group);
  const uint64_t bytes = g.job.group_bytes;
  const OwnGroups own = {g.job.data + g.first / kGroupRows * bytes, bytes, g.rows};
  of_type<kType, kOther>(g.job.type, [&]<TensorType T>() { fetch_unit<T>(to, own, a.cols / kQuantBlock, task.unit); });
}

// Stores a piece of 128 values of a row, or of 256, quantized, as UnitView has them: a unit.
__device__ __forceinline__ void store_unit(const SmallShared& s, uint32_t row, uint32_t unit, const FourQuantized& x) {
  const uint32_t lane = threadIdx.x % 32, at = unit * kRows + row;
  *reinterpret_cast<uint32_t*>(s.values + at * kSegment + value_place(row, lane / 4) + lane % 4 * 4) = x.q;
  if (lane % 8 == 0)
    s.d[at * kSegmentBlocks + lane / 8] = x.d, s.sums[at * kSegmentBlocks + lane / 8] = uint32_t(x.sum);
}

__device__ __forceinline__ void store_unit(const SmallShared& s, uint32_t row, uint32_t unit, const SuperQuantized& x) {
  const uint32_t lane = threadIdx.x % 32, at = unit * kRows + row;
#pragma unroll
  for (uint32_t h = 0; h < 2; ++h) {
    *reinterpret_cast<uint32_t*>(s.values + at * kSuperBlock + value_place(row, h * 8 + lane / 4) + lane % 4 * 4) =
        x.q[h];
    if (lane % 8 == 0) s.sums[at * kSuperBlocks + sum_place(row, h * 4 + lane / 8)] = uint32_t(x.sums[h].as_halves());
  }
  if (lane == 0) s.d[at] = x.d, s.shifts[at] = x.shifts;
}

// Quantizes the rows, normalized if that is asked for: a warp a row, or several warps, each some values of it.
template <bool kSupersOf>
__device__ __forceinline__ void quantize_input(const SmallBatchArgs& a, const SmallShared& s) {
  constexpr uint32_t kPieces = 4, kAtOnce = kPieces * kSegment;  // whose chains of instructions run side by side
  constexpr uint32_t kShare = kSmallWarps / kRows;
  const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32, row = warp % kRows;
  if (row >= a.rows) return;
  const bool norm = a.input.kind == Input::kNorm;
  const uint64_t from = norm && a.input.gather ? a.input.gather[row] : row;
  const float* x = (norm ? a.input.x : a.input.a.x) + from * a.cols;
  const float inverse = norm ? inverse_rms4(x, a.cols, a.input.eps) : 0.0f;
  for (uint32_t base = warp / kRows * kAtOnce; base < a.cols; base += kShare * kAtOnce) {
    float4 v[kPieces];
#pragma unroll
    for (uint32_t p = 0; p < kPieces; ++p) {
      const uint32_t k = base + p * kSegment + lane * 4;
      v[p] = k < a.cols ? load4(x + k) : float4{};
      if (norm && k < a.cols) v[p] = normed4(v[p], inverse, load4(s.norm + k));
    }
    if constexpr (kSupersOf) {
#pragma unroll
      for (uint32_t p = 0; p < kPieces; p += 2) {
        const SuperQuantized quantized = quantize_super(v[p], v[p + 1]);
        if (base + p * kSegment < a.cols) store_unit(s, row, (base + p * kSegment) / kSuperBlock, quantized);
      }
    } else {
      FourQuantized quantized[kPieces];
#pragma unroll
      for (uint32_t p = 0; p < kPieces; ++p) quantized[p] = quantize_four(v[p]);
#pragma unroll
      for (uint32_t p = 0; p < kPieces; ++p)
        if (base + p * kSegment < a.cols) store_unit(s, row, base / kSegment + p, quantized[p]);
    }
  }
}

// Starts the copies of rows that are quantized already.
template <bool kSupersOf>
__device__ __forceinline__ void fetch_input(const SmallBatchArgs& a, const SmallShared& s) {
  using U = UnitShape<kSupersOf>;
  constexpr uint32_t kPieces = U::kValues / 16;
  const Quantized& x = kSupersOf ? a.input.a.supers : a.input.a.blocks;
  const uint32_t lane = threadIdx.x % 32, nb = a.cols / kQuantBlock, pieces = a.cols / 16;
  const uint32_t scales = kSupersOf ? nb / kSuperBlocks : nb;
  for (uint32_t i = threadIdx.x / 32; i / kRows * 32 < pieces; i += kSmallWarps) {
    const uint32_t row = i % kRows, piece = i / kRows * 32 + lane;
    if (row >= a.rows) continue;
    if (piece < pieces)
      copy_async<16>(s.values + (piece / kPieces * kRows + row) * U::kValues + value_place(row, piece % kPieces),
                     x.q + uint64_t(row) * a.cols + piece * 16, true);
    // Numbers beside the values: of each block, and of super-blocks two copies of sums.
    const uint64_t of_row = uint64_t(row) * scales;
    if constexpr (kSupersOf) {
      if (piece * 4 < nb) {
        const uint32_t at = piece / 2 * kRows + row, half = piece % 2 * 4;
        copy_async<16>(s.sums + at * kSuperBlocks + sum_place(row, half), x.sum + of_row * kSuperBlocks + piece * 4,
                       true);
        if (half == 0) {
          copy_async<4>(s.d + at, x.d + of_row + piece / 2, true);
          copy_async<4>(s.shifts + at, x.shifts + of_row + piece / 2, true);
        }
      }
    } else if (piece < nb) {
      const uint32_t at = (piece / kSegmentBlocks * kRows + row) * kSegmentBlocks + piece % kSegmentBlocks;
      copy_async<4>(s.d + at, x.d + of_row + piece, true);
      copy_async<4>(s.sums + at, x.sum + of_row + piece, true);
    }
  }
}

// One result of a product: the units' in ascending order.
__device__ __forceinline__ float total_of(const SmallShared& s, uint32_t group, uint32_t units, uint32_t row,
                                          uint32_t weight) {
  const float* p = s.parts + (group * units * kRows + row) * kPartRow + weight;
  float y = 0.0f;
#pragma unroll 8
  for (uint32_t unit = 0; unit < units; ++unit) y = y + p[unit * kRows * kPartRow];
  return y;
}

// One of a thread's results of products that are no gated unit: what belongs to it beside its product is fetched ahead.
struct Result {
  uint32_t group, row, weight;
  bool inside;
  float bias, residual;
  float* to;

  __device__ __forceinline__ Result(const SmallBatchArgs& a, uint32_t at) {
    weight = at % kWarpWeights, row = at / kWarpWeights % kRows, group = at / kWarpWeights / kRows;
    inside = group < a.groups && row < a.rows;
    if (!inside) return;
    const WeightGroup g = group_of(a, group);
    inside = weight < g.rows;
    if (!inside) return;
    to = g.job.y + uint64_t(row) * g.job.n + g.first + weight;
    bias = g.job.bias ? g.job.bias[g.first + weight] : 0.0f;
    residual = g.job.add ? *to : 0.0f;
    has_bias = g.job.bias, adds = g.job.add;
  }

  __device__ __forceinline__ void store(float y) const {
    const float product = has_bias ? y + bias : y;
    *to = adds ? residual + product : product;
  }

 private:
  bool has_bias, adds;
};

// What a gate and an up of this thread block become together.
__device__ __forceinline__ float hidden_of(const SmallBatchArgs& a, const SmallShared& s, uint32_t group,
                                           uint32_t units, uint32_t row, uint32_t weight) {
  const float gate = total_of(s, group, units, row, weight);
  return arith::gated(a.activation, gate, total_of(s, a.groups / 2 + group, units, row, weight));
}

// The result as blocks of 32, of which a thread block has whole ones.
__device__ __forceinline__ void finish_blocks(const SmallBatchArgs& a, const SmallShared& s, uint32_t units) {
  const uint32_t lane = threadIdx.x % 32, half = a.groups / 2, first = blockIdx.x * half / 2;
  for (uint32_t i = threadIdx.x / 32; i < half / 2 * kRows; i += kSmallWarps) {
    const uint32_t row = i % kRows, block = i / kRows;
    if (row >= a.rows || (first + block) * kQuantBlock >= a.hidden.cols) continue;
    const float y = hidden_of(a, s, block * 2 + lane / kWarpWeights, units, row, lane % kWarpWeights);
    store_block(a.hidden, row, first + block, quantize_block(y));
  }
}

// The same as super-blocks: each is quantized by the thread block that is the last one to come here with a part of it.
__device__ __forceinline__ void finish_supers(const SmallBatchArgs& a, const SmallShared& s, uint32_t units) {
  const Activations& out = a.hidden;
  const uint32_t half = a.groups / 2, first = blockIdx.x * half * kWarpWeights;
  const uint32_t end = min(first + half * kWarpWeights, out.cols);
  for (uint32_t i = threadIdx.x; i < half * kRows * kWarpWeights; i += kThreads) {
    const uint32_t weight = i % kWarpWeights, row = i / kWarpWeights % kRows, group = i / kWarpWeights / kRows;
    const uint32_t at = first + group * kWarpWeights + weight;
    if (row >= a.rows || at >= end) continue;
    out.x[uint64_t(row) * out.cols + at] = hidden_of(a, s, group, units, row, weight);
  }
  __threadfence();
  __syncthreads();
  const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const uint32_t of_first = first / kSuperBlock, count = (end - 1) / kSuperBlock - of_first + 1;
  if (threadIdx.x < count) {
    const uint32_t super = of_first + threadIdx.x, begin = super * kSuperBlock;
    const uint32_t own = min(end, begin + kSuperBlock) - max(first, begin);
    uint32_t* arrived = a.arrived + super;
    const bool last = atomicAdd(arrived, own) + own == kSuperBlock;
    if (last) *arrived = 0;
    s.last[threadIdx.x] = last;
  }
  __syncthreads();
  for (uint32_t i = 0; i < count; ++i) {
    if (!s.last[i]) continue;
    __threadfence();
    const uint32_t super = of_first + i;
    for (uint32_t row = warp; row < a.rows; row += kSmallWarps) {
      const float4* x = reinterpret_cast<const float4*>(out.x + uint64_t(row) * out.cols + super * kSuperBlock);
      store_super(out, a.rows, row, super, quantize_super(__ldcg(x + lane), __ldcg(x + 32 + lane)));
    }
  }
}

// The jobs' types: kType, and kOther if that is another one.
template <uint32_t kType, uint32_t kOther>
__global__ void __launch_bounds__(kThreads, 2) small_batch_kernel(const __grid_constant__ SmallBatchArgs a) {
#if __CUDA_ARCH__ >= 900  // where kernels may begin early: see plan_of()
  extern __shared__ __align__(128) uint8_t memory[];
  constexpr bool supers = takes_supers<kType>();
  using U = UnitShape<supers>;
  const SmallShared s = carve_small<supers>(memory, a);
  const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const uint32_t nb = a.cols / kQuantBlock, units = (nb + U::kBlocks - 1) / U::kBlocks;
  uint8_t* own = s.weights + warp * a.slots * a.slot_bytes;

  pdl_launch_dependents();
  // What depends on no other kernel comes before they have ended.
  if (a.input.kind == Input::kNorm)
    for (uint32_t i = threadIdx.x; i < a.cols / 4; i += kThreads)
      copy_async<16>(s.norm + i * 4, a.input.weight + i * 4, true);
  commit_copies();
  Task task = {0, warp}, ahead = {0, warp};
  task.advance(0, units), ahead.advance(0, units);
#pragma unroll
  for (uint32_t i = 0; i < kSlots; ++i) {
    if (i < a.slots) {
      fetch_task<kType, kOther>(a, ahead, own + i * a.slot_bytes);
      ahead.advance(kSmallWarps, units);
    }
    commit_copies();
  }
  if (a.input.kind == Input::kNorm) {
    await_copies<kSlots>();
    __syncthreads();
  }
  pdl_wait();
  const Result mine(a, a.gated ? UINT32_MAX : threadIdx.x);
  if (a.input.kind == Input::kGiven) {
    fetch_input<supers>(a, s);
    commit_copies();
    await_copies<0>();
  } else {
    quantize_input<supers>(a, s);
  }
  __syncthreads();

  uint32_t slot = 0;
  for (; task.group < a.groups; task.advance(kSmallWarps, units)) {
    await_copies<kSlots - 1>();
    __syncwarp();
    uint8_t* weights = own + slot * a.slot_bytes;
    const WeightGroup g = group_of(a, task.group);
    if (g.rows) {
      const uint32_t at = task.unit * kRows;
      float* part = s.parts + (task.group * units * kRows + at) * kPartRow;
      const auto take = [&](uint32_t n, uint32_t e, float value) {
        part[(n * kTileRows + lane % 4 * 2 + e % 2) * kPartRow + e / 2 * kGroupRows + lane / 4] = value;
      };
      of_type<kType, kOther>(g.job.type, [&]<TensorType T>() {
        const UnitView<T> view = {weights, s.values + at * U::kValues, s.sums + at * U::kBlocks, s.d + at * U::kScales,
                                  s.shifts + at};
        if constexpr (kSupers<T>) multiply_super<T, 1>(view, take);
        else multiply_segment<T, 1>(view, min(U::kBlocks, nb - task.unit * U::kBlocks), take);
      });
    }
    if (ahead.group < a.groups) {
      __syncwarp();
      fetch_task<kType, kOther>(a, ahead, weights);
      ahead.advance(kSmallWarps, units);
    }
    commit_copies();
    if (++slot == a.slots) slot = 0;
  }
  __syncthreads();

  if (a.gated) {
    if (a.hidden.blocks.q) finish_blocks(a, s, units);
    else finish_supers(a, s, units);
    return;
  }
  if (mine.inside) mine.store(total_of(s, mine.group, units, mine.row, mine.weight));
  for (uint32_t i = threadIdx.x + kThreads; i < a.groups * kRows * kWarpWeights; i += kThreads) {
    const Result more(a, i);
    if (more.inside) more.store(total_of(s, more.group, units, more.row, more.weight));
  }
#endif
}

template <uint32_t kType, uint32_t kOther>
SmallBatchKernel small_kernel() {
  static const bool ready = [] {
    ORCD_CUDA(cudaFuncSetAttribute(small_batch_kernel<kType, kOther>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   int(processor().shared_bytes)));
    return true;
  }();
  (void)ready;
  return small_batch_kernel<kType, kOther>;
}

template <TensorType kType, TensorType kOther = kType>
SmallBatchKernel small_kernel_of() {
  return small_kernel<uint32_t(kType), uint32_t(kOther)>();
}

}  // namespace
}  // namespace orcd::kernels
