//! Jobs from admission to their last event. HTTP handlers see only [`JobsHandle`]: they submit,
//! cancel, resume and read snapshots; one actor task ([`dispatcher`]) owns everything that changes.

pub mod admission;
mod digest;
pub mod dispatcher;
mod event;
pub(crate) mod event_log;
pub mod journal;
mod name;
mod pages;
mod resumption;
mod table;

use std::sync::Arc;
use std::time::{Duration, Instant};

use orcd_shared::error::ErrorCode;
use orcd_shared::job::{JobKey, JobOptions};
use orcd_shared::sampling::SamplingParams;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};
use utoipa::ToSchema;

pub use crate::snapshot::{KvPages, ServiceState, Snapshot, Standby};
pub use digest::{Identity, prompt_hash};
pub use event::{JobEvent, Numbered, StopReason, TopLogprob};
pub use event_log::EventReader;
pub use name::{JobName, Owner};
pub use resumption::{BeyondEnd, Resumption};

pub use crate::worker::fleet::Killed;

use crate::text::Tokenizer;

/// A validated request with its prompt in tokens.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// The client's name for it, unique among its owner's jobs in flight.
    pub job_id: String,
    /// Whose it is.
    pub owner: Owner,
    /// The request that it belongs to, which may have several; its name cancels them all.
    pub request: Box<str>,
    /// The model's name, for the stream's first event.
    pub model: Box<str>,
    /// Prompt token ids, at least one.
    pub prompt: Vec<u32>,
    /// What turns its output into text.
    pub tokenizer: Arc<Tokenizer>,
    /// Most tokens to generate, cut to what the context leaves; `None` is all of that.
    pub max_tokens: Option<u32>,
    /// How to draw; the seed is already chosen.
    pub sampling: SamplingParams,
    /// What else the worker is to do.
    pub options: JobOptions,
    /// Stop sequences, at most four.
    pub stop: Vec<String>,
    /// Past this instant the job ends with `INFERENCE_TIMEOUT`.
    pub deadline: Instant,
    /// Go on without a reader, and keep the events for [`JobsHandle::resume`].
    pub continue_on_disconnect: bool,
    /// For logs.
    pub correlation_id: String,
    /// What another service has to agree with to go on with it.
    pub identity: Identity,
    /// Output that the client has already, if another service began it.
    pub resumption: Option<Resumption>,
}

/// A reader's end of a job. Dropping it reports to the dispatcher that the reader went away.
#[derive(Debug)]
pub struct JobStream {
    /// It ends after the terminal event. It ends without one when the job's events were given up to
    /// make room for others.
    pub events: EventReader,
    key: JobKey,
    /// Where it is reported that a reader of a job went away.
    disconnects: mpsc::UnboundedSender<JobKey>,
}

impl JobStream {
    /// A stream whose end is reported through `disconnects`.
    pub(crate) fn new(
        key: JobKey,
        events: EventReader,
        disconnects: mpsc::UnboundedSender<JobKey>,
    ) -> Self {
        Self {
            events,
            key,
            disconnects,
        }
    }
}

// Also keeps `events` from being moved out of the stream, which would leave its disconnect unreported.
impl Drop for JobStream {
    fn drop(&mut self) {
        // Unbounded, so that dropping never waits; there is one of these per stream. A dispatcher
        // that is gone has no jobs left to cancel.
        let _ = self.disconnects.send(self.key);
    }
}

/// Why there is no stream to resume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoStream {
    /// No job of that name keeps its events.
    Unknown,
    /// The job has ended, and the reader has all its events.
    Complete,
    /// The reader claims to have an event that there never was.
    Ahead {
        /// How many events there were so far; their ids count from 0.
        events: u64,
    },
    /// The job has as many readers as it may have.
    Crowded {
        /// How many.
        readers: usize,
    },
}

/// Why a job was not taken.
#[derive(Debug, Clone, PartialEq)]
pub struct Rejection {
    /// `JOB_EXISTS`, `QUEUE_FULL`, `DRAINING`, `WORKER_UNAVAILABLE`, `CONTEXT_LENGTH_EXCEEDED`,
    /// `FINGERPRINT_MISMATCH`; `INVALID_REQUEST` for a resumption that goes on after the output's end.
    pub code: ErrorCode,
    /// With the values that matter.
    pub message: String,
    /// When to try again.
    pub retry_after: Option<Duration>,
}

/// Answer to a cancellation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum CancelStatus {
    /// The job was in flight; its stream has its `CANCELLED` already.
    Cancelling,
    /// No such job in flight.
    Unknown,
}

/// What HTTP handlers hold. Cheap to clone.
#[derive(Debug, Clone)]
pub struct JobsHandle {
    commands: mpsc::Sender<Command>,
    snapshot: watch::Receiver<Arc<Snapshot>>,
}

/// Requests to the dispatcher.
#[derive(Debug)]
pub(crate) enum Command {
    Submit {
        jobs: Vec<NewJob>,
        reply: oneshot::Sender<Result<Vec<JobStream>, Rejection>>,
    },
    Cancel {
        job: JobName,
        reply: oneshot::Sender<CancelStatus>,
    },
    Resume {
        job: JobName,
        after: Option<u64>,
        reply: oneshot::Sender<Result<JobStream, NoStream>>,
    },
    KillWorker {
        reply: oneshot::Sender<Option<Killed>>,
    },
    Ping {
        reply: oneshot::Sender<()>,
    },
    Drain,
    Abort,
}

impl NewJob {
    /// What it is called, and by whom.
    #[must_use]
    pub fn name(&self) -> JobName {
        JobName {
            owner: self.owner,
            name: self.job_id.clone(),
        }
    }
}

impl JobsHandle {
    /// Hands a job over. Its stream yields `Started` once it runs.
    ///
    /// # Errors
    /// A [`Rejection`]; nothing of the job is kept then.
    pub async fn submit(&self, job: NewJob) -> Result<JobStream, Rejection> {
        let streams = self.submit_all(vec![job]).await?;
        // There is one for each job.
        streams.into_iter().next().ok_or_else(Rejection::stopped)
    }

    /// Hands jobs over that are taken together or not at all: a stream for each, in their order.
    ///
    /// # Errors
    /// A [`Rejection`]; nothing of the jobs is kept then.
    pub async fn submit_all(&self, jobs: Vec<NewJob>) -> Result<Vec<JobStream>, Rejection> {
        let answer = self.ask(|reply| Command::Submit { jobs, reply }).await;
        answer.unwrap_or_else(|| Err(Rejection::stopped()))
    }

    /// Ends a job with `CANCELLED`; safe to repeat.
    pub async fn cancel(&self, job: JobName) -> CancelStatus {
        let answer = self.ask(|reply| Command::Cancel { job, reply }).await;
        answer.unwrap_or(CancelStatus::Unknown)
    }

    /// Another stream of a job started with `continue_on_disconnect`, after the event `after`.
    ///
    /// # Errors
    /// [`NoStream`].
    pub async fn resume(&self, job: JobName, after: Option<u64>) -> Result<JobStream, NoStream> {
        let resume = |reply| Command::Resume { job, after, reply };
        let answer = self.ask(resume).await;
        answer.unwrap_or(Err(NoStream::Unknown))
    }

    /// Kills the worker that serves, for a demonstration: jobs go on with the next one, and none is held to be the cause.
    /// `None`: none serves.
    pub async fn kill_worker(&self) -> Option<Killed> {
        self.ask(|reply| Command::KillWorker { reply })
            .await
            .flatten()
    }

    /// Waits until the dispatcher has come to answer. `false`: it has ended.
    pub async fn ping(&self) -> bool {
        self.ask(|reply| Command::Ping { reply }).await.is_some()
    }

    /// The dispatcher's answer; `None`: it has ended.
    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.ok()?;
        answer.await.ok()
    }

    /// Begins draining; safe to repeat.
    pub async fn drain(&self) {
        // A dispatcher that is gone has drained.
        let _ = self.commands.send(Command::Drain).await;
    }

    /// Ends the dispatcher at once: each stream gets its last event, workers are killed.
    pub async fn abort(&self) {
        // A dispatcher that is gone has ended.
        let _ = self.commands.send(Command::Abort).await;
    }

    /// The latest picture, without waiting for anybody.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.borrow().clone()
    }

    /// The latest picture and, to whoever waits for it, each later one.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshot.clone()
    }
}

impl Rejection {
    pub(crate) fn stopped() -> Self {
        Self {
            code: ErrorCode::Draining,
            message: "the service is stopping; send the job to another instance".into(),
            retry_after: Some(Duration::from_secs(5)),
        }
    }
}
