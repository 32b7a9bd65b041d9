#include "arith/tanh.h"
#include "cpu/ops.h"

namespace orcd::cpu {

void finish_logits(Pool& pool, float scale, float cap, uint32_t rows, uint32_t vocab, float* l) {
  const float inverse = 1.0f / cap;
  share(pool, rows * vocab, 1.0, [&](uint32_t first, uint32_t end) {
    for (uint32_t i = first; i < end; ++i) l[i] = l[i] * scale;
    if (cap == 0.0f) return;
    for (uint32_t i = first; i < end; ++i) l[i] = arith::soft_cap(l[i], cap, inverse);
  });
}

}  // namespace orcd::cpu
