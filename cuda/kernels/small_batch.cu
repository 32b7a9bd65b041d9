// How the products of a small batch are spread over the device.
#include "kernels/small_batch.h"

#include <algorithm>
#include <optional>

#include "formats/formats.h"
#include "kernels/pdl.h"
#include "kernels/small_batch.cuh"

namespace orcd::kernels {
namespace {

struct Plan {
  SmallBatchArgs args;
  SmallBatchKernel kernel;
  Grid grid;
};

// The types of all jobs as a kernel knows them: the first one's, and another.
std::optional<TensorType> other_type(const SmallBatch& b) {
  TensorType other = b.jobs[0].w.type;
  for (const MatmulJob& j : b.jobs) {
    if (j.w.type == b.jobs[0].w.type) continue;
    if (other != b.jobs[0].w.type && other != j.w.type) return {};
    other = j.w.type;
  }
  return other;
}

// Bytes of a unit of sixteen weight rows; a segment may be longer than a row.
uint32_t unit_bytes(TensorType type, uint32_t unit) { return uint32_t(kWarpWeights * formats::row_bytes(type, unit)); }

std::optional<Plan> plan_of(const SmallBatch& b) {
  const TensorType type = b.jobs[0].w.type;
  const std::optional<TensorType> other = other_type(b);
  // What it gains is what begins early: without that it was not measured, and takes no device code.
  if (!has_pdl() || !other || b.rows > kSmallRows || !formats::is_quantized(type)) return {};
  const bool supers = formats::has_super_blocks(type);
  Plan p = {};
  p.kernel = supers ? small_batch_of_supers(type, *other) : small_batch_of_blocks(type, *other);
  if (!p.kernel) return {};

  SmallBatchArgs& a = p.args;
  a.n_jobs = uint32_t(b.jobs.size());
  a.cols = b.jobs[0].w.cols;
  a.rows = b.rows;
  a.gated = b.hidden.cols > 0;
  a.activation = b.activation;
  a.input = b.input;
  a.hidden = b.hidden;
  a.arrived = b.arrived;
  const uint32_t unit = supers ? kSuperBlock : kSegment, units = (a.cols + unit - 1) / unit;
  uint32_t groups = 0;
  for (uint32_t i = 0; i < a.n_jobs; ++i) {
    const MatmulJob& j = b.jobs[i];
    const uint64_t bytes = uint64_t{kGroupRows} * formats::row_bytes(j.w.type, a.cols);
    a.jobs[i] = {j.w.data, j.bias, j.y, j.w.rows, j.add, j.w.type, a.gated ? 0 : groups, bytes};
    a.slot_bytes = std::max(a.slot_bytes, unit_bytes(j.w.type, unit));
    const uint32_t of_job = (j.w.rows + kWarpWeights - 1) / kWarpWeights;
    groups = a.gated ? of_job : groups + of_job;
  }

  // All thread blocks shall run at once, on a processor of their own. Of a gated unit's results each has whole blocks of 32, if
  // these are wanted.
  const uint32_t count = processor().count, step = a.gated && a.hidden.blocks.q ? 2 : 1;
  const uint32_t each = (groups + count * step - 1) / (count * step) * step;
  a.groups = a.gated ? 2 * each : each;
  if (each * kWarpWeights / kSuperBlock + 2 > kMostSupers) return {};
  a.slots = std::min(kSmallSlots, (a.groups * units + kSmallWarps - 1) / kSmallWarps);
  const uint32_t bytes = supers ? carve_small<true>(nullptr, a).bytes : carve_small<false>(nullptr, a).bytes;
  if (bytes > processor().shared_bytes) return {};
  p.grid = {dim3((groups + each - 1) / each), kThreads, bytes};
  return p;
}

}  // namespace

bool small_batch_fits(const SmallBatch& batch) { return plan_of(batch).has_value(); }

void small_batch(const SmallBatch& batch, cudaStream_t stream) {
  const std::optional<Plan> plan = plan_of(batch);
  if (!plan) throw Error(ErrorKind::kInvalid, "these products are no small batch: small_batch_fits() says so");
  launch_kernel(plan->kernel, plan->grid, true, stream, plan->args);
}

}  // namespace orcd::kernels
