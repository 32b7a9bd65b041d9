#include <cmath>
#include <vector>

#include "arith/constants.h"
#include "cpu/ops.h"

namespace orcd::cpu {

void rmsnorm_row(const float* x /* (cols) */, const float* weight /* (cols) */, uint32_t cols, float eps,
                 float* out /* (cols) */) {
  float s[kNormLanes] = {};
  const uint32_t whole = cols / kNormLanes * kNormLanes;
  for (uint32_t k = 0; k < whole; k += kNormLanes) {
    for (uint32_t l = 0; l < kNormLanes; ++l) s[l] = __builtin_fmaf(x[k + l], x[k + l], s[l]);
  }
  for (uint32_t k = whole; k < cols; ++k) s[k - whole] = __builtin_fmaf(x[k], x[k], s[k - whole]);
  for (uint32_t stride = kNormLanes / 2; stride > 0; stride /= 2) {
    for (uint32_t l = 0; l < stride; ++l) s[l] = s[l] + s[l + stride];
  }
  const float inv = 1.0f / std::sqrt(s[0] / static_cast<float>(cols) + eps);
  for (uint32_t k = 0; k < cols; ++k) out[k] = x[k] * inv * weight[k];
}

void rmsnorm(Pool& pool, const float* x, const uint32_t* gather, uint32_t rows, const float* weight, float eps,
             const Activations& out) {
  share(pool, rows, out.cols * 0.5, [&](uint32_t first, uint32_t end) {
    for (uint32_t r = first; r < end; ++r) {
      const uint64_t from = gather ? gather[r] : r;
      rmsnorm_row(x + from * out.cols, weight, out.cols, eps, out.x + uint64_t{r} * out.cols);
      quantize_row(out, r);
    }
  });
}

void add(Pool& pool, const float* y, const BranchEnd& end, uint32_t rows, uint32_t cols, float* x) {
  share(pool, rows, cols * 0.7, [&](uint32_t first, uint32_t last) {
    std::vector<float> normed(cols);
    for (uint32_t r = first; r < last; ++r) {
      const float* from = y + uint64_t{r} * cols;
      float* to = x + uint64_t{r} * cols;
      if (end.norm) rmsnorm_row(from, end.norm, cols, end.eps, normed.data()), from = normed.data();
      for (uint32_t k = 0; k < cols; ++k) to[k] = to[k] + from[k] * end.scale;
    }
  });
}

}  // namespace orcd::cpu
