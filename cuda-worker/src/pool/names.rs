//! Names of pages: chains of hashes.

use orcd_shared::job::{CacheScope, JobKey};
use orcd_shared::kv::PAGE_TOKENS;

/// Positions in a page.
pub const TOKENS: usize = PAGE_TOKENS as usize;

/// The tokens of a page.
pub type PageTokens = [u32; TOKENS];

/// What is in a full page: a BLAKE3 hash of all that its keys and values depend on. Of a chain's beginning: all that
/// they depend on beside tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PageName(pub [u8; 32]);

/// Begins each hash, so that none is another program's.
const CONTEXT: &str = "worker-orcd 2026-11-30 names of KV pages";

impl PageName {
    /// The beginning of a sequence's chain. `fingerprint` stands for model, layout and program; `long` is whether its
    /// rotations are those of long sequences; `key` is the job's, with the run of the supervisor that gave it.
    #[must_use]
    pub fn root(
        fingerprint: &[u8; 32],
        long: bool,
        scope: CacheScope,
        (run, key): (u64, JobKey),
    ) -> Self {
        let mut hash = blake3::Hasher::new_derive_key(CONTEXT);
        hash.update(fingerprint).update(&[u8::from(long)]);
        match scope {
            CacheScope::Job => hash
                .update(&[0])
                .update(&run.to_le_bytes())
                .update(&key.0.to_le_bytes()),
            CacheScope::Salt(salt) => hash.update(&[1]).update(&salt),
        };
        Self(hash.finalize().into())
    }

    /// The page behind this one that has these tokens.
    #[must_use]
    pub fn next(&self, tokens: &PageTokens) -> Self {
        let mut bytes = [0; 32 + 4 * TOKENS];
        bytes[..32].copy_from_slice(&self.0);
        for (to, token) in bytes[32..].chunks_exact_mut(4).zip(tokens) {
            to.copy_from_slice(&token.to_le_bytes());
        }
        Self(blake3::hash(&bytes).into())
    }
}

/// The full pages of `tokens`.
pub fn full_pages(tokens: &[u32]) -> impl Iterator<Item = &PageTokens> {
    let (pages, _) = tokens.as_chunks::<TOKENS>();
    pages.iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: CacheScope = CacheScope::Salt([1; 16]);

    #[test]
    fn everything_that_a_page_depends_on_is_in_its_name() {
        let root = |fingerprint, long, scope, key| {
            PageName::root(&[fingerprint; 32], long, scope, (4, JobKey(key)))
        };
        let of_run = |run, scope| PageName::root(&[0; 32], false, scope, (run, JobKey(1)));
        let names = [
            root(0, false, SALT, 1),
            root(1, false, SALT, 1),
            root(0, true, SALT, 1),
            root(0, false, CacheScope::Salt([2; 16]), 1),
            root(0, false, CacheScope::Job, 1),
            root(0, false, CacheScope::Job, 2),
            of_run(5, CacheScope::Job),
        ];
        for (i, name) in names.iter().enumerate() {
            assert!(!names[..i].contains(name), "{i}");
        }
        assert_eq!(names[0], root(0, false, SALT, 2), "a salt is not one job's");
        assert_eq!(names[0], of_run(5, SALT), "nor one run's");
        let mut tokens = [7; TOKENS];
        let page = names[0].next(&tokens);
        tokens[63] += 1;
        assert_ne!(page, names[0].next(&tokens));
        assert_ne!(page, names[1].next(&[7; TOKENS]));
        assert_eq!(page, names[0].next(&[7; TOKENS]));
    }

    #[test]
    fn a_page_that_is_not_full_has_no_name() {
        let tokens: Vec<u32> = (0..130).collect();
        let pages = |n: usize| full_pages(&tokens[..n]).count();
        assert_eq!([63, 64, 127, 128, 130].map(pages), [0, 1, 1, 2, 2]);
        assert_eq!(full_pages(&tokens).nth(1).unwrap()[63], 127);
    }
}
