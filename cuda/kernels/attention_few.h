// Attention of single rows comes in two forms, which give the same bits; attention_decode() (launch.h) chooses.
#pragma once

#include "kernels/launch.h"

namespace orcd::kernels {

// Whether the rows are so few that what counts is how soon one is done.
bool are_few(const DecodeAttention& a, uint32_t count);

// A block of four groups of warps for each run of splits. Only for what are_few() says yes to.
void attention_few(const DecodeAttention& a, uint32_t count, bool pdl, cudaStream_t stream);

// A block of one group of warps for some runs of splits.
void attention_many(const DecodeAttention& a, uint32_t count, bool pdl, cudaStream_t stream);

}  // namespace orcd::kernels
