//! A counter-based generator: any row of any tensor can be made without the others.

/// Increment of SplitMix64: 2^64 divided by the golden ratio, odd.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64. Only integer operations and exactly rounded float ones, so that every machine makes
/// the same numbers.
pub(crate) struct Rng(u64);

/// SplitMix64's finalizer: a bijection that mixes all bits.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Rng {
    /// The stream of row `row` of tensor `name` under `seed`.
    pub(crate) fn for_row(seed: u64, name: &str, row: u64) -> Rng {
        let fnv = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        let name = name.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, fnv);
        Rng(mix(
            mix(mix(seed.wrapping_add(GOLDEN)) ^ name).wrapping_add(row)
        ))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// Fills `out` with random bytes.
    pub(crate) fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }

    /// An integer from 0 to `n` - 1, for small `n`: the bias is below n / 2^32.
    pub(crate) fn below(&mut self, n: u32) -> u32 {
        // Fits: the product of two u32 shifted by 32 is below n.
        ((u64::from(n) * (self.next() >> 32)) >> 32) as u32
    }

    /// Uniform in [-1, 1), a multiple of 2^-23.
    pub(crate) fn signed(&mut self) -> f32 {
        const HALF: f32 = (1 << 23) as f32;
        (self.next() >> 40) as f32 / HALF - 1.0
    }

    /// Close to normal, mean 0 and variance 1, within ±6: the sum of twelve uniform numbers.
    pub(crate) fn normal(&mut self) -> f32 {
        let sum: f32 = (0..12).map(|_| self.signed()).sum();
        // Each has variance 1/3, the sum 4.
        sum / 2.0
    }
}
