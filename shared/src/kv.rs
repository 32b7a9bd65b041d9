//! How KV memory is counted: in pages, on both sides of the link; and what says of it that it is the same.

use serde::{Deserialize, Serialize};

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

/// Says what the descriptors of a pool stand for: the memory of its pages, and the ledger of what is in them. A worker
/// takes the pages over only if every field but `id` equals what it would make itself; otherwise it makes a pool of its
/// own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolManifest {
    /// Of this memory: no two pools have the same.
    pub id: [u8; 16],
    /// "cpu" or "cuda".
    pub backend: String,
    /// Pages.
    pub pages: u32,
    /// Size of the memory, bytes.
    pub bytes: u64,
    /// Of all that the values in a page depend on beside its tokens: the model's content, the layout of a page, and the
    /// program that computes them.
    pub fingerprint: [u8; 32],
}

/// What the pages of a pool are in use for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageCounts {
    /// Pages that sequences hold.
    pub used: u32,
    /// Pages that nobody holds, kept because a prompt may begin with what is in them.
    pub cached: u32,
    /// Pages found not to be what the ledger says of them, since the worker's start.
    pub refused: u32,
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
