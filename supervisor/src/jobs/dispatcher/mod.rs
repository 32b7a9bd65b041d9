//! The one task that owns the table of jobs, the fleet of workers and the published [`Snapshot`], and
//! passes between them what happens: a command, a worker's event, a reader's disconnect or the passing
//! of time, one after the other. Nothing here waits: the one thing that it shares with readers, a
//! job's log of events, is locked for as long as it takes to add or take one.

mod bounds;
mod crash;
mod publisher;
mod state;
mod submit;
mod workers;

use std::collections::HashMap;
use std::future::ready;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use orcd_shared::error::ErrorCode;
use orcd_shared::job::JobKey;
use tokio::sync::{mpsc, oneshot, watch as watch_channel};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::table::JobTable;
use super::{Command, JobsHandle, Snapshot};
use crate::crash_dir::CrashDir;
use crate::metrics::Metrics;
use crate::worker::fleet::Fleet;
pub use crate::worker::fleet::{FleetSettings, Timing};
use crate::worker::host::ProcessHost;
pub use crate::worker::lifecycle::{Outcome, Policy};
use crate::worker::process::worker_binary;
use crate::worker::{EVENT_CAPACITY, EventSender, WorkerHost, WorkerReport};
pub use bounds::Bounds;
use publisher::Publisher;
use state::Dispatcher;

/// Commands that may wait. Handlers wait for room, so that a flood of requests slows down its
/// senders and not the tokens.
const COMMAND_CAPACITY: usize = 256;
/// Worker events taken at once before commands get their turn.
const EVENT_BATCH: usize = 64;

/// What the dispatcher gets at start.
#[derive(Debug, Clone)]
pub struct DispatcherSettings {
    /// The worker; `None` is `cuda-worker` beside this executable.
    pub worker_bin: Option<PathBuf>,
    /// Where the private directory for sockets is made; `None` is the session's runtime directory
    /// or the temporary one.
    pub runtime_dir: Option<PathBuf>,
    /// What the workers get, and what they may take.
    pub fleet: FleetSettings,
    /// Most jobs that wait.
    pub queue: usize,
    /// How long the events of an ended job are held for its readers.
    pub resume_ttl: Duration,
    /// How long running and queued jobs may take to finish once draining began.
    pub drain_timeout: Duration,
    /// Where crash bundles go; `None`: none are written.
    pub crash_dir: Option<CrashDir>,
    /// This build, for crash bundles.
    pub version: &'static str,
    /// What jobs and their readers may take of memory.
    pub bounds: Bounds,
}

/// The running dispatcher; resolves to how it ended. It ends after [`JobsHandle::drain`], when the
/// last handle is dropped, or when there can be no worker. Dropping this only forgets the outcome.
pub type DispatcherTask = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// Starts the service behind HTTP: the dispatcher and, through it, the first worker. To be called
/// within a runtime.
#[must_use]
pub fn start(settings: DispatcherSettings, metrics: Arc<Metrics>) -> (JobsHandle, DispatcherTask) {
    let binary = worker_binary(settings.worker_bin.as_deref());
    let base = settings.runtime_dir.clone();
    start_on(settings, metrics, |events| {
        ProcessHost::new(binary, base, events).map_err(|error| error.to_string())
    })
}

/// As [`start`], with workers from `host`.
pub fn start_on<H: WorkerHost>(
    settings: DispatcherSettings,
    metrics: Arc<Metrics>,
    host: impl FnOnce(EventSender) -> Result<H, String>,
) -> (JobsHandle, DispatcherTask) {
    let (commands, inbox) = mpsc::channel(COMMAND_CAPACITY);
    let (sender, events) = mpsc::channel(EVENT_CAPACITY);
    let (disconnects, disconnected) = mpsc::unbounded_channel();
    let (publisher, snapshot) = watch_channel::channel(Arc::<Snapshot>::default());
    let handle = JobsHandle { commands, snapshot };
    let host = match host(sender.clone()) {
        Ok(host) => host,
        Err(message) => {
            let code = ErrorCode::WorkerUnavailable;
            let outcome = Outcome::StartupFailed { code, message };
            return (handle, Box::pin(ready(outcome)));
        }
    };
    let dispatcher = Dispatcher {
        fleet: Fleet::new(settings.fleet.clone(), Arc::clone(&metrics), host, sender),
        settings,
        metrics,
        table: JobTable::default(),
        publisher: Publisher::new(publisher),
        disconnects,
        crashed_jobs: HashMap::new(),
        lost_at: None,
        drain_by: None,
        outcome: None,
        turned: None,
    };
    let task = tokio::spawn(run(dispatcher, inbox, events, disconnected));
    let end = async {
        task.await.unwrap_or_else(|error| Outcome::WorkerLost {
            message: format!("the dispatcher ended by a bug: {error}"),
        })
    };
    (handle, Box::pin(end))
}

/// An answer that waits until the snapshot shows what was done.
type Answer = Box<dyn FnOnce() + Send>;

/// Somebody who no longer waits gets nothing; a stream that comes back is dropped, which counts as
/// the reader's disconnect.
fn answer<T: Send + 'static>(reply: oneshot::Sender<T>, answer: T) -> Option<Answer> {
    Some(Box::new(move || drop(reply.send(answer))))
}

async fn run<H: WorkerHost>(
    mut dispatcher: Dispatcher<H>,
    mut commands: mpsc::Receiver<Command>,
    mut events: mpsc::Receiver<WorkerReport>,
    mut disconnected: mpsc::UnboundedReceiver<JobKey>,
) -> Outcome {
    let mut ticker = interval(dispatcher.settings.fleet.timing.tick);
    ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut batch = Vec::with_capacity(EVENT_BATCH);
    let mut abandoned = false;
    let now = dispatcher.turn();
    dispatcher.fleet.start(now);
    loop {
        let mut answer = None;
        tokio::select! {
            1.. = events.recv_many(&mut batch, EVENT_BATCH) => {
                let now = dispatcher.turn();
                for event in batch.drain(..) {
                    dispatcher.fleet.handle(event, now);
                    dispatcher.follow_fleet(now);
                }
            }
            command = commands.recv(), if !abandoned => {
                // Without handles nobody can ask for anything any more: the same as a drain.
                abandoned = command.is_none();
                let command = command.unwrap_or(Command::Drain);
                let now = dispatcher.turn();
                answer = dispatcher.command(command, now);
            }
            Some(key) = disconnected.recv() => {
                let now = dispatcher.turn();
                dispatcher.reader_left(key, now);
            }
            _ = ticker.tick() => {
                let now = dispatcher.turn();
                dispatcher.tick(now);
            }
        }
        dispatcher.advance(Instant::now().into_std());
        if let Some(answer) = answer {
            answer();
        }
        if let Some(outcome) = dispatcher.outcome.take() {
            return outcome;
        }
    }
}
