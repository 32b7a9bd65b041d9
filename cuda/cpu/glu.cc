#include "arith/glu.h"

#include "cpu/ops.h"

namespace orcd::cpu {

void glu(Pool& pool, Activation activation, const float* gate, const float* up, uint32_t rows, const Activations& out) {
  share(pool, rows, out.cols * 1.0, [&](uint32_t first, uint32_t end) {
    for (uint32_t r = first; r < end; ++r) {
      const uint64_t at = uint64_t{r} * out.cols;
      const float* g = gate + at;
      const float* u = up + at;
      float* h = out.x + at;
      // Said twice, so that each loop is one of vectors.
      if (activation == Activation::kGeGlu)
        for (uint32_t k = 0; k < out.cols; ++k) h[k] = arith::gated(Activation::kGeGlu, g[k], u[k]);
      else
        for (uint32_t k = 0; k < out.cols; ++k) h[k] = arith::gated(Activation::kSwiGlu, g[k], u[k]);
      quantize_row(out, r);
    }
  });
}

}  // namespace orcd::cpu
