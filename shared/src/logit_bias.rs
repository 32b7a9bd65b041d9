//! What a job has added to the logits of single tokens.

use serde::{Deserialize, Serialize};

use crate::sampling::Bounds;

/// Most tokens of one job's bias: the engine has memory for so many of each sample.
pub const MAX_LOGIT_BIASES: usize = 1024;

/// What may be added to a logit.
pub const LOGIT_BIAS: Bounds = Bounds::around_zero(100.0);

/// Biases by token, ids ascending, each once.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LogitBias(Vec<(u32, f32)>);

/// Why biases are not taken.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LogitBiasFault {
    /// Over [`MAX_LOGIT_BIASES`].
    #[error("logit_bias has {0} tokens; give at most {MAX_LOGIT_BIASES}")]
    TooMany(usize),
    /// An id that is not in the vocabulary.
    #[error("logit_bias has token {id}; the vocabulary has ids below {vocab_size}")]
    NoToken {
        /// The id.
        id: u32,
        /// Tokens in the vocabulary.
        vocab_size: u32,
    },
    /// An id that is there twice, or not in order.
    #[error("logit_bias has token {0} more than once")]
    Twice(u32),
    /// A bias out of [`LOGIT_BIAS`].
    #[error("logit_bias of token {id} is {bias}; give {}", LOGIT_BIAS.rule("bias"))]
    OutOfBounds {
        /// The token.
        id: u32,
        /// Its bias.
        bias: f32,
    },
}

impl LogitBias {
    /// Biases of a vocabulary of `vocab_size` tokens, in any order.
    ///
    /// # Errors
    /// Too many, or one that the engine does not take.
    pub fn new(mut biases: Vec<(u32, f32)>, vocab_size: u32) -> Result<Self, LogitBiasFault> {
        biases.sort_unstable_by_key(|&(id, _)| id);
        let biases = Self(biases);
        match biases.first_fault(vocab_size) {
            Some(fault) => Err(fault),
            None => Ok(biases),
        }
    }

    /// Tokens and what is added to their logits, ids ascending.
    #[must_use]
    pub fn entries(&self) -> &[(u32, f32)] {
        &self.0
    }

    /// The first thing that the engine of a vocabulary of `vocab_size` tokens does not take. What was read from a
    /// socket or a file may have one.
    #[must_use]
    pub fn first_fault(&self, vocab_size: u32) -> Option<LogitBiasFault> {
        if self.0.len() > MAX_LOGIT_BIASES {
            return Some(LogitBiasFault::TooMany(self.0.len()));
        }
        let twice = self.0.windows(2).find(|pair| pair[0].0 >= pair[1].0);
        if let Some(pair) = twice {
            return Some(LogitBiasFault::Twice(pair[1].0));
        }
        self.0.iter().find_map(|&(id, bias)| {
            if id >= vocab_size {
                return Some(LogitBiasFault::NoToken { id, vocab_size });
            }
            let is_taken = LOGIT_BIAS.engine_value(bias.into()) == Some(bias);
            (!is_taken).then_some(LogitBiasFault::OutOfBounds { id, bias })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn biases_are_sorted_and_what_is_wrong_with_them_is_named() {
        let sorted = LogitBias::new(vec![(9, -100.0), (0, 100.0), (5, 0.0)], 10).unwrap();
        assert_eq!(sorted.entries(), [(0, 100.0), (5, 0.0), (9, -100.0)]);
        let fault = |biases: &[(u32, f32)]| {
            let fault = LogitBias::new(biases.to_vec(), 2000).unwrap_err();
            fault.to_string()
        };
        let most: Vec<_> = (0..=MAX_LOGIT_BIASES as u32).map(|id| (id, 1.0)).collect();
        assert!(LogitBias::new(most[1..].to_vec(), 2000).is_ok());
        assert_eq!(
            fault(&most),
            "logit_bias has 1025 tokens; give at most 1024"
        );
        assert_eq!(
            fault(&[(2000, 1.0)]),
            "logit_bias has token 2000; the vocabulary has ids below 2000"
        );
        assert_eq!(
            fault(&[(7, 1.0), (3, 1.0), (7, 1.0)]),
            "logit_bias has token 7 more than once"
        );
        for bad in [100.0f32.next_up(), f32::NAN, f32::NEG_INFINITY] {
            let expected = format!("logit_bias of token 3 is {bad}; give -100 <= bias <= 100");
            assert_eq!(fault(&[(3, bad)]), expected);
        }
        // As it may come from a socket.
        let unsorted = LogitBias(vec![(5, 1.0), (4, 1.0)]);
        assert_eq!(unsorted.first_fault(10), Some(LogitBiasFault::Twice(4)));
    }
}
