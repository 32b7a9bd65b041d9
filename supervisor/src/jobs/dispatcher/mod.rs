//! The one task that owns all jobs, the worker's life and the published [`Snapshot`]. Everything
//! that happens comes to it as a command, a worker's event, a reader's departure or the passing of
//! time, one after the other. Nothing here waits: the one thing that it shares with readers, a
//! job's log of events, is locked for as long as it takes to add or take one.

mod absence;
mod bounds;
mod crash;
mod crew;
mod look;
mod notices;
mod pulse;
mod recovery;
mod roster;
mod state;
mod submit;
mod tokens;
mod watch;

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use orcd_shared::error::ErrorCode;
use orcd_shared::protocol::message::LoadRequest;
use tokio::sync::{mpsc, oneshot, watch as watch_channel};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{CancelStatus, Command, Departure, JobStream, JobsHandle, NoStream, Refusal, Snapshot};
use crate::crash_dir::CrashDir;
use crate::metrics::Metrics;
use crate::worker::held::HeldWeights;
use crate::worker::host::ProcessHost;
pub use crate::worker::lifecycle::{Outcome, Policy};
use crate::worker::process::worker_binary;
use crate::worker::{EVENT_CAPACITY, EventSender, WorkerEvent, WorkerHost};
pub use bounds::Bounds;
use look::{Looked, Looker};
use state::{Dispatcher, Outputs};

/// Commands that may wait. Handlers wait for room, so that a flood of requests slows down its
/// senders and not the tokens.
const COMMAND_CAPACITY: usize = 256;
/// Worker events taken at once before commands get their turn.
const EVENT_BATCH: usize = 64;

/// What the dispatcher is told at start.
#[derive(Debug, Clone)]
pub struct DispatcherSettings {
    /// The worker; `None` is `cuda-worker` beside this executable.
    pub worker_bin: Option<PathBuf>,
    /// Where the private directory for sockets is made; `None` is the session's runtime directory
    /// or the temporary one.
    pub runtime_dir: Option<PathBuf>,
    /// What each worker is told. What workers before it left, and where the model lies by then, is
    /// filled in.
    pub load: LoadRequest,
    /// The weights held for workers; those in it at start are offered to the first one.
    pub held: HeldWeights,
    /// Most jobs that wait.
    pub queue: usize,
    /// Most tokens to generate for any job.
    pub max_tokens_out: u32,
    /// How long the events of an ended job are held for its readers.
    pub resume_ttl: Duration,
    /// How long running and queued jobs may take to finish once draining began.
    pub drain_timeout: Duration,
    /// Where crash bundles go; `None`: none are written.
    pub crash_dir: Option<CrashDir>,
    /// This build, for crash bundles.
    pub version: &'static str,
    /// Rules for losing workers.
    pub policy: Policy,
    /// Clocks of the dispatcher.
    pub timing: Timing,
    /// What jobs and their readers may take of memory.
    pub bounds: Bounds,
}

/// Intervals and limits; tests shorten them.
#[derive(Debug, Clone)]
pub struct Timing {
    /// How often deadlines and silences are looked at.
    pub tick: Duration,
    /// A ready worker that says nothing for this long is killed; it sends a heartbeat several times
    /// a second from a thread of its own. So is one whose engine makes no step for this long (or
    /// twenty of the slowest steps, if that is longer) with jobs running, and one that does not
    /// take a job it was sent.
    pub hang: Duration,
    /// How long a worker that loads may say nothing or come no further: it may sit in a driver call,
    /// or wait for a disk.
    pub loading_silence: Duration,
    /// How long the model file's file system may take to answer when a worker is to load; less than
    /// `loading_silence`.
    pub model_file: Duration,
    /// A cancellation that is not answered for this long is repeated as a signal.
    pub nudge: Duration,
    /// One that is not answered for this long after that costs the worker its life.
    pub cancel_limit: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            tick: Duration::from_millis(25),
            hang: Duration::from_millis(1500),
            loading_silence: Duration::from_secs(60),
            model_file: Duration::from_secs(30),
            nudge: Duration::from_millis(50),
            cancel_limit: Duration::from_millis(500),
        }
    }
}

/// The running dispatcher; resolves to how it ended. It ends after [`JobsHandle::drain`], when the
/// last handle is dropped, or when there can be no worker. Dropping this only forgets the outcome.
#[derive(Debug)]
pub struct DispatcherTask {
    task: JoinHandle<Outcome>,
}

impl Future for DispatcherTask {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        Pin::new(&mut self.task).poll(cx).map(|joined| {
            joined.unwrap_or_else(|error| Outcome::WorkerLost {
                message: format!("the dispatcher ended by a bug: {error}"),
            })
        })
    }
}

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
    let (departures, departed) = mpsc::unbounded_channel();
    let (report, looked) = mpsc::unbounded_channel();
    let (publisher, snapshot) = watch_channel::channel(Arc::new(Snapshot::at_start()));
    let inputs = Inputs {
        commands: inbox,
        events,
        departed,
        looked,
    };
    let task = match host(sender) {
        Ok(host) => {
            let path = settings.load.model_path.clone();
            let looker = Looker::begin(path, settings.timing.model_file, report);
            let outputs = Outputs {
                publisher,
                departures,
                looker,
            };
            let dispatcher = Dispatcher::new(settings, metrics, host, outputs);
            tokio::spawn(run(dispatcher, inputs))
        }
        Err(message) => tokio::spawn(async move {
            Outcome::StartupFailed {
                code: ErrorCode::WorkerUnavailable,
                message,
            }
        }),
    };
    (JobsHandle { commands, snapshot }, DispatcherTask { task })
}

/// Everything that can happen.
struct Inputs {
    commands: mpsc::Receiver<Command>,
    events: mpsc::Receiver<WorkerEvent>,
    departed: mpsc::UnboundedReceiver<Departure>,
    looked: mpsc::UnboundedReceiver<Looked>,
}

/// An answer that waits until the snapshot shows what was done.
enum Answer {
    Submit(
        oneshot::Sender<Result<JobStream, Refusal>>,
        Result<JobStream, Refusal>,
    ),
    Cancel(oneshot::Sender<CancelStatus>, CancelStatus),
    Resume(
        oneshot::Sender<Result<JobStream, NoStream>>,
        Result<JobStream, NoStream>,
    ),
    Ping(oneshot::Sender<()>),
    Nothing,
}

impl Answer {
    /// Somebody who no longer waits gets nothing; a stream that comes back is dropped, which
    /// counts as the reader's departure.
    fn give(self) {
        match self {
            Self::Submit(reply, answer) => drop(reply.send(answer)),
            Self::Cancel(reply, answer) => drop(reply.send(answer)),
            Self::Resume(reply, answer) => drop(reply.send(answer)),
            Self::Ping(reply) => drop(reply.send(())),
            Self::Nothing => {}
        }
    }
}

async fn run<H: WorkerHost>(mut dispatcher: Dispatcher<H>, mut inputs: Inputs) -> Outcome {
    let mut ticker = interval(dispatcher.tick_interval());
    ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut batch = Vec::with_capacity(EVENT_BATCH);
    let mut abandoned = false;
    dispatcher.begin();
    loop {
        let mut answer = Answer::Nothing;
        tokio::select! {
            1.. = inputs.events.recv_many(&mut batch, EVENT_BATCH) => {
                let now = dispatcher.turn();
                for event in batch.drain(..) {
                    dispatcher.worker_event(event, now);
                }
            }
            command = inputs.commands.recv(), if !abandoned => {
                // Without handles nobody can ask for anything any more: the same as a drain.
                abandoned = command.is_none();
                let command = command.unwrap_or(Command::Drain);
                let now = dispatcher.turn();
                answer = dispatcher.command(command, now);
            }
            Some(departure) = inputs.departed.recv() => dispatcher.reader_left(departure),
            Some(looked) = inputs.looked.recv() => {
                let now = dispatcher.turn();
                dispatcher.looked(looked, now);
            }
            _ = ticker.tick() => {
                let now = dispatcher.turn();
                dispatcher.tick(now);
            }
        }
        dispatcher.settle(Instant::now().into_std());
        answer.give();
        if let Some(outcome) = dispatcher.outcome() {
            return outcome;
        }
    }
}
