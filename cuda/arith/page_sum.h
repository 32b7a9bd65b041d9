// The sum that tells whether a KV page is what it was: of its n words of 32 bits,
//
//   n² + Σ w_i · (2i + 1)   modulo 2^64
//
// The factors are odd, so a word that changes changes the sum, and two that change places do. What was never written
// does not have the sum that is there by default, zero. Integers: the order of summation is free.
#pragma once

#include <cstdint>

#include "arith/hd.h"

namespace orcd::arith {

// What word i adds.
ORCD_HD uint64_t page_sum_of(uint32_t word, uint32_t i) { return uint64_t{word} * (2 * i + 1); }

ORCD_HD uint64_t empty_page_sum(uint64_t words) { return words * words; }

inline uint64_t page_sum(const uint32_t* words, uint64_t count) {
  uint64_t sum = empty_page_sum(count);
  for (uint32_t i = 0; i < count; ++i) sum += page_sum_of(words[i], i);
  return sum;
}

}  // namespace orcd::arith
