#include "cpu/processor.h"

#include <cstdint>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace orcd::cpu {

#if defined(__x86_64__)
namespace {

constexpr uint32_t bit(unsigned n) { return uint32_t{1} << n; }
constexpr bool all(uint32_t value, uint32_t mask) { return (value & mask) == mask; }

// Registers that the kernel saves when it switches processes: XMM and YMM; opmasks and both halves of ZMM.
constexpr uint32_t kYmm = bit(1) | bit(2);
constexpr uint32_t kZmm = kYmm | bit(5) | bit(6) | bit(7);

struct Features {
  uint32_t ecx1 = 0;  // leaf 1
  uint32_t ebx7 = 0;  // leaf 7
  uint32_t ecx7 = 0;
  uint32_t saved = 0;  // of XCR0
};

Features read_features() {
  Features found;
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (!__get_cpuid(1, &eax, &ebx, &found.ecx1, &edx)) return {};
  constexpr uint32_t kOsxsave = bit(27);
  if (!all(found.ecx1, kOsxsave)) return {};  // xgetbv is not there
  uint32_t high = 0;
  __asm__("xgetbv" : "=a"(found.saved), "=d"(high) : "c"(0));
  if (!__get_cpuid_count(7, 0, &eax, &found.ebx7, &ecx, &edx)) return {};
  found.ecx7 = ecx;
  return found;
}

const Features& features() {
  static const Features kFound = read_features();
  return kFound;
}

}  // namespace

bool has_avx2() {
  constexpr uint32_t kFma = bit(12), kAvx = bit(28), kF16c = bit(29);
  constexpr uint32_t kAvx2 = bit(5);
  const Features& f = features();
  return all(f.ecx1, kFma | kAvx | kF16c) && all(f.ebx7, kAvx2) && all(f.saved, kYmm);
}

bool has_avx512() {
  constexpr uint32_t kF = bit(16), kDq = bit(17), kBw = bit(30), kVl = bit(31);
  constexpr uint32_t kVnni = bit(11);
  const Features& f = features();
  return has_avx2() && all(f.ebx7, kF | kDq | kBw | kVl) && all(f.ecx7, kVnni) && all(f.saved, kZmm);
}

#else

bool has_avx2() { return false; }
bool has_avx512() { return false; }

#endif

}  // namespace orcd::cpu
