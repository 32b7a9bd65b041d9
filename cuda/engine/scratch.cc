#include "engine/scratch.h"

#include <algorithm>
#include <utility>

#include "arith/constants.h"
#include "ops/tiles.h"

namespace orcd {
namespace {

constexpr uint64_t kAlign = 64;

// Hands out consecutive aligned pieces; without memory behind it, it only adds them up.
class Carver {
 public:
  Carver(uint8_t* base, ScratchOf backend) : base_(base), tiles_(backend == ScratchOf::kWarpgroups) {}

  template <class T>
  T* take(uint64_t count) {
    const uint64_t at = at_;
    at_ += (count * sizeof(T) + kAlign - 1) / kAlign * kAlign;
    used_ = std::max(used_, at_);
    return base_ ? reinterpret_cast<T*>(base_ + at) : nullptr;
  }

  // Where the next piece begins; from there on again, for pieces that are used when those taken since are not.
  uint64_t at() const { return at_; }
  void go_back(uint64_t at) { at_ = at; }

  // The same without what only steps of all rows together have.
  Activations without_tiles(uint64_t rows, uint32_t cols, float* x) {
    const bool tiles = std::exchange(tiles_, false);
    const Activations a = activations(rows, cols, x);
    tiles_ = tiles;
    return a;
  }

  Activations activations(uint64_t rows, uint32_t cols) { return activations(rows, cols, take<float>(rows * cols)); }

  // The same whose floats lie there.
  Activations activations(uint64_t rows, uint32_t cols, float* x) {
    Activations a;
    a.cols = cols;
    a.x = x;
    if (cols % kQuantBlock == 0) a.blocks = quantized(rows, cols, kQuantBlock);
    if (cols % kSuperBlock == 0) a.supers = quantized(rows, cols, kSuperBlock);
    return a;
  }

  Quantized quantized(uint64_t rows, uint32_t cols, uint32_t width) {
    Quantized a;
    a.q = take<int8_t>(rows * cols);
    a.d = take<float>(rows * (cols / width));
    a.sum = take<int32_t>(rows * (cols / kQuantBlock));
    if (width == kSuperBlock) a.shifts = take<uint32_t>(rows * (cols / width));
    if (width == kSuperBlock && tiles_) a.tiles = take<uint8_t>(tiles_bytes(rows, cols));
    return a;
  }

  uint64_t used() const { return used_; }

 private:
  uint8_t* base_;
  bool tiles_;
  uint64_t at_ = 0, used_ = 0;
};

void carve_attention(const ModelShape& s, uint64_t rows, Carver& c, Scratch& t) {
  const uint64_t q_width = uint64_t{s.n_heads} * s.head_dim, kv_width = uint64_t{s.n_kv_heads} * s.head_dim;
  t.q = c.take<float>(rows * q_width);
  t.k = c.take<float>(rows * kv_width);
  t.v = c.take<float>(rows * kv_width);
  t.attended = c.activations(rows, static_cast<uint32_t>(q_width));
}

void carve_feed_forward(const ModelShape& s, uint64_t rows, ScratchOf backend, Carver& c, Scratch& t) {
  const bool whole = s.n_experts || 2 * rows * s.d_ff * sizeof(float) <= kFeedForwardBytes;
  t.ffn_rows = static_cast<uint32_t>(whole ? rows : std::min<uint64_t>(rows, kFeedForwardRows));
  const uint64_t places = t.ffn_rows * uint64_t{std::max(1u, s.n_experts_used)};
  t.gate = c.take<float>(places * s.d_ff);
  t.up = c.take<float>(places * s.d_ff);
  // A GPU's gated unit writes floats for float weights alone, and then each where the same thread has read its gate. The
  // processor's writes them always, and takes longer where the two are the same.
  float* x = backend == ScratchOf::kCpu ? c.take<float>(places * s.d_ff) : t.gate;
  t.ffn = s.n_experts ? c.without_tiles(places, s.d_ff, x) : c.activations(places, s.d_ff, x);
  if (s.n_experts == 0) return;
  t.router = c.take<float>(rows * s.n_experts);
  Mixture& m = t.mixture;
  m.expert = c.take<uint32_t>(places);
  m.place = c.take<uint32_t>(places);
  m.row = c.take<uint32_t>(places);
  m.weight = c.take<float>(places);
  if (backend == ScratchOf::kCpu) {
    m.end = c.take<uint32_t>(s.n_experts);
    m.input = c.activations(places, s.d_model);
  } else {
    m.tiles = c.take<ExpertTile>(most_tiles(places, s.n_experts));
  }
  m.gated = t.gate, m.upped = t.up, m.hidden = t.ffn;
  m.given = c.take<float>(places * s.d_model);
}

Scratch carve(const ModelShape& s, uint64_t rows, uint64_t samples, ScratchOf backend, Carver& c) {
  Scratch t{};
  t.x = c.take<float>(rows * s.d_model);
  // The final norm has a row per draw.
  t.normed = c.activations(std::max(rows, samples), s.d_model);
  t.branch = t.normed.x;
  const uint64_t in_turn = c.at();
  carve_attention(s, rows, c, t);
  c.go_back(in_turn);
  carve_feed_forward(s, rows, backend, c, t);
  c.go_back(in_turn);
  t.logits = c.take<float>(samples * s.vocab);
  return t;
}

}  // namespace

uint32_t feed_forward_group(uint32_t rows, uint32_t most) {
  constexpr uint32_t kTile = 64;
  if (rows <= most) return rows;
  const uint32_t groups = (rows + most - 1) / most, each = (rows + groups - 1) / groups;
  return std::min(most, (each + kTile - 1) / kTile * kTile);
}

uint64_t scratch_bytes(const ModelShape& shape, uint32_t rows, uint32_t samples, ScratchOf backend) {
  Carver sizes(nullptr, backend);
  carve(shape, rows, samples, backend, sizes);
  return sizes.used();
}

Scratch carve_scratch(const ModelShape& shape, uint32_t rows, uint32_t samples, ScratchOf backend, void* memory) {
  Carver carver(static_cast<uint8_t*>(memory), backend);
  return carve(shape, rows, samples, backend, carver);
}

}  // namespace orcd
