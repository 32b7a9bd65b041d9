// Products on up to eight rows, for decoding. A tile is a group of eight weight rows: its bytes are
// contiguous, so one bulk copy brings whole tiles into shared memory, and a ring of such copies runs ahead,
// the first of them before the kernel before has ended. A warp takes one segment of a tile, lane 8j + r
// block j of row r. Devices before compute capability 9.0 read the tiles from device memory.
#include "device/check.h"
#include "kernels/block.cuh"
#include "kernels/launch.h"
#include "kernels/warp.cuh"

namespace orcd::kernels {
namespace {

constexpr uint32_t kMaxWarps = 28;
constexpr uint32_t kMaxStages = 4;
constexpr uint32_t kAnyType = 0xffff;  // template argument: the jobs' types differ

struct Job {
  const uint8_t* data;
  const float* bias;
  float* y;
  uint32_t n, add;
  TensorType type;
  uint32_t first_tile;  // of this job among all; with SwiGLU both jobs have the same tiles
  uint32_t tile_bytes;  // of a whole tile
};

struct Args {
  Job jobs[3];
  MatvecInput input;
  uint32_t n_jobs, tiles, cols, rows, swiglu;
  uint32_t at_once;      // tiles a round takes: neighbours in one job
  uint32_t rounds;       // of the whole grid
  uint32_t stages;       // rounds in shared memory
  uint32_t stage_bytes;
};

__host__ __device__ inline uint32_t segments_of(uint32_t cols) { return (cols / 32 + kSegmentBlocks - 1) / kSegmentBlocks; }

// What a block holds in shared memory; sizes follow from Args.
struct Shared {
  uint8_t* ring;   // (stages, stage_bytes)
  uint64_t* full;  // (stages) barriers: the stage's bytes have arrived
  int8_t* q;       // (rows, cols)
  float* d;        // (rows, nb)
  int32_t* sum;    // (rows, nb)
  int32_t* half;   // (rows, nb)
  float* inverse;  // (rows)
  float* part;     // (2, rows, items, 8)
  uint32_t bytes;
};

__host__ __device__ inline Shared carve(uint8_t* base, const Args& a) {
  const uint32_t nb = a.cols / 32, items = segments_of(a.cols) * a.at_once * (a.swiglu ? 2 : 1);
  uint32_t at = 0;
  const auto take = [&](uint32_t bytes) {
    uint8_t* p = base + at;
    at += (bytes + 15) / 16 * 16;
    return p;
  };
  Shared s;
  s.ring = take(a.stages * a.stage_bytes);
  s.full = reinterpret_cast<uint64_t*>(take(kMaxStages * 8));
  s.q = reinterpret_cast<int8_t*>(take(a.rows * a.cols));
  s.d = reinterpret_cast<float*>(take(a.rows * nb * 4));
  s.sum = reinterpret_cast<int32_t*>(take(a.rows * nb * 4));
  s.half = reinterpret_cast<int32_t*>(take(a.rows * nb * 4));
  s.inverse = reinterpret_cast<float*>(take(a.rows * 4));
  s.part = reinterpret_cast<float*>(take(2 * a.rows * items * 8 * 4));
  s.bytes = at;
  return s;
}

// The tiles of a round: neighbours of one job. Rounds are numbered through all jobs.
struct Round {
  uint32_t job, tile, tiles;  // tile: within the job
};

__device__ __forceinline__ uint32_t tiles_of(const Job& job) { return (job.n + kGroupRows - 1) / kGroupRows; }

__device__ __forceinline__ Round find_round(const Args& a, uint32_t round) {
  uint32_t job = 0;
  if (!a.swiglu)
    while (job + 1 < a.n_jobs && round >= a.jobs[job + 1].first_tile) ++job;
  const uint32_t tile = (round - a.jobs[job].first_tile) * a.at_once;
  return {job, tile, min(a.at_once, tiles_of(a.jobs[job]) - tile)};
}

#if __CUDA_ARCH__ >= 900
constexpr bool kStaged = true;
#else
constexpr bool kStaged = false;
#endif

__device__ __forceinline__ uint32_t shared_address(const void* p) { return uint32_t(__cvta_generic_to_shared(p)); }

// Whole tiles of a part of a round; a last tile of fewer rows is read from device memory.
__device__ __forceinline__ uint32_t staged_bytes(const Job& job, const Round& r) {
  const uint32_t whole = min(r.tiles, job.n / kGroupRows - min(r.tile, job.n / kGroupRows));
  return whole * job.tile_bytes;
}

__device__ __forceinline__ void bulk_copy(const uint8_t* from, uint8_t* to, uint32_t bytes, uint64_t* barrier) {
#if __CUDA_ARCH__ >= 900
  if (bytes)
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                     shared_address(to)),
                 "l"(from), "r"(bytes), "r"(shared_address(barrier))
                 : "memory");
#endif
}

// By one thread: starts the copies of a round into a stage.
__device__ __forceinline__ void fetch(const Args& a, const Shared& s, uint32_t round, uint32_t stage) {
#if __CUDA_ARCH__ >= 900
  if (round >= a.rounds) return;
  const Round r = find_round(a, round);
  const Job& first = a.jobs[r.job];
  const uint32_t bytes = staged_bytes(first, r), more = a.swiglu ? staged_bytes(a.jobs[1], r) : 0;
  uint64_t* barrier = s.full + stage;
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes + more)
               : "memory");
  uint8_t* to = s.ring + stage * a.stage_bytes;
  bulk_copy(first.data + uint64_t(r.tile) * first.tile_bytes, to, bytes, barrier);
  if (a.swiglu)
    bulk_copy(a.jobs[1].data + uint64_t(r.tile) * a.jobs[1].tile_bytes, to + a.at_once * first.tile_bytes, more, barrier);
#endif
}

__device__ __forceinline__ void wait_full(const Shared& s, uint32_t stage, uint32_t parity) {
#if __CUDA_ARCH__ >= 900
  uint32_t done = 0;
  while (!done)
    asm volatile(
        "{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
        : "=r"(done)
        : "r"(shared_address(s.full + stage)), "r"(parity)
        : "memory");
#endif
}

// Four blocks at once: eight lanes hold a block, lane i of them values 4i .. 4i + 3.
__device__ __forceinline__ void quantise_four(const Shared& s, const float4& v, uint32_t block, uint32_t byte,
                                              bool store) {
  const uint32_t lane = threadIdx.x % 8;
  const auto magnitude = [](float x) { return arith::bits_of(x) & 0x7fffffffu; };
  uint32_t top = max(max(magnitude(v.x), magnitude(v.y)), max(magnitude(v.z), magnitude(v.w)));
#pragma unroll
  for (int stride = 4; stride; stride /= 2) top = max(top, __shfl_xor_sync(kFull, top, stride));
  const bool flat = top < arith::bits_of(0x1p-100f) || top >= arith::bits_of(arith::infinity());
  const float d = flat ? 0.0f : __fdiv_rn(arith::float_of(top), 127.0f);
  const float r = flat ? 0.0f : __fdiv_rn(1.0f, d);
  const auto rounded = [&](float x) { return flat ? 0 : __float2int_rn(x * r); };
  const int32_t q[4] = {rounded(v.x), rounded(v.y), rounded(v.z), rounded(v.w)};
  int32_t sum = (q[0] + q[1]) + (q[2] + q[3]);
  sum += __shfl_xor_sync(kFull, sum, 1);
  sum += __shfl_xor_sync(kFull, sum, 2);
  const int32_t other = __shfl_xor_sync(kFull, sum, 4);
  if (!store) return;
  *reinterpret_cast<uint32_t*>(s.q + byte) =
      (q[0] & 255) | (q[1] & 255) << 8 | (q[2] & 255) << 16 | static_cast<uint32_t>(q[3]) << 24;
  if (lane == 0) {
    s.d[block] = d;
    s.sum[block] = sum + other;
    s.half[block] = sum;
  }
}

__device__ __forceinline__ float4 load4(const float* p) { return *reinterpret_cast<const float4*>(p); }

// 1 / sqrt(mean square + eps) by one warp: lane t holds the contract's lanes 4t .. 4t + 3.
__device__ __forceinline__ float inverse_rms4(const float* x, uint32_t cols, float eps) {
  const uint32_t lane = threadIdx.x % 32;
  float s[4] = {0, 0, 0, 0};
  for (uint32_t base = 4 * lane; base < cols; base += 8 * 128) {
    float4 v[8];  // all loads before the first use
#pragma unroll
    for (uint32_t i = 0; i < 8; ++i) v[i] = base + i * 128 < cols ? load4(x + base + i * 128) : float4{};
#pragma unroll
    for (uint32_t i = 0; i < 8; ++i) {  // a missing element adds 0 · 0: nothing
      s[0] = arith::fma32(v[i].x, v[i].x, s[0]);
      s[1] = arith::fma32(v[i].y, v[i].y, s[1]);
      s[2] = arith::fma32(v[i].z, v[i].z, s[2]);
      s[3] = arith::fma32(v[i].w, v[i].w, s[3]);
    }
  }
#pragma unroll
  for (int stride = 16; stride; stride /= 2)
#pragma unroll
    for (float& f : s) f = f + __shfl_xor_sync(kFull, f, stride);
  const float sum = (s[0] + s[2]) + (s[1] + s[3]);
  return __fdiv_rn(1.0f, __fsqrt_rn(__fdiv_rn(sum, float(cols)) + eps));
}

// Quantises pieces of 128 values of all rows, spread over the warps. `value(row, k)` gives four values.
template <class Value>
__device__ __forceinline__ void quantise_all(const Args& a, const Shared& s, uint32_t rows, Value value) {
  const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
  const uint32_t pieces = (a.cols + 127) / 128;
  for (uint32_t row = 0; row < rows; ++row) {
#pragma unroll 2
    for (uint32_t piece = warp; piece < pieces; piece += warps) {
      const uint32_t k = piece * 128 + lane * 4;
      // The eight lanes of a block are inside together; the others take part in the exchange only.
      const bool inside = k < a.cols;
      const float4 v = inside ? value(row, k) : float4{};
      quantise_four(s, v, row * (a.cols / 32) + k / 32, row * a.cols + k, inside);
    }
  }
}

// Norm weights of this warp's first piece, fetched before the kernel before has ended.
__device__ __forceinline__ float4 early_weight(const Args& a) {
  const uint32_t k = threadIdx.x / 32 * 128 + threadIdx.x % 32 * 4;
  return a.input.kind == Input::kNorm && k < a.cols ? load4(a.input.weight + k) : float4{};
}

// Fills q, d, sum and half in shared memory.
template <bool kSingle>
__device__ __forceinline__ void prepare_input(const Args& a, const Shared& s, const float4& first_weight) {
  const uint32_t nb = a.cols / 32, rows = kSingle ? 1 : a.rows;
  if (a.input.kind == Input::kGiven) {
    for (uint32_t i = threadIdx.x; i < rows * a.cols / 16; i += blockDim.x)
      reinterpret_cast<uint4*>(s.q)[i] = reinterpret_cast<const uint4*>(a.input.a.q)[i];
    for (uint32_t i = threadIdx.x; i < rows * nb; i += blockDim.x) {
      s.d[i] = a.input.a.d[i];
      s.sum[i] = a.input.a.sum[i];
      s.half[i] = a.input.a.half[i];
    }
  } else if (a.input.kind == Input::kQuantise) {
    quantise_all(a, s, rows, [&](uint32_t row, uint32_t k) { return load4(a.input.a.x + uint64_t(row) * a.cols + k); });
  } else {
    const uint32_t warp = threadIdx.x / 32, warps = blockDim.x / 32;
    const auto x_of = [&](uint32_t row) {
      return a.input.x + uint64_t(a.input.pick ? a.input.pick[row] : row) * a.cols;
    };
    float single = 0.0f;
    if constexpr (kSingle) {
      if (warp * 128 < a.cols) single = inverse_rms4(x_of(0), a.cols, a.input.eps);  // by each warp that quantises
    } else {
      for (uint32_t row = warp; row < rows; row += warps) s.inverse[row] = inverse_rms4(x_of(row), a.cols, a.input.eps);
      __syncthreads();
    }
    quantise_all(a, s, rows, [&](uint32_t row, uint32_t k) {
      const float inverse = kSingle ? single : s.inverse[row];
      const float4 x = load4(x_of(row) + k);
      const float4 w = k / 128 == warp ? first_weight : load4(a.input.weight + k);
      return float4{(x.x * inverse) * w.x, (x.y * inverse) * w.y, (x.z * inverse) * w.z, (x.w * inverse) * w.w};
    });
  }
}

// One segment of one tile against all rows: part[row][item][r].
template <TensorType T, bool kWhole, bool kSingle>
__device__ __forceinline__ void segment(const uint8_t* group, uint32_t group_rows, uint32_t seg, uint32_t item,
                                        uint32_t items, const Args& a, const Shared& s, float* part) {
  const uint32_t lane = threadIdx.x % 32, j = lane / 8, r = lane % 8;
  const uint32_t nb = a.cols / 32, b = seg * kSegmentBlocks + j;
  const uint32_t blocks = min(kSegmentBlocks, nb - seg * kSegmentBlocks);
  const bool mine = j < blocks && r < group_rows;
  WeightBlock<T> w = {};
  if (mine) w = load_block<T, kWhole>(group, group_rows, nb, b, r);
  const uint32_t rows = kSingle ? 1 : a.rows;
#pragma unroll 2
  for (uint32_t row = 0; row < rows; ++row) {
    int32_t sum = 0;
    float scale = 0, total = 0, addend = 0, af = 0;
    if (mine) {
      const uint4* q = reinterpret_cast<const uint4*>(s.q + row * a.cols + b * 32);
      const uint32_t at = row * nb + b;
      const float d = s.d[at];
      sum = s.sum[at];
      total = float(dot(w, q[0], q[1], sum, T == TensorType::kQ6_K ? s.half[at] : 0));
      scale = w.d * d;
      if constexpr (kAffine<T>) {
        addend = w.m * d;
        af = float(sum);
      }
    }
    float acc = 0.0f;
#pragma unroll
    for (uint32_t i = 0; i < kSegmentBlocks; ++i) {
      const float si = __shfl_sync(kFull, scale, i * 8 + r), ti = __shfl_sync(kFull, total, i * 8 + r);
      if (i < blocks) acc = arith::fma32(si, ti, acc);
      if constexpr (kAffine<T>) {
        const float mi = __shfl_sync(kFull, addend, i * 8 + r), ai = __shfl_sync(kFull, af, i * 8 + r);
        if (i < blocks) acc = arith::fma32(mi, ai, acc);
      }
    }
    if (lane < 8) part[(row * items + item) * 8 + r] = acc;
  }
}

// What finish_round will add to, fetched while the products are computed.
template <bool kSingle>
__device__ __forceinline__ float residual_of(const Args& a, const Round& round) {
  const Job& job = a.jobs[round.job];
  const uint32_t n = round.tile * kGroupRows + threadIdx.x;
  return kSingle && job.add && threadIdx.x < round.tiles * kGroupRows && n < job.n ? job.y[n] : 0.0f;
}

// The results of a round: eight threads a tile.
template <bool kSingle>
__device__ __forceinline__ void finish_round(const Args& a, const Round& round, const float* part, uint32_t segments,
                                             uint32_t items, float residual) {
  const Job& job = a.jobs[round.job];
  const uint32_t first = kSingle ? 0 : threadIdx.x / 32, rows = kSingle ? 1 : a.rows;
  for (uint32_t row = first; row < rows; row += blockDim.x / 32) {
    for (uint32_t i = kSingle ? threadIdx.x : threadIdx.x % 32; i < round.tiles * 8; i += kSingle ? blockDim.x : 32) {
      const uint32_t r = i % 8, tile = i / 8, n = round.tile * kGroupRows + i;
      if (n >= job.n) continue;
      const auto total = [&](uint32_t second) {
        const float* p = part + (row * items + (second * a.at_once + tile) * segments) * 8 + r;
        float y = 0.0f;
#pragma unroll 8
        for (uint32_t seg = 0; seg < segments; ++seg) y = y + p[seg * 8];
        return y;
      };
      float y = total(0);
      if (job.bias) y = y + job.bias[n];
      if (a.swiglu) y = silu_times(y, total(1));
      float* to = job.y + uint64_t(row) * job.n + n;
      *to = job.add ? (kSingle ? residual : *to) + y : y;
    }
    if (kSingle) break;
  }
}

template <uint32_t kType, bool kSingle>
__global__ void __launch_bounds__(kMaxWarps * 32) matvec_kernel(const __grid_constant__ Args a) {
  extern __shared__ __align__(128) uint8_t memory[];
  const Shared s = carve(memory, a);
  const uint32_t warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const uint32_t segments = segments_of(a.cols), items = segments * a.at_once * (a.swiglu ? 2 : 1);

  let_successor_start();
  if (threadIdx.x == 0) {
#if __CUDA_ARCH__ >= 900
    for (uint32_t i = 0; i < a.stages; ++i)
      asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(s.full + i)) : "memory");
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
    // Weights depend on nobody: fetch before waiting.
    for (uint32_t i = 0; i < a.stages; ++i) fetch(a, s, blockIdx.x + i * gridDim.x, i);
  }
  const float4 first_weight = early_weight(a);
  wait_for_predecessor();
  prepare_input<kSingle>(a, s, first_weight);
  __syncthreads();

  uint32_t stage = 0, parity = 0, turn = 0;
  for (uint32_t at = blockIdx.x; at < a.rounds; at += gridDim.x, ++turn) {
    const Round round = find_round(a, at);
    float* part = s.part + (turn % 2) * a.rows * items * 8;
    const float residual = residual_of<kSingle>(a, round);
    wait_full(s, stage, parity);
    for (uint32_t item = warp; item < items; item += warps) {
      uint32_t tile_index = 0, seg = item;
      for (; seg >= segments; seg -= segments) ++tile_index;  // few tiles: cheaper than a division
      const bool second = tile_index >= a.at_once;
      const uint32_t tile = second ? tile_index - a.at_once : tile_index;
      if (tile >= round.tiles) continue;
      const Job& job = a.jobs[second ? 1 : round.job];
      const uint32_t group = round.tile + tile;
      const uint32_t group_rows = min(kGroupRows, job.n - group * kGroupRows);
      const uint8_t* in_device = job.data + uint64_t(group) * job.tile_bytes;
      const uint8_t* in_shared = s.ring + stage * a.stage_bytes + (second ? a.at_once * a.jobs[0].tile_bytes : 0) + tile * job.tile_bytes;
      const auto run = [&]<TensorType T>() {
        if (group_rows == kGroupRows)
          segment<T, true, kSingle>(kStaged ? in_shared : in_device, kGroupRows, seg, item, items, a, s, part);
        else
          segment<T, false, kSingle>(in_device, group_rows, seg, item, items, a, s, part);
      };
      if constexpr (kType == kAnyType) with_type(job.type, run);
      else run.template operator()<TensorType(kType)>();
    }
    __syncthreads();
    if (threadIdx.x == 0) fetch(a, s, at + a.stages * gridDim.x, stage);
    finish_round<kSingle>(a, round, part, segments, items, residual);
    if (++stage == a.stages) stage = 0, parity ^= 1;
  }
}

// Properties of the current device that decide launches, asked for once.
struct Processor {
  int count = 0, shared_bytes = 0;
};

const Processor& processor() {
  static const Processor p = [] {
    Processor q;
    int device = 0;
    ORCD_CUDA(cudaGetDevice(&device));
    ORCD_CUDA(cudaDeviceGetAttribute(&q.count, cudaDevAttrMultiProcessorCount, device));
    ORCD_CUDA(cudaDeviceGetAttribute(&q.shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
    return q;
  }();
  return p;
}

using Kernel = void (*)(Args);

template <uint32_t kType>
Kernel kernel_of(bool single) {
  static const bool ready = [] {
    const int bytes = processor().shared_bytes;
    ORCD_CUDA(cudaFuncSetAttribute(matvec_kernel<kType, true>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    ORCD_CUDA(cudaFuncSetAttribute(matvec_kernel<kType, false>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    return true;
  }();
  (void)ready;
  return single ? matvec_kernel<kType, true> : matvec_kernel<kType, false>;
}

// A kernel of its own for each type, and one for jobs that mix them.
Kernel choose(const Args& a) {
  const bool single = a.rows == 1;
  for (uint32_t i = 1; i < a.n_jobs; ++i)
    if (a.jobs[i].type != a.jobs[0].type) return kernel_of<kAnyType>(single);
  switch (a.jobs[0].type) {
    case TensorType::kQ4_0: return kernel_of<uint32_t(TensorType::kQ4_0)>(single);
    case TensorType::kQ5_0: return kernel_of<uint32_t(TensorType::kQ5_0)>(single);
    case TensorType::kQ8_0: return kernel_of<uint32_t(TensorType::kQ8_0)>(single);
    case TensorType::kQ4_K: return kernel_of<uint32_t(TensorType::kQ4_K)>(single);
    case TensorType::kQ5_K: return kernel_of<uint32_t(TensorType::kQ5_K)>(single);
    case TensorType::kQ6_K: return kernel_of<uint32_t(TensorType::kQ6_K)>(single);
    default: return kernel_of<kAnyType>(single);
  }
}

uint32_t tile_bytes(TensorType type, uint32_t cols) { return uint32_t(kGroupRows * arith::row_bytes(type, cols)); }

// Everything but what depends on the jobs' memory: a tile at a time, one stage.
Args smallest(const TensorType* types, uint32_t n_jobs, uint32_t cols, uint32_t rows, Input input, bool swiglu) {
  Args a = {};
  a.input.kind = input;
  a.n_jobs = n_jobs;
  a.cols = cols;
  a.rows = rows;
  a.swiglu = swiglu;
  a.at_once = a.stages = 1;
  for (uint32_t i = 0; i < n_jobs; ++i) {
    const uint32_t bytes = tile_bytes(types[i], cols);
    a.stage_bytes = swiglu ? a.stage_bytes + bytes : max(a.stage_bytes, bytes);
  }
  return a;
}

}  // namespace

bool matvec_fits(const TensorType* types, uint32_t n_jobs, uint32_t cols, uint32_t rows, Input input, bool swiglu) {
  const Args a = smallest(types, n_jobs, cols, rows, input, swiglu);
  return rows <= kMatvecRows && carve(nullptr, a).bytes <= uint32_t(processor().shared_bytes);
}

void matvec(const MatvecJob* jobs, uint32_t n_jobs, const MatvecInput& input, uint32_t rows, bool swiglu,
            bool overlap, cudaStream_t stream) {
  TensorType types[3];
  for (uint32_t i = 0; i < n_jobs; ++i) types[i] = jobs[i].w.type;
  Args a = smallest(types, n_jobs, jobs[0].w.cols, rows, input.kind, swiglu);
  a.input = input;
  const uint32_t count = uint32_t(processor().count), limit = uint32_t(processor().shared_bytes);
  const auto tiles_of_job = [&](uint32_t i) { return (jobs[i].w.rows + kGroupRows - 1) / kGroupRows; };
  for (uint32_t i = 0; i < (swiglu ? 1 : n_jobs); ++i) a.tiles += tiles_of_job(i);

  // As many tiles a round as warps can take a segment each, if there are enough tiles for all processors.
  const uint32_t per_tile = segments_of(a.cols) * (swiglu ? 2 : 1);
  const uint32_t single_stage = a.stage_bytes;
  a.at_once = max(1u, min(kMaxWarps / per_tile, a.tiles / count));
  while (a.at_once > 1 && a.at_once * single_stage * 2 > limit / 2) --a.at_once;
  a.stage_bytes = single_stage * a.at_once;
  for (uint32_t i = 0; i < n_jobs; ++i) {
    const Tensor& w = jobs[i].w;
    a.jobs[i] = {w.data, jobs[i].bias, jobs[i].y, w.rows, jobs[i].add, w.type, swiglu ? 0 : a.rounds, tile_bytes(w.type, w.cols)};
    const uint32_t rounds = (tiles_of_job(i) + a.at_once - 1) / a.at_once;
    a.rounds = swiglu ? rounds : a.rounds + rounds;
  }
  const uint32_t grid = min(a.rounds, count * (a.tiles > 2 * count ? 1 : 2));
  a.stages = min((a.rounds + grid - 1) / grid, kMaxStages);
  while (a.stages > 1 && carve(nullptr, a).bytes > limit) --a.stages;

  const uint32_t items = per_tile * a.at_once, shares = (items + kMaxWarps - 1) / kMaxWarps;
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = max(4u, (items + shares - 1) / shares) * 32;
  config.dynamicSmemBytes = carve(nullptr, a).bytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = overlap ? 1 : 0;
  ORCD_CUDA(cudaLaunchKernelEx(&config, choose(a), a));
}

}  // namespace orcd::kernels
