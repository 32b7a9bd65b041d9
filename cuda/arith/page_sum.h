// Sums that tell whether what a KV page has of a position is what it was. Of a page's n words of 32 bits w_i a position's
// sum takes the bytes that are its own, all others as zero:
//
//   n² + Σ w_i · (2i + 1)   modulo 2^64
//
// The factors are odd, so a byte that changes changes the sum, and two words that change places do. What was never
// written does not have the sum that is there by default, zero. A page's sum is that of its positions' sums: the same
// formula over whole words, for each byte is of one position. Integers: the order of summation is free.
#pragma once

#include <cstdint>

#include "arith/constants.h"
#include "arith/hd.h"

namespace orcd::arith {

// What word i adds.
ORCD_HD uint64_t page_sum_of(uint32_t word, uint32_t i) { return uint64_t{word} * (2 * i + 1); }

// What the byte at `offset` of a page adds.
ORCD_HD uint64_t page_sum_of_byte(uint8_t byte, uint32_t offset) {
  return page_sum_of(uint32_t{byte} << 8 * (offset % 4), offset / 4);
}

// Of a position without bytes, in a page of so many words.
ORCD_HD uint64_t empty_position_sum(uint64_t words) { return words * words; }

ORCD_HD uint64_t empty_page_sum(uint64_t words) { return kAttnSplit * empty_position_sum(words); }

inline uint64_t page_sum(const uint32_t* words, uint64_t count) {
  uint64_t sum = empty_page_sum(count);
  for (uint32_t i = 0; i < count; ++i) sum += page_sum_of(words[i], i);
  return sum;
}

}  // namespace orcd::arith
