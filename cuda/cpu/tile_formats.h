// Unpacking of blocks of 32 values from a packed tile, for as many rows at once as V has
// lanes (lanes.h).
#pragma once

#include <bit>
#include <cstdint>

#include "arith/constants.h"
#include "cpu/lanes.h"
#include "cpu/pack.h"
#include "formats/formats.h"

namespace orcd::cpu {
namespace {

template <TensorType T>
inline constexpr uint32_t kBlockBytes = sizeof(typename formats::Format<T>::Block);

enum class Chain { kPlain, kAffine, kSuper };

template <class V>
struct Block {
  typename V::Bytes w[8];   // group g: values 4g .. 4g + 3 of each row
  typename V::Floats d, m;  // m: kAffine only
};

// A block of a super-block.
template <class V>
struct SubBlock {
  typename V::Bytes w[8];  // still with their offset
  typename V::Ints sc[2];  // of the halves, as V::scaled_dot takes it
  typename V::Ints pair;   // what a pair of sums is multiplied with: mn and mn, or the scales of the halves
};

// What a super-block has beside its blocks.
template <class V>
struct SuperScales {
  typename V::Floats d, less;  // less: -dmin, with minima only
};

// One byte's low and high nibbles.
template <class B>
ORCD_LANES B low_nibble(B x) {
  return x & 0x0f0f0f0fu;
}
template <class B>
ORCD_LANES B high_nibble(B x) {
  return x >> 4 & 0x0f0f0f0fu;
}

// Bit J of each byte, moved to bit TO.
template <int J, int TO, class B>
ORCD_LANES B bit_to(B x) {
  const uint32_t mask = 0x01010101u << TO;
  if constexpr (J > TO) return x >> (J - TO) & mask;
  else return x << (TO - J) & mask;
}

template <TensorType T>
inline constexpr bool kHasFifthBits = formats::Format<T>::kPlanes.high == 4;

// What is taken off each stored value, as a power of two; -1: nothing.
template <TensorType T>
inline constexpr int kOffsetLog2 = std::bit_width(static_cast<uint32_t>(formats::Format<T>::kOffset)) - 1;

// Q4_0, Q4_1, Q5_0, Q5_1.
template <TensorType T>
struct Nibbles {
  static constexpr bool kMin = formats::is_affine(formats::Format<T>::kScales), kFifth = kHasFifthBits<T>;
  static constexpr Chain kChain = kMin ? Chain::kAffine : Chain::kPlain;
  static constexpr bool kWide = false;
  static constexpr uint32_t kValues = kQuantBlock, kBytes = kBlockBytes<T> * kTileRows;  // of a block of 16 rows
  template <class V>
  static constexpr int offset_log2() {
    return kOffsetLog2<T>;
  }

  template <class V, int B>
  static ORCD_LANES void unpack(const uint8_t* tile, uint32_t segment, uint32_t lane0, Block<V>& out) {
    const uint8_t* block = tile + uint64_t{segment * kSegmentBlocks + B} * kBytes;
    const uint8_t* words = block + (kMin ? 4 : 2) * kTileRows + 4 * lane0;
    const uint8_t* qs = words + (kFifth ? 4 : 0) * kTileRows;
    out.d = V::f16(block + 2 * lane0);
    if constexpr (kMin) out.m = V::f16(block + 2 * kTileRows + 2 * lane0);
    typename V::Bytes high{};
    if constexpr (kFifth) high = V::load(words);
    unpack_pair<V, 0>(qs, high, out);
    unpack_pair<V, 1>(qs, high, out);
    unpack_pair<V, 2>(qs, high, out);
    unpack_pair<V, 3>(qs, high, out);
  }

  template <class V, int J>
  static ORCD_LANES void unpack_pair(const uint8_t* qs, typename V::Bytes high, Block<V>& out) {
    const typename V::Bytes x = V::load(qs + 4 * kTileRows * J);
    out.w[J] = low_nibble(x);
    out.w[J + 4] = high_nibble(x);
    if constexpr (kFifth) {
      out.w[J] |= bit_to<J, 4>(high);
      out.w[J + 4] |= bit_to<J + 4, 4>(high);
    }
  }
};

// Q8_0.
template <TensorType T>
struct Bytes {
  static constexpr Chain kChain = Chain::kPlain;
  static constexpr bool kWide = true;
  static constexpr uint32_t kValues = kQuantBlock, kBytes = kBlockBytes<T> * kTileRows;
  template <class V>
  static constexpr int offset_log2() {
    return V::kFlip8 ? 7 : -1;
  }

  template <class V, int B>
  static ORCD_LANES void unpack(const uint8_t* tile, uint32_t segment, uint32_t lane0, Block<V>& out) {
    const uint8_t* block = tile + uint64_t{segment * kSegmentBlocks + B} * kBytes;
    const uint8_t* qs = block + 2 * kTileRows + 4 * lane0;
    out.d = V::f16(block + 2 * lane0);
    for (int g = 0; g < 8; ++g) {
      out.w[g] = V::load(qs + 4 * kTileRows * g);
      if constexpr (V::kFlip8) out.w[g] ^= 0x80808080u;
    }
  }
};

// Q4_K and Q5_K.
template <TensorType T>
struct SuperNibbles {
  static constexpr bool kFifth = kHasFifthBits<T>;
  static constexpr Chain kChain = Chain::kSuper;
  static constexpr bool kMinima = true;
  static constexpr int kBits = kFifth ? 5 : 4;
  static constexpr uint32_t kValues = kSuperBlock;
  static constexpr uint32_t kBytes = kBlockBytes<T> * kTileRows;

  template <class V>
  static ORCD_LANES SuperScales<V> scales(const uint8_t* block, uint32_t lane0) {
    return {V::f16(block + 2 * lane0), -V::f16(block + 2 * kTileRows + 2 * lane0)};
  }

  // Block B of the super-block.
  template <class V, int B>
  static ORCD_LANES void unpack(const uint8_t* block, uint32_t lane0, SubBlock<V>& out) {
    sub_scales<V, B>(block, lane0, out);
    const uint8_t* words = block + 16 * kTileRows + 4 * lane0;
    const uint8_t* qs = words + ((kFifth ? 32 : 0) + B / 2 * 32) * kTileRows;
    for (int g = 0; g < 8; ++g) {
      const typename V::Bytes x = V::load(qs + 4 * kTileRows * g);
      out.w[g] = B % 2 ? high_nibble(x) : low_nibble(x);
      if constexpr (kFifth) out.w[g] |= bit_to<B, 4>(V::load(words + 4 * kTileRows * g));
    }
  }

  // The bytes are laid out as read_super_scales() has it.
  template <class V, int B>
  static ORCD_LANES void sub_scales(const uint8_t* block, uint32_t lane0, SubBlock<V>& out) {
    const uint8_t* s = block + 4 * kTileRows + lane0;
    typename V::Ints sc, mn;
    if constexpr (B < 4) {
      sc = V::u8(s + B * kTileRows) & 63;
      mn = V::u8(s + (B + 4) * kTileRows) & 63;
    } else {
      const typename V::Ints both = V::u8(s + (B + 4) * kTileRows);
      sc = (both & 15) | (V::u8(s + (B - 4) * kTileRows) >> 6 << 4);
      mn = (both >> 4) | (V::u8(s + B * kTileRows) >> 6 << 4);
    }
    out.sc[0] = out.sc[1] = V::scale(sc);
    out.pair = mn | mn << 16;
  }
};

// Q6_K. The four blocks of a half of the super-block differ in where their bits lie.
template <TensorType T>
struct SplitNibbles {
  static constexpr Chain kChain = Chain::kSuper;
  static constexpr bool kMinima = false;
  static constexpr int kBits = 6;
  static constexpr int kOffsetLog2 = cpu::kOffsetLog2<T>;
  static constexpr uint32_t kValues = kSuperBlock, kBytes = kBlockBytes<T> * kTileRows;

  template <class V>
  static ORCD_LANES SuperScales<V> scales(const uint8_t* block, uint32_t lane0) {
    return {V::f16(block + 208 * kTileRows + 2 * lane0), typename V::Floats{}};
  }

  template <class V, int B>
  static ORCD_LANES void unpack(const uint8_t* block, uint32_t lane0, SubBlock<V>& out) {
    constexpr uint32_t half = B / 4, c = B % 4;
    const uint8_t* ql = block + (64 * half + 32 * (c % 2)) * kTileRows + 4 * lane0;
    const uint8_t* qh = block + (128 + 32 * half) * kTileRows + 4 * lane0;
    for (int g = 0; g < 8; ++g) {
      const typename V::Bytes low = V::load(ql + 4 * kTileRows * g), high = V::load(qh + 4 * kTileRows * g);
      typename V::Bytes top;
      if constexpr (c == 0) top = high << 4 & 0x30303030u;
      if constexpr (c == 1) top = high << 2 & 0x30303030u;
      if constexpr (c == 2) top = high & 0x30303030u;
      if constexpr (c == 3) top = high >> 2 & 0x30303030u;
      out.w[g] = (c / 2 ? high_nibble(low) : low_nibble(low)) | top;
    }
    const uint8_t* s = block + (192 + 2 * B) * kTileRows + lane0;
    const typename V::Ints first = V::i8(s), second = V::i8(s + kTileRows);
    out.sc[0] = V::scale(first);
    out.sc[1] = V::scale(second);
    out.pair = (first & 0xffff) | second << 16;
  }
};

// How a format is unpacked follows from what its blocks have.
template <TensorType T>
constexpr auto unpack_of() {
  using F = formats::Format<T>;
  if constexpr (F::kScales == formats::Scales::kSuper) return SuperNibbles<T>{};
  else if constexpr (F::kScales == formats::Scales::kSplit) return SplitNibbles<T>{};
  else if constexpr (F::kPlanes.low == 32) return Bytes<T>{};
  else return Nibbles<T>{};
}
template <TensorType T>
using Unpack = decltype(unpack_of<T>());

}  // namespace
}  // namespace orcd::cpu
