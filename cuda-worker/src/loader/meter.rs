//! Bytes as percentages.

/// Turns bytes into percentages, each told once. 100 is left to the caller: sealing comes first.
pub(super) struct Meter {
    total: u64,
    done: u64,
    told: u8,
}

impl Meter {
    pub(super) fn new(total: u64) -> Self {
        Self {
            total: total.max(1),
            done: 0,
            told: 0,
        }
    }

    /// The percentages passed by these bytes.
    pub(super) fn advance(&mut self, bytes: u64) -> std::ops::RangeInclusive<u8> {
        self.done += bytes;
        // At most 99, so it fits.
        let percent = (u128::from(self.done) * 100 / u128::from(self.total)).min(99) as u8;
        let passed = self.told + 1..=percent;
        self.told = percent;
        passed
    }
}
