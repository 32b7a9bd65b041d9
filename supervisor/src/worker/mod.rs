//! The worker process: its life ([`lifecycle`], decided purely), the process itself ([`process`]),
//! the link to it ([`link`]), the memory that outlives it ([`handles`]) and what a new one gets
//! about jobs of the old ([`replay`]).
//!
//! [`fleet`] is all of it taken together, and all that the dispatcher sees. It sees processes through
//! [`WorkerHost`] and a stream of [`WorkerReport`]s, so that it can be tested without any.

pub mod backoff;
pub mod fleet;
#[allow(unsafe_code)]
pub mod handles;
pub mod host;
pub mod lifecycle;
pub mod link;
pub mod model_file;
pub mod process;
pub mod question;
pub mod replay;
pub mod retained;
pub mod runtime_dir;
mod stderr;
mod worker_task;

use orcd_shared::protocol::message::{ToSupervisor, ToWorker, WorkerInfo};
use tokio::sync::mpsc;

use handles::{Handover, PoolHandle, WeightsHandle};
use process::WorkerExit;

/// Events of workers that may wait for the dispatcher. It never waits for anything itself, so this
/// is a burst and not a queue.
pub const EVENT_CAPACITY: usize = 1024;

/// What happened to a worker.
#[derive(Debug)]
pub struct WorkerReport {
    /// Which worker: counts from 1. Events of a worker that was given up are recognized by it.
    pub generation: u64,
    /// What happened.
    pub event: WorkerEvent,
}

/// Events in the order in which they can come. After [`WorkerEvent::SpawnFailed`] or
/// [`WorkerEvent::Exited`] nothing more comes from that worker.
#[derive(Debug)]
pub enum WorkerEvent {
    /// The process runs.
    Spawned {
        /// Its process id.
        pid: u32,
    },
    /// There is no process.
    SpawnFailed {
        /// Why, and what to do.
        message: String,
    },
    /// The socket is up and both sides speak one protocol.
    Connected,
    /// The process is no worker of ours, or did not connect in time.
    HandshakeFailed {
        /// Why, and what to do.
        message: String,
    },
    /// The model file was looked at for a worker that waits for its load request.
    Looked(
        /// Where the worker finds it, or why no worker gets a load request.
        Result<String, String>,
    ),
    /// The worker takes jobs.
    Ready {
        /// Its account of itself.
        info: Box<WorkerInfo>,
        /// The weights to hold from now on, in place of those held before.
        weights: Option<WeightsHandle>,
        /// Its pool of KV memory, if that can outlive it.
        pool: Option<PoolHandle>,
    },
    /// Any other message.
    Message(ToSupervisor),
    /// It was found not to react, make progress or take its messages.
    Hung {
        /// How that was found.
        message: String,
    },
    /// The socket is closed or broken; the process may still run.
    LinkLost {
        /// What was seen.
        message: String,
    },
    /// The last lines that the process wrote for people; just before [`WorkerEvent::Exited`].
    LastLines(Vec<String>),
    /// The process has ended and was reaped. Everything it sent came before this.
    Exited(WorkerExit),
}

/// Where workers come from and how to reach them. No method waits.
pub trait WorkerHost: Send + 'static {
    /// Begins to start worker number `generation`; what comes of it arrives as events.
    fn spawn(&mut self, generation: u64);

    /// Queues a message, what is handed over ahead of it on the descriptor channel. For a worker
    /// that is gone it does nothing; an event says so.
    ///
    /// # Errors
    /// [`LinkClogged`]; the worker is then to be treated as hung.
    fn send(
        &mut self,
        generation: u64,
        message: ToWorker,
        handover: Handover,
    ) -> Result<(), LinkClogged>;

    /// SIGUSR1: abandon the work under way, for a cancellation waits. A worker that is not there
    /// (yet) is not signaled.
    fn interrupt(&mut self, generation: u64);

    /// SIGKILL. When this returns it was sent, unless the process has yet to be created: then it is
    /// sent as soon as there is one. Safe to repeat.
    fn kill(&mut self, generation: u64);
}

/// The worker does not read its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the worker does not take its messages")]
pub struct LinkClogged;

/// Where a host reports.
pub type EventSender = mpsc::Sender<WorkerReport>;
