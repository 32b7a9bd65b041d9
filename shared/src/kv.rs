//! How KV memory is counted: in pages, on both sides of the link.

/// Positions in a page. `kPageTokens` of the engine.
pub const PAGE_TOKENS: u32 = 64;

/// Pages that so many positions take.
#[must_use]
pub const fn pages(positions: u64) -> u64 {
    positions.div_ceil(PAGE_TOKENS as u64)
}

/// Positions of a pool that a single job may have, where a sequence has at most `context`.
#[must_use]
pub fn positions(pool_pages: u32, context: u32) -> u32 {
    pool_pages.saturating_mul(PAGE_TOKENS).min(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_is_begun_is_taken() {
        assert_eq!([0, 1, 64, 65, 128].map(pages), [0, 1, 1, 2, 2]);
    }

    #[test]
    fn a_job_has_the_pool_or_the_context() {
        assert_eq!(
            [(3, 100), (1, 100), (u32::MAX, 100)].map(|(p, c)| positions(p, c)),
            [100, 64, 100]
        );
    }
}
