//! Jobs from admission to their last event. HTTP handlers see only [`JobsHandle`]: they submit,
//! cancel, resume and read snapshots; one actor task ([`dispatcher`]) owns everything that changes.

pub mod admission;
pub mod dispatcher;
mod event;
pub mod journal;

use std::sync::Arc;
use std::time::{Duration, Instant};

use orcd_shared::error::ErrorCode;
use orcd_shared::job::JobKey;
use orcd_shared::protocol::message::WorkerInfo;
use orcd_shared::sampling::SamplingParams;
use tokio::sync::{mpsc, oneshot, watch};

pub use event::{JobEvent, Numbered, StopReason};

/// A validated request with its prompt in tokens.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// The client's name for it, unique among jobs in flight.
    pub job_id: String,
    /// Prompt token ids, at least one.
    pub prompt: Vec<u32>,
    /// Most tokens to generate; `None` is the service's limit. Cut to what the context leaves.
    pub max_tokens: Option<u32>,
    /// How to draw; the seed is already chosen.
    pub sampling: SamplingParams,
    /// Stop sequences, at most four.
    pub stop: Vec<String>,
    /// Past this instant the job ends with `INFERENCE_TIMEOUT`.
    pub deadline: Instant,
    /// Go on without a reader, and keep the events for [`JobsHandle::resume`].
    pub continue_on_disconnect: bool,
    /// For logs.
    pub correlation_id: String,
}

/// A reader's end of a job. Dropping it tells the dispatcher that the reader went away.
#[derive(Debug)]
pub struct JobStream {
    /// Bounded; the dispatcher never waits for room in it. It ends after the terminal event, or
    /// without one when the reader was too slow for a job that goes on without readers, or when
    /// another reader took over.
    pub events: mpsc::Receiver<Numbered>,
    /// The reader has the terminal event already: that none comes is as it should be.
    pub complete: bool,
    departure: Departure,
    departures: mpsc::UnboundedSender<Departure>,
}

/// Which reader of which job went away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Departure {
    key: JobKey,
    reader: u64,
}

// Also keeps `events` from being moved out of the stream, which would leave its departure behind.
impl Drop for JobStream {
    fn drop(&mut self) {
        // Unbounded, so that dropping never waits; there is one of these per stream. A dispatcher
        // that is gone has no jobs left to cancel.
        let _ = self.departures.send(self.departure);
    }
}

/// Why a job was not taken.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// `JOB_EXISTS`, `QUEUE_FULL`, `DRAINING`, `WORKER_UNAVAILABLE`, `CONTEXT_LENGTH_EXCEEDED`.
    pub code: ErrorCode,
    /// With the values that matter.
    pub message: String,
    /// When to try again.
    pub retry_after: Option<Duration>,
}

/// Answer to a cancellation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelStatus {
    /// The job was in flight; its stream has its `CANCELLED` already.
    Cancelling,
    /// No such job in flight.
    Unknown,
}

/// The service as health endpoints report it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceState {
    /// The first worker is being started or loads the model.
    Starting {
        /// Loading progress.
        percent: u8,
    },
    /// A worker is ready.
    Ready,
    /// The worker died or hung; jobs are accepted and held.
    Recovering,
    /// Stopping: no new jobs.
    Draining,
    /// The worker can't be kept alive at present.
    Unhealthy,
}

/// A consistent picture of the service, published by the dispatcher after every change.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// What state the service is in.
    pub state: ServiceState,
    /// The present (or last) ready worker's account of itself.
    pub worker: Option<Arc<WorkerInfo>>,
    /// Process id of the present worker.
    pub worker_pid: Option<u32>,
    /// Counts workers spawned, from 1.
    pub generation: u64,
    /// Workers lost so far.
    pub restarts: u64,
    /// How the last lost worker ended: "signal 9 (SIGKILL)", "exit 12".
    pub last_exit: Option<String>,
    /// Jobs given to the worker.
    pub running: u32,
    /// Jobs waiting.
    pub queued: u32,
    /// A worker that holds running jobs has made no step for longer than its deadline.
    pub stalled: bool,
    /// The worker that waits behind the present one, or is on its way there.
    pub standby: Option<Standby>,
}

/// A worker that waits to take over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standby {
    /// Its process id, once there is a process.
    pub pid: Option<u32>,
    /// It could take over at once.
    pub ready: bool,
    /// Memory that it takes beside the shared weights, bytes; 0 before it is ready.
    pub memory_bytes: u64,
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
        job: Box<NewJob>,
        reply: oneshot::Sender<Result<JobStream, Refusal>>,
    },
    Cancel {
        job_id: String,
        reply: oneshot::Sender<CancelStatus>,
    },
    Resume {
        job_id: String,
        after: Option<u64>,
        reply: oneshot::Sender<Option<JobStream>>,
    },
    Ping {
        reply: oneshot::Sender<()>,
    },
    Drain,
}

impl JobsHandle {
    /// Hands a job over. Its stream yields `Queued` comments while it waits, then `Started`.
    ///
    /// # Errors
    /// A [`Refusal`]; nothing of the job is kept then.
    pub async fn submit(&self, job: NewJob) -> Result<JobStream, Refusal> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Submit {
            job: Box::new(job),
            reply,
        };
        if self.commands.send(command).await.is_err() {
            return Err(Refusal::stopped());
        }
        answer.await.unwrap_or_else(|_| Err(Refusal::stopped()))
    }

    /// Ends a job with `CANCELLED`; safe to repeat.
    pub async fn cancel(&self, job_id: String) -> CancelStatus {
        let (reply, answer) = oneshot::channel();
        if self
            .commands
            .send(Command::Cancel { job_id, reply })
            .await
            .is_err()
        {
            return CancelStatus::Unknown;
        }
        answer.await.unwrap_or(CancelStatus::Unknown)
    }

    /// The stream of a job started with `continue_on_disconnect`, behind the event `after`.
    /// `None`: no such job, or its events are no longer held.
    pub async fn resume(&self, job_id: String, after: Option<u64>) -> Option<JobStream> {
        let (reply, answer) = oneshot::channel();
        self.commands
            .send(Command::Resume {
                job_id,
                after,
                reply,
            })
            .await
            .ok()?;
        answer.await.ok().flatten()
    }

    /// Waits until the dispatcher has come to answer. `false`: it has ended.
    pub async fn ping(&self) -> bool {
        let (reply, answer) = oneshot::channel();
        let sent = self.commands.send(Command::Ping { reply }).await;
        sent.is_ok() && answer.await.is_ok()
    }

    /// Begins draining; safe to repeat.
    pub async fn drain(&self) {
        // A dispatcher that is gone has drained.
        let _ = self.commands.send(Command::Drain).await;
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

impl Refusal {
    fn stopped() -> Self {
        Self {
            code: ErrorCode::Draining,
            message: "the service is stopping; send the job to another instance".into(),
            retry_after: Some(Duration::from_secs(5)),
        }
    }
}
