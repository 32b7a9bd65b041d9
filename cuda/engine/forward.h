// The model, operation by operation: rows in, logits of the wanted rows out.
#pragma once

#include <span>

#include "engine/model.h"
#include "engine/scratch.h"
#include "ops/ops.h"

namespace orcd {

// `logit_rows`: the rows whose logits are wanted, into scratch.logits in that order. `abandoned`: as Step has it.
void forward(const Model& model, const Scratch& scratch, Ops& ops, uint32_t rows, std::span<const uint32_t> logit_rows,
             bool (*abandoned)());

}  // namespace orcd
