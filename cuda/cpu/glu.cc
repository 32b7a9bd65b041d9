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
      const auto all = [&]<Activation A>() {
        for (uint32_t k = 0; k < out.cols; ++k) h[k] = arith::gated(A, g[k], u[k]);
      };
      // Apart, so that each loop is one of vectors.
      switch (activation) {
        case Activation::kGeGlu: all.template operator()<Activation::kGeGlu>(); break;
        case Activation::kClampedSwiGlu: all.template operator()<Activation::kClampedSwiGlu>(); break;
        default: all.template operator()<Activation::kSwiGlu>();
      }
      quantize_row(out, r);
    }
  });
}

}  // namespace orcd::cpu
