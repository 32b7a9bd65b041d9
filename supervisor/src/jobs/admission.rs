//! Whether a job is taken: a decision on plain values.

use std::time::Duration;

use orcd_shared::error::ErrorCode;

use super::{NewJob, Rejection, ServiceState, StopReason};
use crate::snapshot::Snapshot;

/// What the decision depends on besides the job.
#[derive(Debug, Clone)]
pub struct AdmissionContext {
    /// State of the service.
    pub state: ServiceState,
    /// Jobs that wait.
    pub queued: usize,
    /// Most jobs that may wait.
    pub queue_limit: usize,
    /// Bytes of the prompts that wait.
    pub queued_bytes: usize,
    /// Most bytes of prompts that may wait.
    pub queue_bytes: usize,
    /// Sequences that the worker could begin at once for jobs to come.
    pub free_slots: usize,
    /// Tokens of a sequence, prompt and output; 0 before a worker was ready.
    pub context: u32,
    /// Those of them that KV memory has for a job that is alone; the same where that holds a context.
    pub positions: u32,
}

/// A job that asks to be taken.
#[derive(Debug, Clone, Copy)]
pub struct Candidate {
    /// A job of its name is in flight.
    pub name_taken: bool,
    /// Tokens of its prompt.
    pub prompt_tokens: usize,
    /// Tokens to generate at most; `None` is what the context leaves.
    pub wanted: Option<u32>,
}

/// How long a job's output may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Tokens to generate at most.
    pub max_tokens: u32,
    /// The same as the job has it, whatever the context is: what a worker is told, for rotations may depend on it.
    pub asked: u32,
    /// The context left less than the job wanted: at the limit it ends with `CONTEXT_FULL`.
    pub by_context: bool,
}

impl Limit {
    /// Why an output ends that reaches it.
    #[must_use]
    pub fn reached(&self) -> StopReason {
        match self.by_context {
            true => StopReason::ContextFull,
            false => StopReason::MaxTokens,
        }
    }
}

/// Takes all of some jobs, or refuses them all.
///
/// # Errors
/// The rejection of the first that can't be taken beside those before it, as the client gets it.
pub fn decide(
    context: &AdmissionContext,
    candidates: &[Candidate],
) -> Result<Vec<Limit>, Rejection> {
    let mut context = context.clone();
    let decide_next = |candidate: &Candidate| {
        let limit = decide_one(&context, candidate)?;
        context.queued += 1;
        context.queued_bytes += prompt_bytes(candidate.prompt_tokens);
        Ok(limit)
    };
    candidates.iter().map(decide_next).collect()
}

fn decide_one(context: &AdmissionContext, job: &Candidate) -> Result<Limit, Rejection> {
    available(context.state)?;
    if job.name_taken {
        return Err(Rejection {
            code: ErrorCode::JobExists,
            message: "a job of this job_id is in flight; cancel it or choose another job_id".into(),
            retry_after: None,
        });
    }
    let limit = limit(context, job)?;
    room_to_wait(context, job.prompt_tokens)?;
    Ok(limit)
}

/// Whether a job's resumption, if it has one, is of the same output as this job's, which has this digest and this limit.
///
/// # Errors
/// The rejection, as the client gets it.
pub fn check_resumption(job: &NewJob, digest: &str, limit: Limit) -> Result<(), Rejection> {
    let Some(resumption) = &job.resumption else {
        return Ok(());
    };
    let reject = |code, message: String| {
        Err(Rejection {
            code,
            message,
            retry_after: None,
        })
    };
    if *resumption.request_digest != *digest {
        let message = format!(
            "resume.request_digest is of another request than this one, which has {digest} here: send the same body, \
             with the seed and template_time of `started`, or go on at a service with the same --context and \
             --max-tokens-out"
        );
        return reject(ErrorCode::FingerprintMismatch, message);
    }
    if resumption.exceeds(limit) {
        let message = format!(
            "resume.ids goes on after the end of the output, which has at most {} tokens",
            limit.max_tokens
        );
        return reject(ErrorCode::InvalidRequest, message);
    }
    Ok(())
}

fn prompt_bytes(prompt_tokens: usize) -> usize {
    prompt_tokens * size_of::<u32>()
}

fn room_to_wait(s: &AdmissionContext, prompt_tokens: usize) -> Result<(), Rejection> {
    let bytes = s.queued_bytes + prompt_bytes(prompt_tokens);
    if !has_capacity(s.queued, s.queue_limit, s.free_slots) {
        return Err(queue_full(s.queued, s.queue_limit));
    }
    if s.queued < s.free_slots || bytes <= s.queue_bytes {
        return Ok(());
    }
    Err(no_room(format!(
        "the prompts of {} jobs that are waiting take {} bytes, {prompt_tokens} more tokens do not \
         fit into the {} that the queue holds",
        s.queued, s.queued_bytes, s.queue_bytes
    )))
}

/// Refuses what [`decide`] would refuse whatever the job is, from the picture that was published
/// last.
///
/// # Errors
/// The rejection, as the client gets it.
pub fn foresee(snapshot: &Snapshot, queue_limit: usize) -> Result<(), Rejection> {
    available(snapshot.state)?;
    if has_room(snapshot, queue_limit) {
        return Ok(());
    }
    Err(queue_full(snapshot.queued as usize, queue_limit))
}

/// Whether the queue, or a free slot, would take another job.
#[must_use]
pub fn has_room(snapshot: &Snapshot, queue_limit: usize) -> bool {
    let (queued, free_slots) = (snapshot.queued as usize, snapshot.free_slots as usize);
    has_capacity(queued, queue_limit, free_slots)
}

fn has_capacity(queued: usize, queue_limit: usize, free_slots: usize) -> bool {
    queued < queue_limit + free_slots
}

fn queue_full(queued: usize, queue_limit: usize) -> Rejection {
    no_room(format!(
        "{queued} jobs are waiting, the queue holds {queue_limit}"
    ))
}

fn no_room(what: String) -> Rejection {
    Rejection {
        code: ErrorCode::QueueFull,
        message: format!("{what}; try again or send it elsewhere"),
        retry_after: Some(Duration::from_secs(1)),
    }
}

fn available(state: ServiceState) -> Result<(), Rejection> {
    let (code, message, seconds) = match state {
        ServiceState::Ready | ServiceState::Recovering => return Ok(()),
        ServiceState::Starting { percent } => {
            let message = format!("the model is being loaded ({percent} %)");
            (ErrorCode::WorkerUnavailable, message, 2)
        }
        ServiceState::Unhealthy => {
            let message = "the worker keeps crashing; send the job to another instance".into();
            (ErrorCode::WorkerUnavailable, message, 10)
        }
        ServiceState::Draining => return Err(Rejection::stopped()),
    };
    Err(Rejection {
        code,
        message,
        retry_after: Some(Duration::from_secs(seconds)),
    })
}

/// What a job may have at most is the context, or the pool where that is smaller: whoever asked for more by name was
/// refused with the request ([`crate::http`]).
fn limit(s: &AdmissionContext, job: &Candidate) -> Result<Limit, Rejection> {
    let prompt = u32::try_from(job.prompt_tokens).unwrap_or(u32::MAX);
    let (context, positions) = (s.context, s.positions.min(s.context));
    let room = positions.saturating_sub(prompt);
    if room == 0 {
        let holder = if positions < context {
            "KV memory"
        } else {
            "the context"
        };
        return Err(Rejection {
            code: ErrorCode::ContextLengthExceeded,
            message: format!(
                "the prompt has {} tokens, {holder} holds {positions}, at least one of them for \
                 output; shorten the prompt",
                job.prompt_tokens
            ),
            retry_after: None,
        });
    }
    Ok(Limit {
        max_tokens: job.wanted.map_or(room, |wanted| wanted.clamp(1, room)),
        asked: job.wanted.map_or(u32::MAX, |wanted| wanted.max(1)),
        by_context: job.wanted.is_none_or(|wanted| room < wanted),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> AdmissionContext {
        AdmissionContext {
            state: ServiceState::Ready,
            queued: 0,
            queue_limit: 2,
            queued_bytes: 0,
            queue_bytes: 1 << 20,
            free_slots: 0,
            context: 100,
            positions: 100,
        }
    }

    fn job(prompt_tokens: usize, wanted: Option<u32>) -> Candidate {
        Candidate {
            name_taken: false,
            prompt_tokens,
            wanted,
        }
    }

    fn decide(
        s: &AdmissionContext,
        prompt: usize,
        wanted: Option<u32>,
    ) -> Result<Limit, Rejection> {
        super::decide(s, &[job(prompt, wanted)]).map(|limits| limits[0])
    }

    fn code(s: &AdmissionContext) -> ErrorCode {
        decide(s, 10, None).unwrap_err().code
    }

    #[test]
    fn only_ready_and_recovering_take_jobs() {
        let with = |state| AdmissionContext { state, ..context() };
        assert!(decide(&with(ServiceState::Recovering), 10, None).is_ok());
        for state in [
            ServiceState::Starting { percent: 3 },
            ServiceState::Unhealthy,
        ] {
            let rejection = decide(&with(state), 10, None).unwrap_err();
            assert_eq!(rejection.code, ErrorCode::WorkerUnavailable);
            assert!(rejection.retry_after.is_some());
        }
        assert_eq!(code(&with(ServiceState::Draining)), ErrorCode::Draining);
    }

    #[test]
    fn free_slots_count_as_room_beside_the_queue() {
        let full = AdmissionContext {
            queued: 2,
            ..context()
        };
        assert_eq!(code(&full), ErrorCode::QueueFull);
        assert!(
            decide(
                &AdmissionContext {
                    free_slots: 1,
                    ..full
                },
                10,
                None
            )
            .is_ok()
        );
        let no_queue = AdmissionContext {
            queue_limit: 0,
            free_slots: 1,
            ..context()
        };
        assert!(decide(&no_queue, 10, None).is_ok());
    }

    #[test]
    fn prompts_that_wait_are_bounded_in_bytes() {
        let nearly_full = AdmissionContext {
            queued: 1,
            queued_bytes: (1 << 20) - 40,
            ..context()
        };
        assert!(decide(&nearly_full, 10, None).is_ok());
        assert_eq!(
            decide(&nearly_full, 11, None).unwrap_err().code,
            ErrorCode::QueueFull
        );
        // What begins at once does not wait.
        let slots = AdmissionContext {
            free_slots: 2,
            ..nearly_full
        };
        assert!(decide(&slots, 11, None).is_ok());
    }

    #[test]
    fn names_in_flight_are_refused_before_the_queue_is_looked_at() {
        let full = AdmissionContext {
            queued: 9,
            ..context()
        };
        let taken = Candidate {
            name_taken: true,
            ..job(10, None)
        };
        let refusal = super::decide(&full, &[taken]).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::JobExists);
    }

    #[test]
    fn jobs_are_taken_together_or_not_at_all() {
        let two = [job(10, None); 2];
        assert_eq!(super::decide(&context(), &two).unwrap().len(), 2);
        let refusal = super::decide(&context(), &[job(10, None); 3]).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::QueueFull);
        let bytes = AdmissionContext {
            queue_limit: 9,
            queue_bytes: 79,
            ..context()
        };
        assert!(super::decide(&bytes, &two[..1]).is_ok());
        assert_eq!(
            super::decide(&bytes, &two).unwrap_err().code,
            ErrorCode::QueueFull
        );
    }

    #[test]
    fn output_is_cut_to_a_pool_that_is_smaller_than_the_context() {
        let small = AdmissionContext {
            positions: 64,
            ..context()
        };
        let limit = decide(&small, 10, None).unwrap();
        assert_eq!((limit.max_tokens, limit.by_context), (54, true));
        let rejection = decide(&small, 64, Some(1)).unwrap_err();
        assert_eq!(rejection.code, ErrorCode::ContextLengthExceeded);
        assert!(
            rejection.message.contains("KV memory holds 64"),
            "{}",
            rejection.message
        );
    }

    #[test]
    fn output_is_cut_to_the_context() {
        let cut = |prompt, wanted| decide(&context(), prompt, wanted).unwrap();
        assert_eq!(
            cut(10, None),
            Limit {
                max_tokens: 90,
                asked: u32::MAX,
                by_context: true
            }
        );
        assert_eq!(
            cut(10, Some(7)),
            Limit {
                max_tokens: 7,
                asked: 7,
                by_context: false
            }
        );
        assert_eq!(
            cut(90, Some(10)),
            Limit {
                max_tokens: 10,
                asked: 10,
                by_context: false
            }
        );
        assert_eq!(
            cut(90, Some(11)),
            Limit {
                max_tokens: 10,
                asked: 11,
                by_context: true
            }
        );
        assert_eq!(
            cut(99, None),
            Limit {
                max_tokens: 1,
                asked: u32::MAX,
                by_context: true
            }
        );
        let rejection = decide(&context(), 100, Some(1)).unwrap_err();
        assert_eq!(rejection.code, ErrorCode::ContextLengthExceeded);
        assert!(
            rejection.message.contains("100 tokens"),
            "{}",
            rejection.message
        );
    }
}
