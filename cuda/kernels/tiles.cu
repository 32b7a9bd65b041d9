#include "kernels/tiles.cuh"

namespace orcd::kernels {

bool are_alike(const TensorType* types, uint32_t n) {
  for (uint32_t i = 0; i < n; ++i)
    if (!formats::is_quantized(types[i]) || formats::has_super_blocks(types[i]) != formats::has_super_blocks(types[0]))
      return false;
  return true;
}

bool can_be_staged(const TensorType* types, uint32_t n, uint32_t cols) {
  for (uint32_t i = 0; i < n; ++i)
    if (tile_bytes(types[i], cols) % 16) return false;
  return true;
}

ProductArgs smallest_product(const TensorType* types, uint32_t n_jobs, uint32_t cols, bool gated) {
  ProductArgs a = {};
  a.n_jobs = n_jobs;
  a.cols = cols;
  a.gated = gated;
  a.supers = formats::has_super_blocks(types[0]);
  a.at_once = a.stages = 1;
  for (uint32_t i = 0; i < n_jobs; ++i) {
    const uint32_t bytes = tile_bytes(types[i], cols);
    a.stage_bytes = gated ? a.stage_bytes + bytes : max(a.stage_bytes, bytes);
  }
  return a;
}

void add_jobs(ProductArgs& a, const MatmulJob* jobs) {
  a.rounds = 0;
  for (uint32_t i = 0; i < a.n_jobs; ++i) {
    const Tensor& w = jobs[i].w;
    a.jobs[i] = {w.data,
                 jobs[i].bias,
                 jobs[i].y,
                 w.rows,
                 jobs[i].add,
                 w.type,
                 a.gated ? 0 : a.rounds,
                 tile_bytes(w.type, w.cols)};
    const uint32_t rounds = (tiles_of(w.rows) + a.at_once - 1) / a.at_once;
    a.rounds = a.gated ? rounds : a.rounds + rounds;
  }
}

}  // namespace orcd::kernels
