// The model, operation by operation: rows in, logits of the wanted rows out.
#pragma once

#include <initializer_list>
#include <span>

#include "engine/model.h"
#include "engine/scratch.h"
#include "ops/ops.h"

namespace orcd {

// These activations, quantized only in the forms that the weights read.
Activations read_by(std::span<const Tensor> weights, Activations a);
inline Activations read_by(std::initializer_list<Tensor> weights, const Activations& a) {
  return read_by(std::span(weights.begin(), weights.size()), a);
}

// A layer's experts, with what scratch they have.
Mixture mixture_of(const Layer& layer, const Model& model, const Scratch& scratch);

// `logit_rows`: the rows whose logits are wanted, into scratch.logits in that order. `abandoned`: as Step has it.
void forward(const Model& model, const Scratch& scratch, Ops& ops, uint32_t rows, std::span<const uint32_t> logit_rows,
             bool (*abandoned)());

}  // namespace orcd
