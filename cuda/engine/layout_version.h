// The version of an image's layout, made of what the packing does to a sample: whoever changes a layout has
// changed its version too, without a number that could be forgotten. Tests pin the samples' hashes.
#pragma once

#include <cstdint>
#include <vector>

#include "formats/formats.h"

namespace orcd {

// Rows and columns of a sample: no multiple of any tile's rows or segment's blocks.
inline constexpr uint32_t kLayoutRows = 19;
inline constexpr uint32_t kLayoutBlocks = 9;

// What the samples hash to in the images that there are: a change of a layout is one that was meant.
struct GoldenHashes {
  uint64_t tile, planes;  // the processor's image, the GPU's
};

inline GoldenHashes golden_hashes(TensorType type) {
  const auto alike = [](uint64_t hash) -> GoldenHashes { return {hash, hash}; };  // floats lie as in the file
  switch (type) {
    case TensorType::kF32: return alike(0x5f0478a7e239d0e9);
    case TensorType::kF16: return alike(0xc2ada5028b38cb67);
    case TensorType::kBF16: return alike(0x325ecfbb3eed0706);
    default: break;
  }
  GoldenHashes golden{};
  formats::with_format(
      type, [&]<TensorType T>() { golden = {formats::Format<T>::kTileHash, formats::Format<T>::kPlanesHash}; });
  return golden;
}

// FNV-1a.
inline uint64_t hash_bytes(const std::vector<uint8_t>& bytes, uint64_t hash = 0xcbf29ce484222325u) {
  for (const uint8_t b : bytes) hash = (hash ^ b) * 0x100000001b3u;
  return hash;
}

// Of places, one after the other.
class LayoutHash {
 public:
  void add(uint32_t place) {
    for (uint32_t i = 0; i < 4; ++i) hash_ = (hash_ ^ (place >> 8 * i & 255)) * 0x100000001b3u;
  }
  uint32_t value() const { return static_cast<uint32_t>(hash_ ^ hash_ >> 32); }

 private:
  uint64_t hash_ = 0xcbf29ce484222325u;
};

inline uint32_t layout_cols(TensorType type) {
  const uint32_t values = formats::block_values(type);
  return kLayoutBlocks * (values == 1 ? 32 : values);
}

// The sample of a type as in a file: any bits, in which no two places are alike for long.
inline std::vector<uint8_t> layout_sample(TensorType type) {
  std::vector<uint8_t> raw(kLayoutRows * formats::row_bytes(type, layout_cols(type)));
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
  for (const TensorType type : formats::kAllTypes) hash = hash_bytes(packed_sample(type, pack), hash);
  return static_cast<uint32_t>(hash ^ hash >> 32);
}

}  // namespace orcd
