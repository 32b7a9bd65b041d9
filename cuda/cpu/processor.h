// What this machine's processor has. Read from it, because not every compiler's runtime fills in what
// __builtin_cpu_supports asks: that of zig answers no to everything.
#pragma once

namespace orcd::cpu {

bool has_avx2();    // AVX2, FMA and F16C, and registers that the kernel keeps
bool has_avx512();  // F, BW, VL, DQ and VNNI, and the same

}  // namespace orcd::cpu
