#include "arith/tanh.h"
#include "cpu/ops.h"

namespace orcd::cpu {

void finish_logits(Pool& pool, float scale, float cap, uint32_t rows, uint32_t vocab, float* l) {
  const float inverse = 1.0f / cap;
  // The ids of each row in pieces.
  const uint32_t piece = 4096, pieces = (vocab + piece - 1) / piece;
  for (uint32_t r = 0; r < rows; ++r) {
    float* row = l + uint64_t{r} * vocab;
    share(pool, pieces, piece * (cap == 0.0f ? 0.1 : 1.0), [&](uint32_t first, uint32_t end) {
      const uint32_t last = end * piece < vocab ? end * piece : vocab;
      for (uint32_t i = first * piece; i < last; ++i) row[i] = row[i] * scale;
      if (cap == 0.0f) return;
      for (uint32_t i = first * piece; i < last; ++i) row[i] = arith::soft_cap(row[i], cap, inverse);
    });
  }
}

}  // namespace orcd::cpu
