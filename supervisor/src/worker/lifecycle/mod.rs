//! The life of the workers as a pure function: `(State, Event) → (State, Vec<Action>)`. Nothing
//! here waits, reads a clock or touches a process, so that every pair can be tested.
//!
//! One worker serves at a time, the present one. Beside it there may be a standby that waits to
//! take over, and lost workers that have yet to be reaped: their successor does not wait for that.
//! Where a successor is chosen there is one place, `State::start_successor`. A worker that stops making
//! progress comes in as [`Hung`](super::WorkerEvent::Hung), whoever finds it out.
//!
//! **Invariant.** At each [`Action::Serve`] every earlier worker that was ever ready has been silenced: it
//! got SIGKILL, it has ended, or it has said `Fatal`, after which it gives the device no more work. So
//! whoever gets the KV memory is the only one that still begins to write to it. That costs nobody his last
//! words: one whose socket is closed is ending already, with the exit code that it will have, because the
//! kernel closes the descriptors of a process after that is decided.

mod deadlines;
mod losses;
mod standby;
mod steps;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use orcd_shared::error::ErrorCode;

use super::WorkerReport;

/// What the states depend on besides events.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Restarts in a row, without a finished job in between, before the service gives up.
    pub max_restarts: Option<u32>,
    /// Keep a second worker ready to take over.
    pub standby: bool,
    /// From a worker's readiness to the start of its standby: what is replayed on it has the
    /// machine to itself.
    pub standby_delay: Duration,
    /// Before SIGKILL, for a worker that says that it is about to end to do so in its own way, and its
    /// exit code to tell what happened.
    pub exit_grace: Duration,
    /// Between Shutdown and SIGKILL.
    pub shutdown_grace: Duration,
    /// Between SIGKILL and going on without the process (it is stuck in a driver then).
    pub abandon_after: Duration,
    /// A process has connected and said Hello by then. The host gives up before; this is for a
    /// host that doesn't answer.
    pub handshake_limit: Duration,
    /// A worker ready for this long counts as success even without a job.
    pub stable_after: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            max_restarts: None,
            standby: false,
            standby_delay: Duration::from_millis(300),
            exit_grace: Duration::from_millis(200),
            shutdown_grace: Duration::from_secs(1),
            abandon_after: Duration::from_secs(5),
            handshake_limit: Duration::from_secs(15),
            stable_after: Duration::from_secs(10),
        }
    }
}

/// So many crashes within [`CRASH_WINDOW`] without a finished job make the service unhealthy.
pub const CRASHES_TO_UNHEALTHY: usize = 5;
/// See [`CRASHES_TO_UNHEALTHY`].
pub const CRASH_WINDOW: Duration = Duration::from_secs(60);

/// How everything ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// As asked for.
    Stopped,
    /// The first worker never became ready.
    StartupFailed {
        /// For `error: CODE: message`.
        code: ErrorCode,
        /// What failed and what to do.
        message: String,
    },
    /// The worker could not be kept alive.
    WorkerLost {
        /// How often it was tried, and the last end.
        message: String,
    },
}

/// Where a worker is in its life.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Phase {
    /// Not begun; of a standby also: none is wanted yet.
    #[default]
    Idle,
    /// A process is being created.
    Spawning,
    /// It runs and has yet to connect and say Hello.
    Handshaking {
        /// No later than this.
        until: Instant,
    },
    /// It loads the model.
    Loading {
        /// Progress.
        percent: u8,
    },
    /// It takes jobs.
    Ready {
        /// When it became ready.
        since: Instant,
    },
    /// The first worker was lost before it was ready. How it ended is the reason to give.
    Ending {
        /// When to help it along with SIGKILL; `None`: that was done.
        kill_at: Option<Instant>,
        /// When to go on without having reaped it.
        abandon_at: Instant,
    },
    /// No process; the next one starts at `until`.
    Backoff {
        /// When.
        until: Instant,
    },
    /// Told to stop for good.
    Stopping {
        /// When to kill it; `None`: that was done.
        kill_at: Option<Instant>,
        /// When to end without having reaped it.
        abandon_at: Instant,
    },
    /// It is over.
    Over,
}

/// A worker that waits to take over.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Standby {
    /// Its number.
    pub generation: u64,
    /// Its life: `Ready` here means that it waits. Never `Ending`, `Stopping` or `Over`.
    pub phase: Phase,
    /// Standbys in a row that were lost before they were ready.
    failures: u32,
}

/// A lost worker that was not reaped yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Dying {
    /// Its number.
    pub generation: u64,
    /// When to help it along with SIGKILL; `None`: that was done.
    pub kill_at: Option<Instant>,
    /// When to stop waiting for it: it is stuck in a driver then.
    pub abandon_at: Instant,
}

/// The whole state.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct State {
    /// Of the present worker.
    pub phase: Phase,
    /// Number of the present (or last) worker, from 1.
    pub generation: u64,
    /// The worker that waits to follow it.
    pub standby: Standby,
    /// Lost workers, oldest first.
    pub dying: Vec<Dying>,
    /// Workers started so far, standbys included.
    pub spawned: u64,
    /// A worker was ready once: losing one is a crash from then on, not a failed start.
    pub served: bool,
    /// Present workers lost so far.
    pub restarts: u64,
    /// Too many crashes: new jobs are refused until a worker proves itself.
    pub unhealthy: bool,
    /// Crashes in a row without success, for the pause between them.
    in_a_row: u32,
    /// Restarts since the last finished job, for [`Policy::max_restarts`].
    restarts_since_success: u32,
    /// Latest crashes, oldest first, at most [`CRASHES_TO_UNHEALTHY`].
    crashes: Vec<Instant>,
}

/// What happens.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// Begin.
    Start,
    /// A job came to its end by itself.
    JobFinished,
    /// End everything: there are no more jobs.
    Stop,
    /// Time has passed.
    Tick,
    /// Something happened to a worker.
    Worker(&'a WorkerReport),
}

/// What is to be done. Numbers are those of workers.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Start it.
    Spawn(u64),
    /// Send it the load request, with the held weights and the held pool.
    Load(u64),
    /// Make the pool the present worker's own and hand it the held jobs, then new ones.
    Serve,
    /// It is lost: its jobs are to be replayed on the next.
    SuspendJobs(u64),
    /// Tell it to exit.
    Shutdown(u64),
    /// SIGKILL.
    Kill(u64),
    /// Nothing more is heard of it: it did not go after SIGKILL.
    Abandon(u64),
    /// Nothing more comes.
    Finish(Outcome),
}

type Actions = Vec<Action>;

/// What is passed to a step besides the event.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The rules.
    pub policy: &'a Policy,
    /// The present.
    pub now: Instant,
    /// 0..1, for [`super::backoff::pause`].
    pub jitter: f64,
}
