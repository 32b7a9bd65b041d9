// The bytes of packed weights, pinned: what the device packs is what the host says the layout is, and what it
// was when these hashes were committed.
#pragma once

#include "engine/layout_version.h"
#include "gpu/weights.h"
#include "kernels/launch.h"
#include "tests/testing.h"

namespace orcd::testing {

struct GoldenLayout {
  TensorType type;
  uint64_t hash;
};

// Of the packed samples, in the order of kAllTypes.
inline constexpr GoldenLayout kGoldenLayouts[] = {
    {TensorType::kF32, 0x5f0478a7e239d0e9},  {TensorType::kF16, 0xc2ada5028b38cb67},
    {TensorType::kQ4_0, 0x3b148e1fd88474bd}, {TensorType::kQ4_1, 0x8e44a27b84ddf074},
    {TensorType::kQ5_0, 0xb33e242c130f393a}, {TensorType::kQ5_1, 0xaeb948005b721e81},
    {TensorType::kQ8_0, 0x277cd093f0aed6fe}, {TensorType::kQ4_K, 0x43e077a7e35f8fe6},
    {TensorType::kQ5_K, 0x5bb03e23138afa7c}, {TensorType::kQ6_K, 0x4218974d0afefbd9},
    {TensorType::kBF16, 0x325ecfbb3eed0706},
};
inline constexpr uint32_t kGoldenVersion = 0x24b32895;

// Needs no GPU.
inline void layouts_on_host() {
  for (const GoldenLayout& golden : kGoldenLayouts) {
    const uint64_t hash = hash_bytes(packed_sample(golden.type, kernels::pack_on_host));
    ++checks;
    if (hash == golden.hash) continue;
    ++failures;
    std::printf("CHANGED layout of type %u: hash %#018llx, was %#018llx; if that is meant, commit it\n",
                static_cast<uint32_t>(golden.type), static_cast<unsigned long long>(hash),
                static_cast<unsigned long long>(golden.hash));
  }
  ++checks;
  if (kernels::layout_version() == kGoldenVersion) return;
  ++failures;
  std::printf("CHANGED layout version: %#010x, was %#010x\n", kernels::layout_version(), kGoldenVersion);
}

inline void layouts_on_device() {
  for (const TensorType type : kAllTypes) {
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
