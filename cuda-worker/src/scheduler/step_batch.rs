//! One step as a value: what the engine is to process and to sample.

use orcd_shared::sampling::SamplingParams;

use super::step_engine::EngineError;
use crate::ffi::types::shared::{Run, SampleRow, TokenBias};

/// One step: runs of tokens, each of another sequence, and the rows whose next token is to be sampled.
#[derive(Debug, Default)]
pub struct StepBatch {
    /// Of all runs, one after the other: a row each.
    pub(crate) tokens: Vec<u32>,
    pub(crate) runs: Vec<Run>,
    /// In the order of their rows.
    pub(crate) samples: Vec<SampleRow>,
    /// Bits of all masks, one after the other.
    pub(crate) masks: Vec<u32>,
    n_masks: u32,
    /// All biases, one list after the other.
    pub(crate) biases: Vec<TokenBias>,
}

/// How a token is to be sampled, and what else is to be told of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Wanted {
    /// How.
    pub sampling: SamplingParams,
    /// The mask that says which tokens may be sampled, of [`StepBatch::add_mask`].
    pub mask: Option<MaskNumber>,
    /// What is added to logits, of [`StepBatch::add_biases`].
    pub biases: Biases,
    /// Logprobs: the sampled token's, and as many of the most likely ones'.
    pub top_logprobs: Option<u32>,
}

/// A mask of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaskNumber(u32);

/// Biases of a step that belong together; none by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Biases {
    first: u32,
    count: u32,
}

impl From<SamplingParams> for Wanted {
    fn from(sampling: SamplingParams) -> Self {
        Self {
            sampling,
            mask: None,
            biases: Biases::default(),
            top_logprobs: None,
        }
    }
}

impl StepBatch {
    /// Empties it.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.runs.clear();
        self.samples.clear();
        self.masks.clear();
        self.n_masks = 0;
        self.biases.clear();
    }

    /// Adds the next tokens of the sequence in `slot`, which has `start` before them.
    ///
    /// # Errors
    /// More tokens than the bridge can count.
    pub fn add_run(&mut self, slot: u32, start: u32, tokens: &[u32]) -> Result<(), EngineError> {
        let n_tokens = u32::try_from(tokens.len());
        let n_tokens = n_tokens
            .map_err(|_| EngineError::Invalid(format!("{} tokens in a run", tokens.len())))?;
        self.tokens.extend_from_slice(tokens);
        self.runs.push(Run {
            slot,
            start,
            n_tokens,
            output_start: 0,
        });
        Ok(())
    }

    /// The sequence of the last run has its output from `position` on: penalties for tokens of the output count
    /// from there. Else they count from its first token.
    pub fn begin_output(&mut self, position: u32) {
        if let Some(run) = self.runs.last_mut() {
            run.output_start = position;
        }
    }

    /// Adds a set of the vocabulary's tokens: bit `i % 32` of word `i / 32` stands for token `i`, and as
    /// many words as that takes.
    pub fn add_mask(&mut self, allowed: &[u32]) -> MaskNumber {
        self.masks.extend_from_slice(allowed);
        self.n_masks += 1;
        MaskNumber(self.n_masks)
    }

    /// Adds such a set of `words` words that is not known yet: [`StepBatch::fill_mask`] has to say it before the step
    /// is finished.
    pub fn reserve_mask(&mut self, words: usize) -> MaskNumber {
        self.masks.resize(self.masks.len() + words, 0);
        self.n_masks += 1;
        MaskNumber(self.n_masks)
    }

    /// Says what a mask is. All masks of a step have as many words.
    pub fn fill_mask(&mut self, number: MaskNumber, allowed: &[u32]) {
        let at = (number.0 as usize - 1) * allowed.len();
        if let Some(mask) = self.masks.get_mut(at..at + allowed.len()) {
            mask.copy_from_slice(allowed);
        }
    }

    /// Adds what is to be added to the logits of some tokens, ids ascending.
    pub fn add_biases(&mut self, biases: &[(u32, f32)]) -> Biases {
        // Lists that the bridge can't count are refused with the step.
        let count = |n| u32::try_from(n).unwrap_or(u32::MAX);
        let first = count(self.biases.len());
        let biases = biases
            .iter()
            .map(|&(token, bias)| TokenBias { token, bias });
        self.biases.extend(biases);
        Biases {
            first,
            count: count(self.biases.len()).saturating_sub(first),
        }
    }

    /// Wants the token after row `row` sampled. Rows come in order.
    ///
    /// # Errors
    /// A parameter that the arithmetic is not defined for.
    pub fn add_sample(&mut self, row: usize, wanted: impl Into<Wanted>) -> Result<(), EngineError> {
        let wanted = wanted.into();
        if let Some(fault) = wanted.sampling.first_fault() {
            return Err(EngineError::Invalid(fault.to_string()));
        }
        self.samples.push(SampleRow {
            // A row that is none is refused with the step.
            row: u32::try_from(row).unwrap_or(u32::MAX),
            mask: wanted.mask.map_or(0, |mask| mask.0),
            logprobs: wanted.top_logprobs.is_some(),
            top_logprobs: wanted.top_logprobs.unwrap_or(0),
            first_bias: wanted.biases.first,
            n_biases: wanted.biases.count,
            sampling: wanted.sampling.into(),
        });
        Ok(())
    }

    /// Wants the token after the last run sampled.
    ///
    /// # Errors
    /// As [`StepBatch::add_sample`]; there is no run.
    pub fn sample_last(&mut self, wanted: impl Into<Wanted>) -> Result<(), EngineError> {
        let Some(row) = self.tokens.len().checked_sub(1) else {
            return Err(EngineError::Invalid("a sample without a run".to_owned()));
        };
        self.add_sample(row, wanted)
    }

    /// Slot, tokens before it, and tokens of each run.
    pub fn runs(&self) -> impl Iterator<Item = (u32, u32, &[u32])> {
        let mut rest = self.tokens.as_slice();
        self.runs.iter().map(move |run| {
            // Lossless: there are 64 bits. As many as add_run() put there.
            let (tokens, others) = rest.split_at(run.n_tokens as usize);
            rest = others;
            (run.slot, run.start, tokens)
        })
    }

    /// Slot and beginning of the output of each run.
    pub fn outputs(&self) -> impl Iterator<Item = (u32, u32)> {
        self.runs.iter().map(|run| (run.slot, run.output_start))
    }

    /// Row and seed of each sample.
    pub fn samples(&self) -> impl ExactSizeIterator<Item = (u32, u64)> {
        (self.samples.iter()).map(|sample| (sample.row, sample.sampling.seed))
    }
}
