// A row's values, in whatever forms are wanted of them.
#pragma once

#include "kernels/prologue.cuh"

namespace orcd::kernels {

// Of the warps that share a row, this one, and how many there are.
struct Sharers {
  uint32_t warp, warps;
};

// A row's values to wherever `out` has room for them; value(k): one of them, value4(k): four. rows: of the step.
template <class Value, class Value4>
__device__ __forceinline__ void store_row(const Activations& out, uint32_t rows, uint32_t row, const Sharers& by,
                                          Value value, Value4 value4) {
  const uint32_t lane = threadIdx.x % 32;
  float* x = out.x && out.floats ? out.x + uint64_t(row) * out.cols : nullptr;
  if (out.supers.q) {
    for (uint32_t super = by.warp; super < out.cols / kSuperBlock; super += by.warps) {
      const uint32_t k = super * kSuperBlock + lane * 4;
      const float4 first = value4(k), second = value4(k + kSegment);
      if (x) *reinterpret_cast<float4*>(x + k) = first, *reinterpret_cast<float4*>(x + k + kSegment) = second;
      store_super(out, rows, row, super, quantize_super(first, second));
    }
    if (!out.blocks.q) return;
  }
  for (uint32_t base = by.warp * 32; base < out.cols; base += by.warps * 32) {
    const uint32_t k = base + lane;
    const bool inside = k < out.cols;
    const float y = inside ? value(k) : 0.0f;
    if (x && inside) x[k] = y;
    if (out.blocks.q) store_block(out, row, base / 32, quantize_block(y));
  }
}

}  // namespace orcd::kernels
