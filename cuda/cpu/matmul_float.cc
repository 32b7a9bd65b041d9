#include <vector>

#include "arith/constants.h"
#include "cpu/ops.h"
#include "cpu/pack.h"
#include "formats/formats.h"

namespace orcd::cpu {
namespace {

// Tree(s, 32) of the lanes of one segment; n < 128 in the last one only.
float segment_dot(const float* w, const float* x, uint32_t n) {
  float s[kDotLanes] = {};
  uint32_t k = 0;
  for (; k + kDotLanes <= n; k += kDotLanes) {
    for (uint32_t l = 0; l < kDotLanes; ++l) s[l] = __builtin_fmaf(w[k + l], x[k + l], s[l]);
  }
  for (uint32_t l = 0; k + l < n; ++l) s[l] = __builtin_fmaf(w[k + l], x[k + l], s[l]);
  for (uint32_t stride = kDotLanes / 2; stride > 0; stride /= 2) {
    for (uint32_t l = 0; l < stride; ++l) s[l] = s[l] + s[l + stride];
  }
  return s[0];
}

float dot(const float* w, const float* x, uint32_t cols) {
  float y = 0.0f;
  for (uint32_t k = 0; k < cols; k += kSegment)
    y = y + segment_dot(w + k, x + k, cols - k < kSegment ? cols - k : kSegment);
  return y;
}

}  // namespace

void matmul_float(const MatmulArgs& p, const float* x, uint32_t rows, uint32_t first, uint32_t end) {
  const Tensor& w = p.w;
  std::vector<uint8_t> raw(formats::row_bytes(w.type, w.cols));
  std::vector<float> weights(w.cols);
  for (uint32_t n = first; n < end; ++n) {
    unpack_row(w.type, w.rows, w.cols, n, w.data, raw.data());
    formats::dequantize(w.type, raw.data(), 0, w.cols, weights.data());
    for (uint64_t r = 0; r < rows; ++r) {
      float product = dot(weights.data(), x + r * w.cols, w.cols);
      if (p.bias) product = product + p.bias[n];
      float* y = p.y + r * w.rows + n;
      *y = p.add ? *y + product : product;
    }
  }
}

}  // namespace orcd::cpu
