//! The engine as the scheduler sees it. A trait, so that the scheduler's rules are tested with an
//! engine that computes nothing.

use orcd_shared::kv::PageCounts;
use orcd_shared::protocol::message::Serve;

pub use super::step_batch::{StepBatch, Wanted};
pub use crate::ffi::types::shared::{Sampled, TokenLogprob};
pub use crate::pool::sequences::Owner;

/// Sampled from logits that are broken: one of them is infinite or NaN, or all are zero, which is what
/// quantization makes of activations that are not finite. `kBrokenLogits` of `engine.h`.
pub const BROKEN_LOGITS: u32 = u32::MAX - 1;

/// What an engine call can fail with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// A precondition is broken; nothing was changed.
    #[error("{0}")]
    Invalid(String),
    /// Memory for this call is not there; the engine is as before.
    #[error("{0}")]
    OutOfMemory(String),
    /// The device or its context is lost: the process must end.
    #[error("{0}")]
    Device(String),
    /// The step was given up half-way because SIGUSR1 asked for it; the engine is as before.
    #[error("the step was given up as asked")]
    Abandoned,
}

/// A job that is to be opened next.
#[derive(Debug, Clone, Copy)]
pub struct Coming<'a> {
    /// As [`StepEngine::open_for`] gets it.
    pub max_tokens: u32,
    /// Whose it is.
    pub owner: Owner,
    /// The tokens that it is to have, one part after the other.
    pub tokens: [&'a [u32]; 2],
}

/// Sequences in slots, moved on together in steps.
pub trait StepEngine {
    /// Begins a fresh sequence of up to `max_tokens` positions, or as many as the context has, in `slot`. It takes KV
    /// pages as it grows: of [`PAGE_TOKENS`](orcd_shared::kv::PAGE_TOKENS) positions, with the first token of each.
    ///
    /// # Errors
    /// `Invalid` if one is open there.
    fn open(&mut self, slot: u32, max_tokens: u32) -> Result<(), EngineError>;

    /// Begins a sequence likewise that is to have `tokens`, of which those that are in pages already need not be
    /// processed: so many of its first ones, never all.
    ///
    /// # Errors
    /// As [`StepEngine::open`]; `Device` if pages or their ledger can't be read.
    fn open_for(
        &mut self,
        slot: u32,
        max_tokens: u32,
        _owner: Owner,
        _tokens: &[u32],
    ) -> Result<u32, EngineError> {
        self.open(slot, max_tokens).map(|()| 0)
    }

    /// These jobs are opened next, if nothing is wrong with them: what can be done for all at once is done now.
    ///
    /// # Errors
    /// `Device` if pages or their ledger can't be read.
    fn expect(&mut self, _jobs: &[Coming<'_>]) -> Result<(), EngineError> {
        Ok(())
    }

    /// Ends the sequence in `slot`.
    ///
    /// # Errors
    /// `Invalid` if none is open there.
    fn close(&mut self, slot: u32) -> Result<(), EngineError>;

    /// Begins a step that processes all runs of `batch` as one. A GPU is at work when this returns, so that
    /// the caller can do something else meanwhile; the CPU does all of it in [`StepEngine::finish`]. No other
    /// call may come before that one.
    ///
    /// # Errors
    /// Of the step as a whole, which is over then; `OutOfMemory` if it needs more KV pages than are free.
    fn begin(&mut self, batch: &StepBatch) -> Result<(), EngineError>;

    /// Ends the step that was begun with this batch, whose masks may have been filled meanwhile; what was
    /// sampled, in the order of its samples: a token or [`BROKEN_LOGITS`] each.
    ///
    /// # Errors
    /// Of the step as a whole: none of its tokens may be used.
    fn finish(&mut self, batch: &StepBatch) -> Result<&[Sampled], EngineError>;

    /// Both, one after the other.
    ///
    /// # Errors
    /// As theirs.
    fn run(&mut self, batch: &StepBatch) -> Result<&[Sampled], EngineError> {
        self.begin(batch)?;
        self.finish(batch)
    }

    /// The pool that this engine has mapped is its own from now on.
    ///
    /// # Errors
    /// `Device` if its ledger can't be read or written.
    fn take_over(&mut self, _serve: Serve) -> Result<(), EngineError> {
        Ok(())
    }

    /// Nobody else can be writing to the pool any more.
    ///
    /// # Errors
    /// As [`StepEngine::take_over`].
    fn settled(&mut self) -> Result<(), EngineError> {
        Ok(())
    }

    /// There is nothing to do: what was left for the next step is done now.
    ///
    /// # Errors
    /// `Device`.
    fn rest(&mut self) -> Result<(), EngineError> {
        Ok(())
    }

    /// What KV pages are in use for.
    fn counts(&self) -> PageCounts;

    /// KV pages that all sequences together may come to hold, one that several share counted for each of them. Fewer than
    /// there are while some can't be used.
    fn capacity(&self) -> u32;

    /// Whether every buffer is found to be device memory; false on the CPU.
    fn resident(&self) -> bool;
}
