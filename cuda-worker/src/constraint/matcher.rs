//! How far an output has come in its constraint, and the tokens that may follow.

use std::fmt;

use super::compiler::shortened;

/// The state of one output. A clone has caches of its own.
pub struct Matcher {
    inner: llguidance::Matcher,
    /// Tokens that may come next: bit `i % 32` of word `i / 32` stands for token `i`.
    mask: Vec<u32>,
    /// Whether `mask` is that of the present state.
    is_fresh: bool,
    /// Tokens so far.
    tokens: usize,
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Matcher")
            .field("tokens", &self.tokens)
            .finish_non_exhaustive()
    }
}

impl Clone for Matcher {
    fn clone(&self) -> Self {
        Self {
            // Shared caches would make a bound depend on the others that share them.
            inner: self.inner.deep_clone(),
            mask: self.mask.clone(),
            is_fresh: self.is_fresh,
            tokens: self.tokens,
        }
    }
}

impl Matcher {
    pub(super) fn new(inner: llguidance::Matcher, vocab_size: usize) -> Self {
        Self {
            inner,
            mask: vec![0; vocab_size.div_ceil(32)],
            is_fresh: false,
            tokens: 0,
        }
    }

    /// Words of a mask.
    #[must_use]
    pub fn mask_words(&self) -> usize {
        self.mask.len()
    }

    /// The tokens that may come next, found out if they are not known: at least one, and only end tokens where the
    /// constraint is fulfilled and nothing more may follow.
    ///
    /// # Errors
    /// It takes more work or memory than a constraint may, or no token of the vocabulary fits.
    pub fn mask(&mut self) -> Result<&[u32], String> {
        self.refresh()?;
        Ok(&self.mask)
    }

    fn refresh(&mut self) -> Result<(), String> {
        if self.is_fresh {
            return Ok(());
        }
        let allowed = self.inner.compute_mask_or_eos();
        let allowed = allowed.map_err(|error| self.failed(&error.to_string()))?;
        // It may have room for one token more.
        for (word, &found) in self.mask.iter_mut().zip(allowed.as_slice()) {
            *word = found;
        }
        if self.mask.iter().all(|&word| word == 0) {
            return Err(self.failed("no token of the vocabulary fits"));
        }
        self.is_fresh = true;
        Ok(())
    }

    /// Goes on by `token`, which the mask allows. What goes wrong [`mask`](Self::mask) says.
    pub fn accept(&mut self, token: u32) {
        self.is_fresh = false;
        self.tokens += 1;
        // It stays in that state.
        let _ = self.inner.consume_token(token);
    }

    /// Does all that was done for `tokens` when they were drawn.
    ///
    /// # Errors
    /// They don't fit, or as [`mask`](Self::mask).
    pub fn replay(&mut self, tokens: &[u32]) -> Result<(), String> {
        for &token in tokens {
            self.refresh()?;
            if !self.allows(token) {
                return Err(self.failed(&format!("token {token} of before is not allowed")));
            }
            self.accept(token);
        }
        self.refresh()
    }

    fn allows(&self, token: u32) -> bool {
        let word = self.mask.get(token as usize / 32);
        word.is_some_and(|word| word >> (token % 32) & 1 == 1)
    }

    fn failed(&self, why: &str) -> String {
        format!("after {} tokens: {}", self.tokens, shortened(why))
    }
}
