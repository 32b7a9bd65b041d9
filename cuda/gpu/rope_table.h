// The rotation of every position and pair, as the CUDA backend uploads it: made on the host, because it
// is binary64 arithmetic of our own (arith/rope_table.h), by as many threads as there are cores.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "arith/rope_table.h"

namespace orcd::gpu {

// (positions, pairs); pair i turns by frequency[i] a position, cosines and sines are times `magnitude`.
std::vector<arith::CosSin> rope_table(std::span<const double> frequency /* (pairs) */, double magnitude,
                                      uint32_t positions);

}  // namespace orcd::gpu
