// A thread's asynchronous copies into shared memory, in groups that end in their order.
#pragma once

#include <cstdint>

namespace orcd::kernels {

// From device into shared memory, 16 bytes, beside all else.
__device__ __forceinline__ void copy_16(const uint8_t* from, uint8_t* to) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(uint32_t(__cvta_generic_to_shared(to))), "l"(from)
               : "memory");
}

__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits for all but the last kLater groups of this thread's copies.
template <uint32_t kLater>
__device__ __forceinline__ void await_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kLater) : "memory");
}

}  // namespace orcd::kernels
