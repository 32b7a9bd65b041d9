//! What a job must be to be taken, and when it is done. Pure.

use orcd_shared::error::ErrorCode;
use orcd_shared::job::{Finish, JobSpec, MAX_TOP_LOGPROBS};

use super::Limits;

/// Why a job is not taken, as the client sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The code.
    pub code: ErrorCode,
    /// What is wrong, with which value.
    pub message: String,
}

impl Rejection {
    pub(super) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// Of a job that only a supervisor out of step with this worker sends.
    pub(super) fn of_supervisor(message: String) -> Self {
        Self::new(ErrorCode::Internal, message)
    }
}

/// Checks everything the engine relies on, so that a bad job never reaches it: there a broken
/// precondition would end the process for everybody.
///
/// What a client can get wrong is its own error; what only a supervisor out of step with this
/// worker's model can get wrong is `INTERNAL`.
///
/// # Errors
/// The first thing wrong with the job.
pub fn check(job: &JobSpec, limits: &Limits) -> Result<(), Rejection> {
    let positions = limits.positions() as usize;
    if job.prompt.is_empty() {
        return Err(Rejection::new(
            ErrorCode::InvalidRequest,
            "the prompt holds no token",
        ));
    }
    if job.max_tokens == 0 {
        return Err(Rejection::new(
            ErrorCode::InvalidRequest,
            "max_tokens is 0; ask for at least 1",
        ));
    }
    // What the engine refuses costs the process.
    if let Some(fault) = job.sampling.first_fault() {
        return Err(Rejection::new(ErrorCode::InvalidRequest, fault.to_string()));
    }
    if let Some(wanted) = job.options.top_logprobs.filter(|&n| n > MAX_TOP_LOGPROBS) {
        return Err(Rejection::new(
            ErrorCode::InvalidRequest,
            format!(
                "the logprobs of {wanted} tokens are wanted; at most {MAX_TOP_LOGPROBS} are given"
            ),
        ));
    }
    if let Some(fault) = job.options.logit_bias.first_fault(limits.vocab_size) {
        return Err(Rejection::new(ErrorCode::InvalidRequest, fault.to_string()));
    }
    if job.prompt.len() >= positions {
        let of = match limits.context as usize {
            context if context == positions => "context",
            _ => "KV memory",
        };
        return Err(Rejection::new(
            ErrorCode::ContextLengthExceeded,
            format!(
                "prompt of {} tokens leaves no room in {positions} of {of}",
                job.prompt.len()
            ),
        ));
    }
    if job.emitted.len() > job.max_tokens as usize
        || job.prompt.len() + job.emitted.len() > positions
    {
        return Err(Rejection::of_supervisor(format!(
            "replay of {} tokens after a prompt of {} is longer than max_tokens {} or the {positions} positions there are",
            job.emitted.len(),
            job.prompt.len(),
            job.max_tokens
        )));
    }
    let mut ids = job.prompt.iter().chain(&job.emitted);
    if let Some(id) = ids.find(|&&id| id >= limits.vocab_size) {
        return Err(Rejection::of_supervisor(format!(
            "token id {id} is outside the vocabulary of {}",
            limits.vocab_size
        )));
    }
    Ok(())
}

/// Where a sequence stands after a draw.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Tokens generated so far, the drawn one included.
    pub generated: u32,
    /// Most tokens to generate.
    pub max_tokens: u32,
    /// Positions taken: prompt and generated, the drawn one included.
    pub positions: usize,
    /// Positions there are.
    pub context: u32,
}

/// Whether the drawn token is the job's last. Prompt and output together take at most `context`
/// positions, so the token on the last position ends the job. When several ends meet, the one
/// that says most about the text wins: an end token, then the client's own limit, then the
/// context.
#[must_use]
pub fn finish(id: u32, end_tokens: &[u32], at: Progress) -> Option<Finish> {
    if end_tokens.contains(&id) {
        Some(Finish::Eos)
    } else if at.generated >= at.max_tokens {
        Some(Finish::MaxTokens)
    } else if at.positions >= at.context as usize {
        Some(Finish::ContextFull)
    } else {
        None
    }
}
