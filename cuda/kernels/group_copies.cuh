// Packed weights on their way to shared memory: a unit of a group of eight rows by a warp.
#pragma once

#include "kernels/block.cuh"
#include "kernels/several_rows.cuh"

namespace orcd::kernels {

// What a chain of the contract goes over: a super-block, or a segment of four blocks. Its blocks of 32.
template <TensorType T>
inline constexpr uint32_t kUnitBlocks = kSupers<T> ? kSuperBlocks : kSegmentBlocks;
template <TensorType T>
inline constexpr uint32_t kUnit = kUnitBlocks<T> * kQuantBlock;

template <TensorType T>
struct GroupBytes {  // of a unit of eight weight rows
  static constexpr formats::Planes l = kPlanes<T>;
  static constexpr uint32_t blocks = kUnitBlocks<T> * kGroupRows;
  static constexpr uint32_t low = blocks * l.low, high = blocks * l.high;
  static constexpr uint32_t head = (kSupers<T> ? kGroupRows : blocks) * l.head, tail = kGroupRows * l.tail;
  static constexpr uint32_t all = low + high + head + tail;
  static_assert(low % 16 == 0 && high % 16 == 0 && head % 16 == 0 && tail % 16 == 0);
};

// Copies a piece of a plane that is contiguous in both memories, by the lanes of a warp.
template <uint32_t kBytes>
__device__ __forceinline__ void copy_plane(uint8_t* to, const uint8_t* from) {
  const uint32_t lane = threadIdx.x % 32;
#pragma unroll
  for (uint32_t at = 0; at < kBytes; at += 512)
    if (at + 512 <= kBytes || lane * 16 < kBytes - at) copy_async<16>(to + at + lane * 16, from + at + lane * 16, true);
}

// A whole unit of a whole group, by a warp.
template <TensorType T>
__device__ __forceinline__ void fetch_group(uint8_t* to, const uint8_t* group, uint32_t nb, uint32_t unit) {
  using B = GroupBytes<T>;
  constexpr formats::Planes l = kPlanes<T>;
  copy_plane<B::low>(to, group + unit * B::low);
  group += nb * kGroupRows * l.low;
  if constexpr (B::high > 0) copy_plane<B::high>(to + B::low, group + unit * B::high);
  group += nb * kGroupRows * l.high;
  copy_plane<B::head>(to + B::low + B::high, group + unit * B::head);
  group += nb / kSuperBlocks * B::head;
  if constexpr (B::tail > 0) copy_plane<B::tail>(to + B::low + B::high + B::head, group + unit * B::tail);
}

}  // namespace orcd::kernels
