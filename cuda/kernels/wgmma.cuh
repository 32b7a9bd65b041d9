// Hopper's own instructions (sm_90a): products of warpgroups from shared memory, bulk copies, and the barriers that say
// when these have come.
#pragma once

#include <cstdint>

namespace orcd::kernels {

__device__ __forceinline__ uint32_t shared_address(const void* p) { return uint32_t(__cvta_generic_to_shared(p)); }

// Rows of 128 bytes with that swizzle, groups of eight of them `stride` bytes apart. (PTX ISA, "Matrix descriptor".)
__device__ __forceinline__ uint64_t matrix_descriptor(uint32_t address, uint32_t stride) {
  constexpr uint32_t kSwizzle128 = 1u << 30, kUnused = 1u << 16;
  return uint64_t{kSwizzle128 | stride / 16} << 32 | (kUnused | (address & 0x3ffffu) / 16);
}

__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

#define ORCD_FOUR(d, i) "+r"(d[i][0]), "+r"(d[i][1]), "+r"(d[i][2]), "+r"(d[i][3])
#define ORCD_TILES2(d) ORCD_FOUR(d, 0), ORCD_FOUR(d, 1)
#define ORCD_TILES4(d) ORCD_TILES2(d), ORCD_FOUR(d, 2), ORCD_FOUR(d, 3)
#define ORCD_TILES6(d) ORCD_TILES4(d), ORCD_FOUR(d, 4), ORCD_FOUR(d, 5)
#define ORCD_TILES8(d) ORCD_TILES6(d), ORCD_FOUR(d, 6), ORCD_FOUR(d, 7)
#define ORCD_TILES10(d) ORCD_TILES8(d), ORCD_FOUR(d, 8), ORCD_FOUR(d, 9)
#define ORCD_TILES12(d) ORCD_TILES10(d), ORCD_FOUR(d, 10), ORCD_FOUR(d, 11)
#define ORCD_WGMMA(n, types, d, a0, a1, a2, a3, b, p, ...)                                                           \
  asm volatile("{ .reg .pred add; setp.ne.b32 add, %" #p                                                             \
               ", 0;\n"                                                                                              \
               "wgmma.mma_async.sync.aligned.m64n" #n "k32.s32." types " {" d "}, {%" #a0 ",%" #a1 ",%" #a2 ",%" #a3 \
               "}, %" #b ", add; }"                                                                                  \
               : __VA_ARGS__                                                                                         \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(rows), "r"(add))
#define ORCD_D8 "%0,%1,%2,%3,%4,%5,%6,%7"
#define ORCD_D16 ORCD_D8 ",%8,%9,%10,%11,%12,%13,%14,%15"
#define ORCD_D24 ORCD_D16 ",%16,%17,%18,%19,%20,%21,%22,%23"
#define ORCD_D32 ORCD_D24 ",%24,%25,%26,%27,%28,%29,%30,%31"
#define ORCD_D40 ORCD_D32 ",%32,%33,%34,%35,%36,%37,%38,%39"
#define ORCD_D48 ORCD_D40 ",%40,%41,%42,%43,%44,%45,%46,%47"
#define ORCD_WGMMA_OF(types)                                                                                   \
  do {                                                                                                         \
    if constexpr (kTiles == 2) ORCD_WGMMA(16, types, ORCD_D8, 8, 9, 10, 11, 12, 13, ORCD_TILES2(d));           \
    else if constexpr (kTiles == 4) ORCD_WGMMA(32, types, ORCD_D16, 16, 17, 18, 19, 20, 21, ORCD_TILES4(d));   \
    else if constexpr (kTiles == 6) ORCD_WGMMA(48, types, ORCD_D24, 24, 25, 26, 27, 28, 29, ORCD_TILES6(d));   \
    else if constexpr (kTiles == 8) ORCD_WGMMA(64, types, ORCD_D32, 32, 33, 34, 35, 36, 37, ORCD_TILES8(d));   \
    else if constexpr (kTiles == 10) ORCD_WGMMA(80, types, ORCD_D40, 40, 41, 42, 43, 44, 45, ORCD_TILES10(d)); \
    else ORCD_WGMMA(96, types, ORCD_D48, 48, 49, 50, 51, 52, 53, ORCD_TILES12(d));                             \
  } while (false)

// d = or += a · rows: 64 rows of 32 bytes, sixteen a warp as mma.m16n8k32 has them, by 8 · kTiles rows in shared
// memory. Asynchronous: neither d nor a may be touched until wgmma_wait().
template <bool kSignedA, bool kSignedRows, uint32_t kTiles>
__device__ __forceinline__ void wgmma(int32_t (&d)[kTiles][4], const uint32_t (&a)[4], uint64_t rows, int32_t add) {
  static_assert(kTiles % 2 == 0 && kTiles <= 12);
  if constexpr (kSignedA && kSignedRows) ORCD_WGMMA_OF("s8.s8");
  else if constexpr (kSignedA) ORCD_WGMMA_OF("s8.u8");
  else if constexpr (kSignedRows) ORCD_WGMMA_OF("u8.s8");
  else ORCD_WGMMA_OF("u8.u8");
}

// Waits for all but the last kLater groups of products.
template <uint32_t kLater>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kLater) : "memory");
}

// Says that d has come: nothing reads it before. (Behind wgmma_wait(), for the compiler.)
template <uint32_t kTiles>
__device__ __forceinline__ void wgmma_came(int32_t (&d)[kTiles][4]) {
  if constexpr (kTiles == 2) asm volatile("" : ORCD_TILES2(d)::"memory");
  else if constexpr (kTiles == 4) asm volatile("" : ORCD_TILES4(d)::"memory");
  else if constexpr (kTiles == 6) asm volatile("" : ORCD_TILES6(d)::"memory");
  else if constexpr (kTiles == 8) asm volatile("" : ORCD_TILES8(d)::"memory");
  else if constexpr (kTiles == 10) asm volatile("" : ORCD_TILES10(d)::"memory");
  else asm volatile("" : ORCD_TILES12(d)::"memory");
}

#undef ORCD_WGMMA_OF
#undef ORCD_D48
#undef ORCD_D40
#undef ORCD_D32
#undef ORCD_D24
#undef ORCD_D16
#undef ORCD_D8
#undef ORCD_WGMMA
#undef ORCD_TILES12
#undef ORCD_TILES10
#undef ORCD_TILES8
#undef ORCD_TILES6
#undef ORCD_TILES4
#undef ORCD_TILES2
#undef ORCD_FOUR

// A barrier in shared memory that ends a phase when `arrivals` have come, and all bytes that were announced.
__device__ __forceinline__ void barrier_init(uint64_t& barrier, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(&barrier)), "r"(arrivals) : "memory");
}

// Behind all barrier_init() of a block: the copies see them too.
__device__ __forceinline__ void barriers_ready() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

__device__ __forceinline__ void arrive(uint64_t& barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(&barrier)) : "memory");
}

__device__ __forceinline__ void arrive_expecting(uint64_t& barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(&barrier)), "r"(bytes)
               : "memory");
}

// Waits for the end of a phase of this parity: the first has 0.
__device__ __forceinline__ void await(uint64_t& barrier, uint32_t parity) {
  asm volatile(
      "{ .reg .pred done;\n"
      "again: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again; }" ::"r"(shared_address(&barrier)),
      "r"(parity)
      : "memory");
}

// Copies to shared memory; both ends and `bytes` are multiples of 16. The bytes count at the barrier as they come.
__device__ __forceinline__ void copy_bulk(void* to, const void* from, uint32_t bytes, uint64_t& barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                   shared_address(to)),
               "l"(from), "r"(bytes), "r"(shared_address(&barrier))
               : "memory");
}

}  // namespace orcd::kernels
