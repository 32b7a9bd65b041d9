// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3"): a counter-based
// generator, so that the word for (seed, position, token) needs no state.
#pragma once

#include "arith/hd.h"

namespace orcd::arith {

struct PhiloxBlock {
  uint32_t word[4];
};

ORCD_HD PhiloxBlock philox4x32(uint32_t key0, uint32_t key1, uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t(0xd2511f53u) * c0;
    const uint64_t p1 = uint64_t(0xcd9e8d57u) * c2;
    const uint32_t n0 = uint32_t(p1 >> 32) ^ c1 ^ key0;
    const uint32_t n2 = uint32_t(p0 >> 32) ^ c3 ^ key1;
    c1 = uint32_t(p1);
    c3 = uint32_t(p0);
    c0 = n0;
    c2 = n2;
    key0 += 0x9e3779b9u;
    key1 += 0xbb67ae85u;
  }
  return {{c0, c1, c2, c3}};
}

}  // namespace orcd::arith
