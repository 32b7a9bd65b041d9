//! All workers: the one that serves, the standby, and lost ones that have yet to be reaped.
//! The fleet is given jobs and what happens to workers, and says what follows from it for jobs, as
//! `FleetEvent`s. Which worker serves, where it is in its life and whether it still makes progress
//! is nobody else's business.
//!
//! Nothing here waits: what takes time is done elsewhere and comes back as a `WorkerReport`.

mod life;
mod liveness;
mod look;
mod notices;
mod pool;
mod watch;
mod workers;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use orcd_shared::error::ErrorCode;
use orcd_shared::job::{JobKey, JobSpec};
use orcd_shared::kv::PageCounts;
use orcd_shared::protocol::message::{
    LoadRequest, MAX_PARALLEL, Serve, StepReport, ToSupervisor, ToWorker, WorkerInfo,
};

use super::handles::Handover;
use super::lifecycle::{Event, Outcome, Phase, Policy, State};
use super::retained::Retained;
use super::{EventSender, WorkerHost};
use crate::metrics::Metrics;
use crate::snapshot::{ServiceState, Snapshot, Standby};
use look::Looker;
use pool::Pool;
use workers::Workers;

/// What the fleet gets at start.
#[derive(Debug, Clone)]
pub struct FleetSettings {
    /// What each worker gets. What workers before it left, and where the model lies by then, is
    /// filled in.
    pub load: LoadRequest,
    /// The weights and the pool retained for workers; those in it at start are offered to the first one.
    pub retained: Retained,
    /// Rules for losing workers.
    pub policy: Policy,
    /// Limits of what workers may take.
    pub timing: Timing,
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
    pub interrupt: Duration,
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
            interrupt: Duration::from_millis(50),
            cancel_limit: Duration::from_millis(500),
        }
    }
}

/// What follows for jobs from what happened to workers.
#[derive(Debug)]
pub(crate) enum FleetEvent {
    /// A step of the worker that serves.
    Tokens(StepReport),
    /// The worker that serves has begun with a job; so many of the job's tokens were kept and need not be computed.
    Begun { key: JobKey, cached: u32 },
    /// The worker that serves can't go on with a job.
    JobFailed {
        key: JobKey,
        code: ErrorCode,
        message: String,
    },
    /// The worker that serves gave a job's KV pages to older ones; it may be given again.
    Preempted(JobKey),
    /// A worker is ready to serve: it is to be told so with [`Fleet::serve`], and there are free slots then.
    Ready { generation: u64 },
    /// The worker that served is lost, and with it all the jobs that it was given. `on_demand`: by
    /// [`Fleet::kill_serving`].
    Lost { generation: u64, on_demand: bool },
    /// Nothing is left of a worker that was lost.
    Reaped(Box<LostWorker>),
    /// There is no worker any more, and none comes.
    Over(Outcome),
}

/// A worker that was killed because somebody asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Killed {
    /// Its number.
    pub generation: u64,
    /// Jobs that it had, which go on with the next one.
    pub jobs: usize,
}

/// What is known of a worker that was lost.
#[derive(Debug)]
pub(crate) struct LostWorker {
    pub(crate) generation: u64,
    /// How its process ended.
    pub(crate) exit: String,
    /// It was killed for not reacting.
    pub(crate) hung: bool,
    /// Its account of itself, if it was ever ready.
    pub(crate) info: Option<Arc<WorkerInfo>>,
    /// The last lines that it wrote for people.
    pub(crate) log: Vec<String>,
}

/// A job that the worker was asked to abandon.
#[derive(Debug, Clone, Copy)]
struct PendingCancel {
    since: Instant,
    /// The worker's process was signaled too.
    interrupted: bool,
}

/// All workers.
#[derive(Debug)]
pub(crate) struct Fleet<H> {
    settings: FleetSettings,
    metrics: Arc<Metrics>,
    host: H,
    looker: Looker,
    life: State,
    workers: Workers,
    pool: Pool,
    /// The serving worker's account of itself, or that of the last one that served.
    info: Option<Arc<WorkerInfo>>,
    /// Jobs that the serving worker was given and has not ended.
    given: HashSet<JobKey>,
    /// Jobs that it was asked to abandon, and has not yet said that they are gone.
    cancelled: HashMap<JobKey, PendingCancel>,
    /// What it says its KV pages are in use for.
    kv: PageCounts,
    /// Its engine is stalled.
    stalled: bool,
    last_exit: Option<Arc<str>>,
    /// Workers in a row that were lost while they loaded.
    failed_loads: u32,
    /// The log says that the service is unhealthy, and not yet that it is healthy again.
    reported_unhealthy: bool,
    /// What nobody has taken yet.
    events: VecDeque<FleetEvent>,
}

impl<H: WorkerHost> Fleet<H> {
    /// A fleet without workers. `events` leads to [`Self::handle`]. To be called within a runtime.
    pub(crate) fn new(
        settings: FleetSettings,
        metrics: Arc<Metrics>,
        host: H,
        events: EventSender,
    ) -> Self {
        let path = settings.load.model_path.clone();
        Self {
            looker: Looker::begin(path, settings.timing.model_file, events),
            pool: Pool::new(settings.retained.present().pool),
            settings,
            metrics,
            host,
            life: State::default(),
            workers: Workers::default(),
            info: None,
            given: HashSet::new(),
            cancelled: HashMap::new(),
            kv: PageCounts::default(),
            stalled: false,
            last_exit: None,
            failed_loads: 0,
            reported_unhealthy: false,
            events: VecDeque::new(),
        }
    }

    /// Begins with the first worker.
    pub(crate) fn start(&mut self, now: Instant) {
        self.life_event(Event::Start, now);
    }

    /// What follows from what has happened, in its order. To be asked after each other call, until
    /// there is none.
    pub(crate) fn next_event(&mut self) -> Option<FleetEvent> {
        self.events.pop_front()
    }

    /// Sequences that the serving worker could begin now. One that was cancelled keeps its slot
    /// until the worker has said that it is gone.
    pub(crate) fn free_slots(&self) -> usize {
        match (&self.life.phase, &self.info) {
            (Phase::Ready { .. }, Some(info)) => {
                let slots = info.parallel.min(MAX_PARALLEL) as usize;
                slots.saturating_sub(self.given.len() + self.cancelled.len())
            }
            _ => 0,
        }
    }

    /// Pages of KV memory of the worker that serves, or of the last one.
    pub(crate) fn kv_pages(&self) -> u32 {
        self.info.as_ref().map_or(0, |info| info.kv_pages)
    }

    /// Has worker number `generation` serve, unless it was lost meanwhile: the pool of KV memory is its
    /// own from now on. `keep`: what its predecessor left in the pages may be believed; of an unhealthy
    /// service nothing is, for that may be what its workers die of.
    pub(crate) fn serve(&mut self, generation: u64, keep: bool, replays: u32, now: Instant) {
        let is_present = generation == self.life.generation;
        if !is_present || !matches!(self.life.phase, Phase::Ready { .. }) {
            return;
        }
        let reported = self.workers.get(generation);
        let pool = reported.and_then(|entry| entry.pool.clone());
        let keep = keep && !self.life.unhealthy;
        let serve = Serve {
            replays,
            ..self.pool.pass_to(generation, pool, keep)
        };
        self.settings.retained.show_pool(self.pool.held());
        tracing::debug!(generation, ?serve, "the worker serves");
        self.send_to_worker(ToWorker::Serve(serve), now);
    }

    /// Gives the serving worker a job.
    pub(crate) fn submit(&mut self, job: JobSpec, now: Instant) {
        self.workers.update(self.life.generation, |entry| {
            if self.given.is_empty() {
                entry.liveness.progressed(now);
            }
            entry.liveness.submitted();
        });
        self.given.insert(job.key);
        self.send_to_worker(ToWorker::Submit(Box::new(job)), now);
    }

    /// A job is over. A worker that still has it gets a cancellation.
    pub(crate) fn cancel(&mut self, key: JobKey, now: Instant) {
        if self.given.remove(&key) {
            let pending = PendingCancel {
                since: now,
                interrupted: false,
            };
            self.cancelled.insert(key, pending);
            self.send_to_worker(ToWorker::Cancel(key), now);
        }
    }

    /// A job came to its end by itself, which shows that the worker is sound.
    pub(crate) fn job_finished(&mut self, now: Instant) {
        self.life_event(Event::JobFinished, now);
    }

    /// Kills the serving worker, because a person wants to see what follows. `None`: none serves.
    pub(crate) fn kill_serving(&mut self) -> Option<Killed> {
        if !matches!(self.life.phase, Phase::Ready { .. }) {
            return None;
        }
        let generation = self.life.generation;
        self.workers
            .update(generation, |entry| entry.killed_on_demand = true);
        tracing::info!(generation, "the worker is killed, as was asked for");
        self.host.kill(generation);
        Some(Killed {
            generation,
            jobs: self.given.len(),
        })
    }

    /// Ends all workers: there are no more jobs. Safe to repeat.
    pub(crate) fn stop(&mut self, now: Instant) {
        self.life_event(Event::Stop, now);
    }

    /// Ends at once: workers are killed when this is dropped.
    pub(crate) fn abort(&mut self) {
        self.finish(Outcome::Stopped);
    }

    /// Whoever listens to the workers was away for `gap`: it counts for nobody.
    pub(crate) fn extend_deadlines(&mut self, gap: Duration) {
        self.workers.extend_deadlines(gap);
        self.life.extend_deadlines(gap);
        for pending in self.cancelled.values_mut() {
            pending.since += gap;
        }
    }

    /// The serving worker's account of itself, or that of the last one that served.
    pub(crate) fn info(&self) -> Option<&WorkerInfo> {
        self.info.as_deref()
    }

    /// What the workers make of the service.
    pub(crate) fn state(&self) -> ServiceState {
        match &self.life.phase {
            Phase::Stopping { .. } => ServiceState::Draining,
            Phase::Over => ServiceState::Unhealthy,
            _ if self.life.unhealthy => ServiceState::Unhealthy,
            Phase::Ready { .. } => ServiceState::Ready,
            _ if self.life.served => ServiceState::Recovering,
            Phase::Loading { percent } => ServiceState::Starting { percent: *percent },
            _ => ServiceState::Starting { percent: 0 },
        }
    }

    /// A snapshot of the workers; what it says of jobs is left at its beginning.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot {
            state: self.state(),
            worker: self.info.clone(),
            worker_pid: self.workers.get(self.life.generation).and_then(|m| m.pid),
            generation: self.life.generation,
            restarts: self.life.restarts,
            last_exit: self.last_exit.clone(),
            kv: self.kv,
            stalled: self.stalled,
            standby: self.standby(),
            ..Snapshot::default()
        }
    }

    fn standby(&self) -> Option<Standby> {
        let life = &self.life.standby;
        let entry = self
            .workers
            .get(life.generation)
            .filter(|_| life.is_alive())?;
        // The weights are there once, whoever maps them, and so is the pool that the present worker has.
        let own = |info: &WorkerInfo| {
            let weights = info.weights.as_ref().map_or(0, |w| w.image_bytes);
            let held = self.pool.held().map(|pool| &pool.manifest);
            let pool = held.filter(|held| info.pool.as_ref() == Some(*held));
            info.memory_used
                .saturating_sub(weights)
                .saturating_sub(pool.map_or(0, |pool| pool.bytes))
        };
        Some(Standby {
            pid: entry.pid,
            ready: matches!(life.phase, Phase::Ready { .. }),
            memory_bytes: entry.info.as_deref().map_or(0, own),
        })
    }

    /// Sends to the serving worker; one that takes no messages is lost.
    fn send_to_worker(&mut self, message: ToWorker, now: Instant) {
        let generation = self.life.generation;
        if let Err(error) = self.host.send(generation, message, Handover::nothing()) {
            self.hung(generation, error.to_string(), now);
        }
    }

    /// A message of worker number `generation`; gives back what the lifecycle has to know.
    fn message(
        &mut self,
        generation: u64,
        message: ToSupervisor,
        now: Instant,
    ) -> Option<ToSupervisor> {
        let entry = self.workers.get_mut(generation)?;
        entry.liveness.message_received(now);
        let serves = generation == self.life.generation;
        match message {
            ToSupervisor::Heartbeat { steps, running, kv } => {
                entry.liveness.steps(steps, now);
                if serves {
                    let refused = kv.refused.saturating_sub(self.kv.refused);
                    self.metrics.pages_refused(refused.into());
                    self.kv = kv;
                    entry
                        .liveness
                        .holds(running as usize, self.given.len(), now);
                }
            }
            ToSupervisor::Residency { resident } => self.residency(generation, resident),
            ToSupervisor::LoadProgress { .. }
            | ToSupervisor::LoadFailed { .. }
            | ToSupervisor::Fatal { .. } => return Some(message),
            // What a worker that was given up still says of jobs is the business of its successor.
            _ if !serves => {}
            ToSupervisor::Step(report) => {
                entry.liveness.steps(report.step, now);
                let took = Duration::from_micros(report.step_us.into());
                entry.liveness.step_took(took);
                self.tokens(report);
            }
            ToSupervisor::Begun { key, cached } => {
                if self.given.contains(&key) {
                    self.events.push_back(FleetEvent::Begun { key, cached });
                }
            }
            ToSupervisor::JobFailed { key, code, message } => self.job_failed(key, code, message),
            ToSupervisor::Preempted(key) => self.preempted(key),
            ToSupervisor::Cancelled(key) => {
                if self.cancelled.remove(&key).is_none() {
                    // Nobody asked for that, and nothing more would ever come.
                    let message = "the worker dropped the job; send it again".into();
                    self.job_failed(key, ErrorCode::Internal, message);
                }
            }
            // The host answers these itself.
            ToSupervisor::Hello { .. } | ToSupervisor::Ready(_) => {}
        }
        None
    }

    fn tokens(&mut self, report: StepReport) {
        for token in report.tokens.iter().filter(|t| t.finish.is_some()) {
            self.given.remove(&token.key);
        }
        self.events.push_back(FleetEvent::Tokens(report));
    }

    fn job_failed(&mut self, key: JobKey, code: ErrorCode, message: String) {
        if self.given.remove(&key) {
            let failed = FleetEvent::JobFailed { key, code, message };
            self.events.push_back(failed);
        }
    }

    /// A job that the worker has to itself needs nobody's pages: given again it would only be preempted again.
    fn preempted(&mut self, key: JobKey) {
        let is_alone = self.given.len() == 1 && self.cancelled.is_empty();
        if is_alone {
            let message = "the worker has no KV memory for a job that is alone in it".into();
            self.job_failed(key, ErrorCode::Internal, message);
        } else if self.given.remove(&key) {
            self.events.push_back(FleetEvent::Preempted(key));
        }
    }

    /// A worker looked where its buffers are. Nothing follows from it but what `/health` shows.
    fn residency(&mut self, generation: u64, resident: bool) {
        self.workers.update(generation, |entry| {
            if let Some(info) = &mut entry.info {
                Arc::make_mut(info).resident = resident;
            }
            if generation == self.life.generation {
                self.info.clone_from(&entry.info);
            }
        });
        if resident {
            tracing::info!(
                generation,
                "the worker's buffers are all in device memory again"
            );
        } else {
            tracing::error!(
                generation,
                "a buffer of the worker is no longer in device memory"
            );
        }
    }
}
