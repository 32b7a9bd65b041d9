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

// A table as V::dot8 takes what it gives.
template <class V>
constexpr formats::Table table_for(formats::Table t) {
  if (V::kFlip8)
    for (uint32_t& word : t.words) word ^= 0x80808080u;
  return t;
}

// The scale of a block in a tile.
template <class V, TensorType T>
ORCD_LANES typename V::Floats block_scale(const uint8_t* block, uint32_t lane0) {
  if constexpr (!formats::kHasPower<formats::Format<T>>) return V::f16(block + 2 * lane0);
  using Ints = typename V::Ints;
  const Ints e = V::u8(block + lane0);  // as formats::power_of() has it
  return (typename V::Floats)(e < 2 ? (e + 1) << 21 : (e - 1) << 23);
}

// IQ4_NL and MXFP4.
template <TensorType T>
struct TableNibbles {
  static constexpr Chain kChain = Chain::kPlain;
  static constexpr bool kWide = true;
  static constexpr uint32_t kValues = kQuantBlock, kBytes = kBlockBytes<T> * kTileRows;
  template <class V>
  static constexpr int offset_log2() {
    return V::kFlip8 ? 7 : -1;
  }

  template <class V, int B>
  static ORCD_LANES void unpack(const uint8_t* tile, uint32_t segment, uint32_t lane0, Block<V>& out) {
    static constexpr formats::Table table = table_for<V>(formats::Format<T>::kTable);
    const uint8_t* entries = reinterpret_cast<const uint8_t*>(table.words);
    const uint8_t* block = tile + uint64_t{segment * kSegmentBlocks + B} * kBytes;
    const uint8_t* qs = block + (kBlockBytes<T> - 16) * kTileRows + 4 * lane0;
    out.d = block_scale<V, T>(block, lane0);
    for (int g = 0; g < 4; ++g) {
      const typename V::Bytes x = V::load(qs + 4 * kTileRows * g);
      out.w[g] = V::lookup(low_nibble(x), entries);
      out.w[g + 4] = V::lookup(high_nibble(x), entries);
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

// Scales of both halves of a block, and these for the offset of its values.
template <class V>
ORCD_LANES void take_scales(typename V::Ints first, typename V::Ints second, SubBlock<V>& out) {
  out.sc[0] = V::scale(first);
  out.sc[1] = V::scale(second);
  out.pair = (first & 0xffff) | second << 16;
}

// Q4_K and Q5_K.
template <TensorType T>
struct SuperNibbles {
  static constexpr bool kFifth = kHasFifthBits<T>;
  static constexpr Chain kChain = Chain::kSuper;
  static constexpr bool kMinima = true, kHalves = false;
  static constexpr int kBits = kFifth ? 5 : 4;
  static constexpr uint32_t kValues = kSuperBlock;
  static constexpr uint32_t kBytes = kBlockBytes<T> * kTileRows;
  template <class V>
  static constexpr int offset_log2() {
    return -1;
  }

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
  static constexpr bool kMinima = false, kHalves = true;
  static constexpr int kBits = 6;
  static constexpr uint32_t kValues = kSuperBlock, kBytes = kBlockBytes<T> * kTileRows;
  template <class V>
  static constexpr int offset_log2() {
    return kOffsetLog2<T>;
  }

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
    take_scales<V>(V::i8(s), V::i8(s + kTileRows), out);
  }
};

// Q2_K and Q3_K: bit pairs, where each four blocks share 32 bytes of them.
template <TensorType T>
struct Pairs {
  using F = formats::Format<T>;
  static constexpr Chain kChain = Chain::kSuper;
  static constexpr bool kMinima = formats::is_affine(F::kScales), kHalves = true;
  static constexpr int kBits = kMinima ? 2 : 3;
  static constexpr uint32_t kValues = kSuperBlock, kBytes = kBlockBytes<T> * kTileRows;
  template <class V>
  static constexpr int offset_log2() {
    return kOffsetLog2<T>;
  }

  template <class V>
  static ORCD_LANES SuperScales<V> scales(const uint8_t* block, uint32_t lane0) {
    const uint8_t* d = block + F::kParts.tail * kTileRows + 2 * lane0;
    if constexpr (kMinima) return {V::f16(d), -V::f16(d + 2 * kTileRows)};
    else return {V::f16(d), typename V::Floats{}};
  }

  template <class V, int B>
  static ORCD_LANES void unpack(const uint8_t* block, uint32_t lane0, SubBlock<V>& out) {
    const uint8_t* pairs = block + (F::high(B, 0).byte) * kTileRows + 4 * lane0;
    for (int g = 0; g < 8; ++g) {
      out.w[g] = V::load(pairs + 4 * kTileRows * g) >> (B % 4 * 2) & 0x03030303u;
      if constexpr (kBits == 3) out.w[g] |= bit_to<B, 2>(V::load(block + 4 * kTileRows * g + 4 * lane0));
    }
    const uint8_t* s = block + F::kParts.head * kTileRows + lane0;
    const auto byte = [&](uint32_t i) { return V::u8(s + i * kTileRows); };
    if constexpr (kMinima) {
      const typename V::Ints first = byte(2 * B), second = byte(2 * B + 1);
      take_scales<V>(first & 15, second & 15, out);
      out.pair = first >> 4 | second >> 4 << 16;
    } else {
      const auto scale = [&](uint32_t i) {  // as the format's scale_of() has it
        return (byte(i % 8) >> int(i / 8 * 4) & 15) + ((byte(8 + i % 4) >> int(i / 4 * 2) & 3) << 4) - 32;
      };
      take_scales<V>(scale(2 * B), scale(2 * B + 1), out);
    }
  }
};

// IQ4_XS.
template <TensorType T>
struct SuperTable {
  static constexpr Chain kChain = Chain::kSuper;
  static constexpr bool kMinima = false, kHalves = false;
  static constexpr int kBits = 8;
  static constexpr uint32_t kValues = kSuperBlock, kBytes = kBlockBytes<T> * kTileRows;
  template <class V>
  static constexpr int offset_log2() {
    return V::kFlip8 ? 7 : -1;
  }

  template <class V>
  static ORCD_LANES SuperScales<V> scales(const uint8_t* block, uint32_t lane0) {
    return {V::f16(block + 2 * lane0), typename V::Floats{}};
  }

  template <class V, int B>
  static ORCD_LANES void unpack(const uint8_t* block, uint32_t lane0, SubBlock<V>& out) {
    static constexpr formats::Table table = table_for<V>(formats::Format<T>::kTable);
    const uint8_t* entries = reinterpret_cast<const uint8_t*>(table.words);
    const uint8_t* qs = block + (8 + 16 * B) * kTileRows + 4 * lane0;
    for (int g = 0; g < 4; ++g) {
      const typename V::Bytes x = V::load(qs + 4 * kTileRows * g);
      out.w[g] = V::lookup(low_nibble(x), entries);
      out.w[g + 4] = V::lookup(high_nibble(x), entries);
    }
    const auto byte = [&](uint32_t i) { return V::u8(block + i * kTileRows + lane0); };
    const typename V::Ints low = byte(4 + B / 2) >> (B % 2 * 4) & 15, high = byte(2 + B / 4) >> (B % 4 * 2) & 3;
    const typename V::Ints sc = (low | high << 4) - 32;
    take_scales<V>(sc, sc, out);
  }
};

// How a format is unpacked follows from what its blocks have.
template <TensorType T>
constexpr auto unpack_of() {
  using F = formats::Format<T>;
  if constexpr (F::kScales == formats::Scales::kSuper) return SuperNibbles<T>{};
  else if constexpr (F::kScales == formats::Scales::kSigned) return SuperTable<T>{};
  else if constexpr (formats::has_halves(F::kScales) && F::kPlanes.low == 0) return Pairs<T>{};
  else if constexpr (formats::has_halves(F::kScales)) return SplitNibbles<T>{};
  else if constexpr (formats::HasTable<F>) return TableNibbles<T>{};
  else if constexpr (F::kPlanes.low == 32) return Bytes<T>{};
  else return Nibbles<T>{};
}
template <TensorType T>
using Unpack = decltype(unpack_of<T>());

}  // namespace
}  // namespace orcd::cpu
