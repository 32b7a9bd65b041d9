// The bytes of packed weights, pinned: what the device packs is what the host says the layout is, and what it
// was when these hashes were committed.
#pragma once

#include "engine/layout_version.h"
#include "gpu/weights.h"
#include "kernels/launch.h"
#include "tests/testing.h"

namespace orcd::testing {

inline constexpr uint32_t kGoldenVersion = 0x38878621;

// Needs no GPU.
inline void layouts_on_host() {
  for (const TensorType type : formats::kAllTypes) {
    const uint64_t hash = hash_bytes(packed_sample(type, kernels::pack_on_host)), golden = golden_hashes(type).planes;
    ++checks;
    if (hash == golden) continue;
    ++failures;
    std::printf("CHANGED layout of type %u: hash %#018llx, was %#018llx; if that is meant, commit it\n",
                static_cast<uint32_t>(type), static_cast<unsigned long long>(hash),
                static_cast<unsigned long long>(golden));
  }
  ++checks;
  if (kernels::layout_version() == kGoldenVersion) return;
  ++failures;
  std::printf("CHANGED layout version: %#010x, was %#010x\n", kernels::layout_version(), kGoldenVersion);
}

inline void layouts_on_device() {
  for (const TensorType type : formats::kAllTypes) {
    const std::vector<uint8_t> raw = layout_sample(type), expected = packed_sample(type, kernels::pack_on_host);
    const TensorDesc desc = {TensorRole::kOutput, 0, type, kLayoutRows, layout_cols(type), 0, raw.size()};
    const auto weights = gpu::VmmWeights::allocate(0, raw.size());
    weights->write(desc, 0, raw);
    weights->seal();
    const auto found = to_host(weights->image(), raw.size());
    equal("layout of type " + std::to_string(static_cast<uint32_t>(type)), expected.data(), found.data(), found.size());
  }
}

}  // namespace orcd::testing
