#include <vector>

#include "cpu/ops.h"
#include "cpu/pack.h"
#include "formats/formats.h"

namespace orcd::cpu {

void embed(Pool& pool, const Tensor& table, float scale, const Rows& rows, float* x) {
  share(pool, rows.count, table.cols * 1.0, [&](uint32_t first, uint32_t end) {
    std::vector<uint8_t> raw(formats::row_bytes(table.type, table.cols));
    for (uint32_t r = first; r < end; ++r) {
      unpack_row(table.type, table.rows, table.cols, rows.token[r], table.data, raw.data());
      float* to = x + uint64_t{r} * table.cols;
      formats::dequantize(table.type, raw.data(), 0, table.cols, to);
      for (uint32_t k = 0; k < table.cols; ++k) to[k] = to[k] * scale;
    }
  });
}

}  // namespace orcd::cpu
