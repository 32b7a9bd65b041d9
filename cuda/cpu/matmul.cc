#include <vector>

#include "cpu/ops.h"
#include "cpu/pack.h"
#include "formats/formats.h"

namespace orcd::cpu {
namespace {

bool by_tiles(const MatmulArgs& p, bool float_activations) {
  return formats::is_quantized(p.w.type) && !float_activations;
}

// Units of a product that threads share: 16 rows of W each, the last one perhaps fewer.
uint32_t units(const MatmulArgs& p) { return (p.w.rows + kTileRows - 1) / kTileRows; }

// The rows behind the last whole tile.
void tail(const MatmulArgs& p, const Activations& a, uint32_t rows) {
  const Tensor& w = p.w;
  const uint64_t row_bytes = formats::row_bytes(w.type, w.cols);
  for (uint64_t n = w.rows / kTileRows * kTileRows; n < w.rows; ++n) {
    for (uint64_t r = 0; r < rows; ++r) {
      float product = reference_dot(w.type, w.data + n * row_bytes, a, r);
      if (p.bias) product = product + p.bias[n];
      float* y = p.y + r * w.rows + n;
      *y = p.add ? *y + product : product;
    }
  }
}

void units_of(const MatmulArgs& p, Isa isa, bool float_activations, const Activations& a, uint32_t rows, uint32_t first,
              uint32_t end) {
  const Tensor& w = p.w;
  if (!by_tiles(p, float_activations)) {
    const uint32_t last = end * kTileRows < w.rows ? end * kTileRows : w.rows;
    return matmul_float(p, a.x, rows, first * kTileRows, last);
  }
  const uint32_t tiles = w.rows / kTileRows;
  const uint32_t tiles_end = end < tiles ? end : tiles;
  if (first < tiles_end) {
    const uint64_t tile_bytes = formats::row_bytes(w.type, w.cols) * kTileRows;
    const TileArgs args{w.data + first * tile_bytes,
                        tiles_end - first,
                        w.cols,
                        formats::has_super_blocks(w.type) ? a.supers : a.blocks,
                        rows,
                        p.y + first * kTileRows,
                        w.rows,
                        p.add,
                        p.bias ? p.bias + first * kTileRows : nullptr};
    kernels(isa).tile(w.type)(args);
  }
  if (end > tiles) tail(p, a, rows);
}

}  // namespace

void matmul(Pool& pool, Isa isa, bool float_activations, std::span<const MatmulArgs> products, const Activations& a,
            uint32_t rows) {
  uint32_t total = 0;
  for (const MatmulArgs& p : products) total += units(p);
  // About 10 bytes of weights per nanosecond, and four times as many values of work for each further row.
  const double nanoseconds = kTileRows * a.cols * (0.07 + 0.007 * rows);
  share(pool, total, nanoseconds, [&](uint32_t first, uint32_t end) {
    uint32_t before = 0;
    for (const MatmulArgs& p : products) {
      const uint32_t n = units(p);
      const uint32_t from = first > before ? first - before : 0;
      const uint32_t to = end > before ? (end - before < n ? end - before : n) : 0;
      if (from < to) units_of(p, isa, float_activations, a, rows, from, to);
      before += n;
    }
  });
}

}  // namespace orcd::cpu
