// The version of an image's layout, made of what the packing does to a sample: whoever changes a layout has
// changed its version too, without a number that could be forgotten. Tests pin the samples' hashes.
#pragma once

#include <cstdint>
#include <vector>

#include "arith/blocks.h"

namespace orcd {

// Rows and columns of a sample: no multiple of any tile's rows or segment's blocks.
inline constexpr uint32_t kLayoutRows = 19;
inline constexpr uint32_t kLayoutBlocks = 9;

inline constexpr TensorType kAllTypes[] = {TensorType::kF32,  TensorType::kF16,  TensorType::kQ4_0, TensorType::kQ4_1,
                                           TensorType::kQ5_0, TensorType::kQ5_1, TensorType::kQ8_0, TensorType::kQ4_K,
                                           TensorType::kQ5_K, TensorType::kQ6_K, TensorType::kBF16};

// FNV-1a.
inline uint64_t hash_bytes(const std::vector<uint8_t>& bytes, uint64_t hash = 0xcbf29ce484222325u) {
  for (const uint8_t b : bytes) hash = (hash ^ b) * 0x100000001b3u;
  return hash;
}

inline uint32_t layout_cols(TensorType type) {
  const uint32_t values = arith::block_values(type);
  return kLayoutBlocks * (values == 1 ? 32 : values);
}

// The sample of a type as in a file: any bits, in which no two places are alike for long.
inline std::vector<uint8_t> layout_sample(TensorType type) {
  std::vector<uint8_t> raw(kLayoutRows * arith::row_bytes(type, layout_cols(type)));
  uint32_t x = static_cast<uint32_t>(type) + 1;
  for (uint8_t& b : raw) {
    x = x * 1664525u + 1013904223u;
    b = static_cast<uint8_t>(x >> 24);
  }
  return raw;
}

// The sample in the image. pack(type, rows, cols, raw, matrix) packs all rows.
template <class Pack>
std::vector<uint8_t> packed_sample(TensorType type, const Pack& pack) {
  const std::vector<uint8_t> raw = layout_sample(type);
  std::vector<uint8_t> matrix(raw.size());
  pack(type, kLayoutRows, layout_cols(type), raw.data(), matrix.data());
  return matrix;
}

template <class Pack>
uint32_t layout_version(const Pack& pack) {
  uint64_t hash = hash_bytes({});
  for (const TensorType type : kAllTypes) hash = hash_bytes(packed_sample(type, pack), hash);
  return static_cast<uint32_t>(hash ^ hash >> 32);
}

}  // namespace orcd
