//! What the supervisor asks of a worker for one job. Tokens in, tokens out: no text crosses.

use serde::{Deserialize, Serialize};

use crate::constraint::Constraint;
use crate::logit_bias::LogitBias;
use crate::sampling::SamplingParams;
use crate::token_ids;

/// Names a job between supervisor and worker. Given out by the supervisor, never used twice in
/// its lifetime, so that a late message of a cancelled job can't be taken for another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct JobKey(pub u64);

impl std::fmt::Display for JobKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// One job as the worker sees it, complete: submitting it again to a fresh worker, with the tokens
/// emitted so far, continues the same stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobSpec {
    /// The job's name on this link.
    pub key: JobKey,
    /// Prompt token ids, at least one.
    #[serde(with = "token_ids")]
    pub prompt: Vec<u32>,
    /// Tokens already generated before a crash. The worker processes all but the last as prompt,
    /// draws the last one again and reports it, so that the supervisor can compare (replay check).
    #[serde(with = "token_ids")]
    pub emitted: Vec<u32>,
    /// Tokens to generate in all, counted from the first, emitted ones included.
    pub max_tokens: u32,
    /// How to draw.
    pub sampling: SamplingParams,
    /// What else it wants.
    pub options: JobOptions,
}

/// What few jobs want.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct JobOptions {
    /// End tokens are tokens like others: only `max_tokens` and the context end the job.
    pub ignore_end: bool,
    /// Logprobs with each token: the drawn one's, and so many of the most likely ones', at most
    /// [`MAX_TOP_LOGPROBS`].
    pub top_logprobs: Option<u32>,
    /// What is added to the logits of some tokens. Crash files of older builds lack it.
    #[serde(default)]
    pub logit_bias: LogitBias,
    /// What the output has to be. Crash files of older builds lack it.
    #[serde(default)]
    pub constraint: Option<Constraint>,
    /// Who may use KV pages together with it. Crash files of older builds lack it.
    #[serde(default)]
    pub cache: CacheScope,
}

/// Whose sequences share pages of KV memory where they begin with the same tokens. It decides only about time, and time
/// can be measured: whoever shares learns what others have asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CacheScope {
    /// The job's alone: what it has computed is there for itself, should it have to begin again.
    #[default]
    Job,
    /// All jobs' with this salt; what they have computed is kept behind their ends.
    Salt([u8; 16]),
}

/// Most tokens whose logprobs come with a drawn one.
pub const MAX_TOP_LOGPROBS: u32 = 20;

impl JobSpec {
    /// Positions of the KV cache the job may use: prompt and output.
    #[must_use]
    pub fn max_positions(&self) -> u64 {
        self.prompt.len() as u64 + u64::from(self.max_tokens)
    }
}

/// Why a job stopped by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Finish {
    /// An end-of-generation token was drawn (it is the last token reported).
    Eos,
    /// `max_tokens` were generated.
    MaxTokens,
    /// The context is full.
    ContextFull,
}
