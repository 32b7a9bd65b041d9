//! Names of all pages of a sequence, for many sequences at once.

use std::num::NonZero;
use std::thread;

use super::names::{PageName, TOKENS, full_pages};

/// The names of a sequence's full pages, with its tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// The name of its beginning.
    pub root: PageName,
    /// All its tokens.
    pub tokens: Vec<u32>,
    /// Of each full page.
    pub names: Vec<PageName>,
}

impl Chain {
    /// That of these tokens.
    #[must_use]
    pub fn of(root: PageName, tokens: Vec<u32>) -> Self {
        let mut name = root;
        let names = full_pages(&tokens).map(|page| {
            name = name.next(page);
            name
        });
        let names = names.collect();
        Self {
            root,
            tokens,
            names,
        }
    }

    /// The name of the page before number `at`.
    #[must_use]
    pub fn before(&self, at: usize) -> PageName {
        let before = at.checked_sub(1).and_then(|at| self.names.get(at));
        before.copied().unwrap_or(self.root)
    }
}

/// Where a chain begins, and its tokens in parts.
pub type Parts<'a> = (PageName, [&'a [u32]; 2]);

/// Tokens whose names are not worth a thread: some tenths of a millisecond.
const TOKENS_ALONE: usize = 1024 * TOKENS;
/// Threads at most. The memory's speed would not do for many more.
const THREADS: usize = 8;

/// The chain of each, by as many threads as that takes.
#[must_use]
pub fn chains(all: &[Parts<'_>]) -> Vec<Chain> {
    let of = |(root, parts): &Parts<'_>| Chain::of(*root, parts.concat());
    let tokens: usize = all
        .iter()
        .flat_map(|(_, parts)| parts)
        .map(|p| p.len())
        .sum();
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    let threads = processors
        .min(THREADS)
        .min(tokens / TOKENS_ALONE)
        .min(all.len());
    if threads < 2 {
        return all.iter().map(of).collect();
    }
    thread::scope(|scope| {
        let shares = all.chunks(all.len().div_ceil(threads));
        let running: Vec<_> = shares
            .map(|share| scope.spawn(move || share.iter().map(of).collect::<Vec<_>>()))
            .collect();
        let joined = running
            .into_iter()
            .zip(all.chunks(all.len().div_ceil(threads)));
        // A thread that could not do it leaves it to this one.
        joined
            .flat_map(|(thread, share)| {
                thread
                    .join()
                    .unwrap_or_else(|_| share.iter().map(of).collect())
            })
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_has_the_names_that_its_pages_have_one_after_the_other() {
        let root = PageName([3; 32]);
        let tokens: Vec<u32> = (0..200).collect();
        let chain = Chain::of(root, tokens.clone());
        let mut name = root;
        for (at, page) in full_pages(&tokens).enumerate() {
            assert_eq!(chain.before(at), name);
            name = name.next(page);
            assert_eq!(chain.names[at], name);
        }
        assert_eq!(chain.names.len(), 3);
    }

    #[test]
    fn chains_by_several_threads_are_those_by_one() {
        let tokens: Vec<u32> = (0..4 * TOKENS_ALONE as u32).collect();
        let parts = |i: usize| (PageName([i as u8; 32]), [&tokens[i..], &tokens[..70 * i]]);
        let all: Vec<Parts<'_>> = (0..5).map(parts).collect();
        let expected: Vec<Chain> = all
            .iter()
            .map(|(root, parts)| Chain::of(*root, parts.concat()))
            .collect();
        assert!(chains(&all) == expected);
        assert!(chains(&[]).is_empty());
    }
}
