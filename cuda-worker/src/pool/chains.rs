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
        Self::beside(None, root, tokens)
    }

    /// The same, where another one is known that may begin alike: to compare tokens costs a tenth of what names do.
    fn beside(other: Option<&Self>, root: PageName, tokens: Vec<u32>) -> Self {
        let mut names = Vec::with_capacity(tokens.len() / TOKENS);
        if let Some(other) = other.filter(|other| other.root == root) {
            let pages = full_pages(&tokens).zip(full_pages(&other.tokens));
            let same = pages.take_while(|(page, known)| page == known).count();
            names.extend_from_slice(&other.names[..same]);
        }
        let mut name = names.last().copied().unwrap_or(root);
        for page in full_pages(&tokens).skip(names.len()) {
            name = name.next(page);
            names.push(name);
        }
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
        return one_after_the_other(all);
    }
    thread::scope(|scope| {
        let shares = all.chunks(all.len().div_ceil(threads));
        let running: Vec<_> = shares
            .map(|share| scope.spawn(move || one_after_the_other(share)))
            .collect();
        let joined = running
            .into_iter()
            .zip(all.chunks(all.len().div_ceil(threads)));
        // A thread that could not do it leaves it to this one.
        joined
            .flat_map(|(thread, share)| {
                thread.join().unwrap_or_else(|_| one_after_the_other(share))
            })
            .collect()
    })
}

fn one_after_the_other(all: &[Parts<'_>]) -> Vec<Chain> {
    let mut chains: Vec<Chain> = Vec::with_capacity(all.len());
    for (root, parts) in all {
        chains.push(Chain::beside(chains.last(), *root, parts.concat()));
    }
    chains
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
    fn a_chain_beside_one_that_begins_alike_has_its_own_names() {
        let root = PageName([3; 32]);
        let tokens: Vec<u32> = (0..300).collect();
        let known = Chain::of(root, tokens.clone());
        for differs in [0, 63, 64, 130, 255, 256, 299] {
            let mut other = tokens.clone();
            other[differs] = 1000;
            let expected = Chain::of(root, other.clone());
            assert_eq!(Chain::beside(Some(&known), root, other), expected);
        }
        for count in [0, 64, 200, 299] {
            let shorter = tokens[..count].to_vec();
            let expected = Chain::of(root, shorter.clone());
            assert_eq!(Chain::beside(Some(&known), root, shorter), expected);
        }
        let elsewhere = PageName([4; 32]);
        let expected = Chain::of(elsewhere, tokens.clone());
        assert_eq!(Chain::beside(Some(&known), elsewhere, tokens), expected);
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
