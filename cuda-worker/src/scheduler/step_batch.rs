//! One step as a value: what the engine is to process and to sample.

use orcd_shared::sampling::SamplingParams;

use super::step_engine::EngineError;
use crate::ffi::types::shared::{Run, SampleRow};

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
}

/// How a token is to be sampled, and what else is to be told of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Wanted {
    /// How.
    pub sampling: SamplingParams,
    /// The mask that says which tokens may be sampled, of [`StepBatch::add_mask`].
    pub mask: Option<MaskNumber>,
    /// Logprobs: the sampled token's, and as many of the most likely ones'.
    pub top_logprobs: Option<u32>,
}

/// A mask of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaskNumber(u32);

impl From<SamplingParams> for Wanted {
    fn from(sampling: SamplingParams) -> Self {
        Self {
            sampling,
            mask: None,
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
        });
        Ok(())
    }

    /// Adds a set of the vocabulary's tokens: bit `i % 32` of word `i / 32` stands for token `i`, and as
    /// many words as that takes.
    pub fn add_mask(&mut self, allowed: &[u32]) -> MaskNumber {
        self.masks.extend_from_slice(allowed);
        self.n_masks += 1;
        MaskNumber(self.n_masks)
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

    /// Row and seed of each sample.
    pub fn samples(&self) -> impl ExactSizeIterator<Item = (u32, u64)> {
        (self.samples.iter()).map(|sample| (sample.row, sample.sampling.seed))
    }
}
