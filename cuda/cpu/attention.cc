#include <algorithm>

#include "arith/attend.h"
#include "cpu/ops.h"

namespace orcd::cpu {

void attention(Pool& pool, Isa isa, const ModelShape& s, const Rows& rows, const SequenceStore& sequences,
               const KvCache& kv, uint32_t layer, const AttentionParams& params, const float* q, float* out) {
  const HeadsKernel attend = kernels(isa).heads;
  const uint32_t hd = s.head_dim, per_kv = s.n_heads / s.n_kv_heads;
  const uint32_t groups = (per_kv + kMaxHeads - 1) / kMaxHeads;  // of each KV head
  const float scale = arith::score_scale(hd, s.attention_scale, params.soft_cap != 0);
  const auto one = [&](uint32_t task) {
    const uint32_t row = task / (s.n_kv_heads * groups), kv_head = task / groups % s.n_kv_heads;
    const uint32_t first = task % groups * kMaxHeads;
    const uint32_t head = kv_head * per_kv + first, position = rows.position[row];
    const uint64_t at = (uint64_t{row} * s.n_heads + head) * hd;
    attend({kv.head(0, layer, kv_head), kv.page_stride(), sequences.pages(rows.slot[row]).data(),
            arith::first_seen(position, params.window), position + 1, q + at, std::min(kMaxHeads, per_kv - first), hd,
            scale, params.soft_cap, params.sinks ? params.sinks + head : nullptr, out + at});
  };
  uint64_t positions = 0;
  for (uint32_t r = 0; r < rows.count; ++r)
    positions += rows.position[r] + 1 - arith::first_seen(rows.position[r], params.window);
  const uint32_t tasks = rows.count * s.n_kv_heads * groups;
  const double nanoseconds = 300.0 + static_cast<double>(positions) / rows.count * hd * 0.1;
  share(pool, tasks, nanoseconds, [&](uint32_t first, uint32_t end) {
    for (uint32_t i = first; i < end; ++i) one(i);
  });
}

}  // namespace orcd::cpu
