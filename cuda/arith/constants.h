// The sizes that docs/ARITHMETIC.md fixes. Each is part of the contract: changing one changes bits.
#pragma once

#include <cstdint>

namespace orcd {

inline constexpr uint32_t kQuantBlock = 32;  // values in one int8 activation block
inline constexpr uint32_t kSegment = 128;    // values in one accumulation chain of a matrix row
inline constexpr uint32_t kSegmentBlocks = kSegment / kQuantBlock;
inline constexpr uint32_t kNormLanes = 128;   // partial sums of the squares of a row
inline constexpr uint32_t kDotLanes = 32;     // partial sums of a segment with float weights
inline constexpr uint32_t kAttnSplit = 64;    // keys in one attention split, by absolute position
inline constexpr uint32_t kAttnRun = 4;       // splits that are combined before runs are
inline constexpr uint32_t kSuperBlock = 256;  // values in one k-quant block, and of the activations that meet it
inline constexpr uint32_t kSuperBlocks = kSuperBlock / kQuantBlock;

}  // namespace orcd
