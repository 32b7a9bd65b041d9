// Products of feed-forward parts with experts, and the sum of what they give. A place is a row and one of its experts; a
// tile is some places of one expert (router.cu), which the kernels of many rows take as they take any rows.
#include "kernels/float_weight.cuh"
#include "kernels/launch.h"
#include "kernels/pdl.h"
#include "kernels/several_rows.cuh"
#include "kernels/warp.cuh"

namespace orcd::kernels {
namespace {

constexpr uint32_t kWarps = 8;
constexpr uint32_t kThreads = kWarps * 32;

// The product of some places with their experts' rows.
struct ExpertProduct {
  Tensor w;           // all experts' rows, one after the other
  const float* bias;  // (experts, rows of each) or null
  float* y;           // (places, rows of each)
};

// Of float weights: a warp a weight row. row: (places) of the input; null: as the place.
__global__ void __launch_bounds__(kThreads)
    float_kernel(const __grid_constant__ ExpertProduct p, const __grid_constant__ Activations input,
                 const uint32_t* row, const ExpertTile* tiles, uint32_t rows /* of each expert */) {
  pdl_launch_dependents();
  pdl_wait();
  const ExpertTile places = tiles[blockIdx.y];
  const uint32_t n = blockIdx.x * kWarps + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (n >= rows) return;
  const uint64_t at = uint64_t(places.expert) * rows + n;
  for (uint32_t place = places.first; place < places.end; ++place) {
    const float* x = input.x + uint64_t(row ? row[place] : place) * p.w.cols;
    float y = 0.0f;
    for (uint32_t segment = 0; segment < p.w.cols; segment += kSegment) {
      float s = 0.0f;
      for (uint32_t k = segment + lane; k < min(segment + kSegment, p.w.cols); k += kDotLanes)
        s = arith::fma32(float_weight(p.w, at * p.w.cols + k), x[k], s);
      y = y + tree32(s);
    }
    if (lane == 0) p.y[uint64_t(place) * rows + n] = p.bias ? y + p.bias[at] : y;
  }
}

// Of a row, over ranks ascending: Σ weight · given.
__global__ void sum_kernel(const __grid_constant__ Mixture m, uint32_t cols, MixtureEnd end) {
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
  float* to = end.y + row * cols + k;
  *to = end.add ? *to + sum * end.scale : sum;
}

// Products of one type.
void multiply(const Mixture& m, std::span<const ExpertProduct> products, const Activations& input, const uint32_t* row,
              uint32_t pairs, cudaStream_t stream) {
  constexpr uint32_t kFew = 32;  // places
  const TilePlan plan = tile_plan(pairs, m.experts);
  const TensorType type = products[0].w.type;
  if (!formats::is_quantized(type)) {
    for (const ExpertProduct& p : products) {
      const uint32_t rows = p.w.rows / m.experts;
      const dim3 blocks((rows + kWarps - 1) / kWarps, plan.count);
      launch_kernel(float_kernel, {blocks, kThreads}, true, stream, p, input, row, m.tiles, rows);
    }
    return;
  }
  ExpertsArgs a = {};
  a.n_jobs = uint32_t(products.size()), a.cols = input.cols, a.rows = pairs;
  a.x = formats::has_super_blocks(type) ? input.supers : input.blocks;
  a.tiles = m.tiles, a.row = row;
  for (size_t i = 0; i < products.size(); ++i)
    a.jobs[i] = {products[i].w.data, products[i].bias, products[i].y, products[i].w.rows / m.experts, false, 0};
  formats::with_format(type, [&]<TensorType T>() {
    if constexpr (kHasExpertShapes<T>) matmul_experts_of<T>(a, plan.count, plan.rows, pairs <= kFew, stream);
    else matmul_experts_direct<T>(a, plan.count, stream);
  });
}

}  // namespace

void mix(const Mixture& m, const Activations& normed, uint32_t rows, const MixtureEnd& end, cudaStream_t stream) {
  const uint32_t pairs = rows * m.used, d_model = normed.cols;
  const ExpertProduct up[] = {{m.gate, m.gate_bias, m.gated}, {m.up, m.up_bias, m.upped}};
  if (m.gate.type == m.up.type) {
    multiply(m, up, normed, m.row, pairs, stream);
  } else {
    for (const ExpertProduct& product : up) multiply(m, {&product, 1}, normed, m.row, pairs, stream);
  }
  Activations hidden = m.hidden;
  hidden.supers.tiles = nullptr;
  glu(m.activation, m.gated, m.upped, pairs, hidden, stream);
  const ExpertProduct down = {m.down, m.down_bias, m.given};
  multiply(m, {&down, 1}, hidden, nullptr, pairs, stream);
  launch_kernel(sum_kernel, {dim3((d_model + kThreads - 1) / kThreads, rows), kThreads}, true, stream, m, d_model, end);
}

}  // namespace orcd::kernels
