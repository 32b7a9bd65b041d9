// What the kernels of an instruction set are written over: a type V of vectors. The kernel headers are
// included by one file per instruction set, isa_*.cc, and everything in them has internal linkage,
// because each of those files is compiled differently.
//
// V has kLanes (16, 8 or 4); Ints, Floats, Bytes: vectors of kLanes words; and the static functions
//   load(p) → Bytes                     kLanes * 4 bytes
//   f16(p) → Floats, u8(p) → Ints, i8(p) → Ints        widened, one value per lane
//   lookup(Bytes x, const uint8_t* table) → Bytes      of each byte, at most 15, that entry of a table of 16
//   dot(Ints acc, Bytes w, x) → Ints    acc + Σ of 4 unsigned bytes (at most 63) times x[0..4]
//   dot8(Ints acc, Bytes w, x) → Ints   the same for any byte, signed unless kFlip8
//   pairs(Ints acc, Bytes w, two) → Ints    acc + Σ of 2 signed 16-bit values times those of `two`
//   widen(p) → Bytes                    kLanes * 2 signed bytes, as 16 bits each
//   floats(p) → Floats                  kLanes of them
//   scaled_dot<bits, groups>(Ints acc, Bytes* w, x, sc) → Ints
//                                       acc + sc · Σ over `groups` words of dot(w[g], x[4g..]), w of so many bits;
//                                       sc is what scale(Ints) made of an int8, and shifted(sc, by) of that: times
//                                       2^by, by at most 3
//   scaled_dot8<groups>(Ints acc, Bytes* w, x, sc) → Ints
//                                       the same with dot8, of w above -128
//   fma(a, b, c), to_float(Ints)
//   kFlip8                              dot8 takes q + 128 instead of q
#pragma once

// Values are to stay in registers from one function to the next; left to itself the compiler calls them.
#define ORCD_LANES inline __attribute__((always_inline))
