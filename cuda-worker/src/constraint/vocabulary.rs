//! The tokens as a matcher sees them.

use std::sync::Arc;

use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use orcd_shared::vocab::TokenBytes;

/// What a text can be made of.
#[derive(Debug)]
pub struct Vocabulary {
    /// By id; empty is no text, so that no constraint allows it.
    words: Vec<Vec<u8>>,
    /// At least one.
    end_tokens: Vec<u32>,
}

impl Vocabulary {
    /// Of a model file's tokens, whose logits are those of `size` tokens.
    ///
    /// # Errors
    /// There is no token at which an output ends: it couldn't end where it has to.
    pub fn of(bytes: &TokenBytes, end_tokens: &[u32], size: u32) -> Result<Self, String> {
        let words = (0..size).map(|id| bytes.get(id).to_vec());
        Self::new(words.collect(), end_tokens)
    }

    /// Of tokens with these bytes. Control tokens have none, and lose them here if they are end tokens.
    ///
    /// # Errors
    /// No end token is among them.
    pub fn new(mut words: Vec<Vec<u8>>, end_tokens: &[u32]) -> Result<Self, String> {
        let mut ends = end_tokens.to_vec();
        ends.retain(|&id| (id as usize) < words.len());
        if ends.is_empty() {
            return Err("the model has no token at which an output ends".to_owned());
        }
        for &id in &ends {
            words[id as usize].clear();
        }
        // The marker of special tokens, which none is to be. No UTF-8 has that byte.
        let is_marked = |word: &&mut Vec<u8>| word.first() == Some(&TokTrie::SPECIAL_TOKEN_MARKER);
        words.iter_mut().filter(is_marked).for_each(Vec::clear);
        Ok(Self {
            words,
            end_tokens: ends,
        })
    }

    /// Every byte as a token, and an end token: enough to try a constraint.
    #[must_use]
    pub fn of_bytes() -> Self {
        let mut words: Vec<Vec<u8>> = (0..u8::MAX).map(|byte| vec![byte]).collect();
        words.push(Vec::new());
        let end = u32::from(u8::MAX);
        Self {
            words,
            end_tokens: vec![end],
        }
    }

    /// Number of tokens.
    pub(super) fn size(&self) -> usize {
        self.words.len()
    }

    /// The tokens in llguidance's form. Their texts are not tokenized again: a text that a constraint forces may be made of
    /// any tokens.
    pub(super) fn token_env(&self) -> TokEnv {
        // Ids are u32.
        let size = u32::try_from(self.words.len()).unwrap_or(u32::MAX);
        let info = TokRxInfo::new(size, self.end_tokens[0]);
        let trie = TokTrie::from(&info, &self.words).with_eos_tokens(&self.end_tokens);
        Arc::new(ApproximateTokEnv::new(trie))
    }
}
