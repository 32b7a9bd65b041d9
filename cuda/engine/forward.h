// One step of the model: rows in, logits of the picked rows out.
#pragma once

#include <span>

#include "engine/model.h"
#include "engine/scratch.h"
#include "ops/ops.h"

namespace orcd {

// `pick`: the rows whose logits are wanted, into scratch.logits in that order. `abandoned`: see Engine::step;
// what was written to the KV cache by then is written again, the same, by the step that repeats it.
void forward(const Model& model, const Scratch& scratch, Ops& ops, const Rows& rows, std::span<const uint32_t> pick,
             bool (*abandoned)());

}  // namespace orcd
