//! One running job: its tokens in position order, and how far the engine is with them.

use std::sync::{Arc, Weak};

use orcd_shared::constraint::Constraint;
use orcd_shared::job::{JobKey, JobOptions, JobSpec};
use orcd_shared::protocol::message::StepToken;
use orcd_shared::sampling::SamplingParams;

use super::pages::Claim;
use super::rules::{self, Progress};
use super::step_batch::{MaskNumber, Wanted};
use super::step_engine::{EngineError, StepBatch};
use crate::constraint::Matcher;

/// A job in a slot. What it has to do next follows from two numbers: the tokens it has and those
/// the engine has processed. A prompt, a replayed prompt and a single drawn token differ only in
/// how many are pending.
#[derive(Debug)]
pub(super) struct Sequence {
    /// The job's name on the link.
    pub(super) key: JobKey,
    /// Where the engine keeps it.
    pub(super) slot: u32,
    /// Prompt, then replayed and drawn tokens.
    tokens: Vec<u32>,
    /// Tokens the engine has processed.
    processed: usize,
    /// Of these, how many it had when the job came.
    cached: usize,
    /// Tokens known before the first draw: prompt and replayed ones.
    given: usize,
    /// Tokens of the prompt alone: penalties for tokens of the output count those after them.
    prompt: usize,
    /// Index of the next token to be drawn.
    next_index: u32,
    max_tokens: u32,
    sampling: SamplingParams,
    options: JobOptions,
    guide: Guide,
}

/// What says which tokens may be drawn.
#[derive(Debug)]
pub(super) enum Guide {
    /// All may be.
    Free,
    /// It is being compiled, as long as somebody holds on to this.
    Awaited(Arc<()>),
    /// This one does.
    Matcher(Box<Matcher>),
}

/// Tokens behind the prompt that a job comes with. The last emitted one is left out: it is drawn again and reported, so
/// that the supervisor can compare it with the one that it sent.
pub(super) fn replayed(job: &JobSpec) -> &[u32] {
    &job.emitted[..job.emitted.len().saturating_sub(1)]
}

/// Tokens that a sequence has room for at first.
const ROOM: usize = 256;

impl Sequence {
    /// A job without a step yet.
    pub(super) fn new(mut job: JobSpec, slot: u32) -> Self {
        let prompt = job.prompt.len();
        let mut tokens = std::mem::take(&mut job.prompt);
        let replayed = replayed(&job);
        // Of a long prompt no more memory is taken than it needs: what is fresh costs as much as the copy.
        tokens.reserve_exact(replayed.len() + ROOM);
        tokens.extend_from_slice(replayed);
        let replayed = replayed.len();
        Self {
            key: job.key,
            slot,
            processed: 0,
            cached: 0,
            given: tokens.len(),
            prompt,
            tokens,
            next_index: u32::try_from(replayed).unwrap_or(u32::MAX),
            max_tokens: job.max_tokens,
            sampling: job.sampling,
            guide: match job.options.constraint {
                Some(_) => Guide::Awaited(Arc::new(())),
                None => Guide::Free,
            },
            options: job.options,
        }
    }

    /// All its tokens by now.
    pub(super) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// So many of its first tokens, but not all, need not be processed.
    pub(super) fn skip(&mut self, tokens: usize) {
        self.cached = tokens.min(self.tokens.len().saturating_sub(1));
        self.processed = self.cached;
    }

    /// Whether no step has moved it on yet.
    pub(super) fn is_untouched(&self) -> bool {
        self.processed == self.cached
    }

    /// What it claims of the KV memory: room for all its tokens, also for those of a prompt that is only begun.
    pub(super) fn claim(&self) -> Claim {
        Claim {
            key: self.key,
            tokens: self.tokens.len(),
        }
    }

    /// What it claims as long as it does not move on.
    pub(super) fn held(&self) -> Claim {
        Claim {
            key: self.key,
            tokens: self.processed,
        }
    }

    /// Tokens not processed yet, at least 1.
    pub(super) fn pending(&self) -> usize {
        self.tokens.len() - self.processed
    }

    /// The constraint of its output, and the tokens that the output has by now.
    pub(super) fn constraint(&self) -> Option<(&Constraint, &[u32])> {
        let constraint = self.options.constraint.as_ref()?;
        let prompt = self.tokens.len().saturating_sub(self.next_index as usize);
        Some((constraint, &self.tokens[prompt..]))
    }

    /// Lives as long as the job waits for its constraint.
    pub(super) fn wait(&self) -> Weak<()> {
        match &self.guide {
            Guide::Awaited(wait) => Arc::downgrade(wait),
            Guide::Free | Guide::Matcher(_) => Weak::new(),
        }
    }

    /// Whether it waits for its constraint.
    pub(super) fn waits(&self) -> bool {
        matches!(self.guide, Guide::Awaited(_))
    }

    /// What says which tokens may be drawn.
    pub(super) fn guide(&mut self) -> &mut Guide {
        &mut self.guide
    }

    /// Tokens that a step may take: all that are pending, but for the one whose draw has to wait for its constraint.
    pub(super) fn ready(&self) -> usize {
        self.pending() - usize::from(self.waits())
    }

    /// Adds the next `take` tokens to a step, which samples if that leaves nothing pending; the mask of that draw, if
    /// it needs one: it is to be filled while the step runs.
    pub(super) fn add_to(
        &self,
        batch: &mut StepBatch,
        take: usize,
    ) -> Result<Option<MaskNumber>, EngineError> {
        let end = self.processed + take;
        // The context is a u32 and no sequence is longer.
        let position = |n| u32::try_from(n).unwrap_or(u32::MAX);
        let start = position(self.processed);
        batch.add_run(self.slot, start, &self.tokens[self.processed..end])?;
        batch.begin_output(position(self.prompt));
        if end < self.tokens.len() {
            return Ok(None);
        }
        let mask = match &self.guide {
            Guide::Matcher(matcher) => Some(batch.reserve_mask(matcher.mask_words())),
            Guide::Free | Guide::Awaited(_) => None,
        };
        let biases = batch.add_biases(self.options.logit_bias.entries());
        batch.sample_last(Wanted {
            mask,
            biases,
            top_logprobs: self.options.top_logprobs,
            ..self.sampling.into()
        })?;
        Ok(mask)
    }

    /// How many of the most likely tokens' logprobs it wants beside the drawn one's; `None` if it wants none.
    pub(super) fn top_logprobs(&self) -> Option<u32> {
        self.options.top_logprobs
    }

    /// The position of the token that is drawn when nothing is pending.
    pub(super) fn draws_at(&self) -> usize {
        self.tokens.len()
    }

    /// Takes the result of a step with `take` of its tokens: how many were given ones, and the
    /// sampled token if none is pending any more.
    pub(super) fn advance(
        &mut self,
        take: usize,
        sampled: Option<u32>,
        end_tokens: &[u32],
        context: u32,
    ) -> (usize, Option<StepToken>) {
        let given = self.given.saturating_sub(self.processed).min(take);
        self.processed += take;
        let Some(id) = sampled else {
            return (given, None);
        };
        self.tokens.push(id);
        let index = self.next_index;
        self.next_index += 1;
        let at = Progress {
            generated: self.next_index,
            max_tokens: self.max_tokens,
            positions: self.tokens.len(),
            context,
        };
        let end_tokens = if self.options.ignore_end {
            &[]
        } else {
            end_tokens
        };
        let finish = rules::finish(id, end_tokens, at);
        if let (Guide::Matcher(matcher), None) = (&mut self.guide, finish) {
            matcher.accept(id);
        }
        (
            given,
            Some(StepToken {
                key: self.key,
                index,
                id,
                finish,
            }),
        )
    }
}
