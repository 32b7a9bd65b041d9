//! The worker's life: its events into the lifecycle, the lifecycle's actions into the world.

use std::sync::Arc;
use std::time::{Duration, Instant};

use orcd_shared::error::ErrorCode;
use orcd_shared::protocol::message::{ToWorker, WorkerInfo};

use super::pulse::Pulse;
use super::state::{AtWorker, Dispatcher, Ending};
use crate::worker::handles::WeightsHandle;
use crate::worker::lifecycle::{self, Action, Event, Outcome, Phase};
use crate::worker::process::WorkerExit;
use crate::worker::{Happening, WorkerEvent, WorkerHost};

/// A job that was running in so many crashes is taken for their cause.
const SUSPECT_CRASHES: u32 = 3;
/// So many workers in a row that fail to load make the held weights suspect. One may have been
/// killed from outside meanwhile.
const LOADS_TO_BLAME_WEIGHTS: u32 = 2;

impl<H: WorkerHost> Dispatcher<H> {
    /// Begins with the first worker.
    pub(super) fn begin(&mut self) {
        self.life_event(Event::Start, Instant::now());
    }

    /// Something happened to a worker.
    pub(super) fn worker_event(&mut self, event: WorkerEvent, now: Instant) {
        if event.generation != self.life.generation {
            // The last words of a worker that was given up.
            return;
        }
        match event.what {
            Happening::Message(message) => self.message(message, now),
            Happening::Ready { info, weights } => self.worker_ready(*info, weights, now),
            Happening::Spawned { pid } => {
                tracing::info!(pid, generation = event.generation, "worker started");
                self.worker.pid = Some(pid);
                self.life_event(Event::Spawned, now);
            }
            Happening::Connected => {
                self.worker.pulse = Pulse::new(now);
                self.life_event(Event::Connected, now);
            }
            Happening::SpawnFailed { message } => {
                tracing::warn!("no worker: {message}");
                self.worker.last_exit = Some(message.clone());
                self.life_event(Event::SpawnFailed(message), now);
            }
            Happening::HandshakeFailed { message } => {
                tracing::warn!("no link to the worker: {message}");
                self.life_event(Event::HandshakeFailed(message), now);
            }
            Happening::LinkLost { message } => {
                tracing::info!(generation = event.generation, "{message}");
                self.life_event(Event::LinkLost(message), now);
            }
            Happening::Exited(exit) => self.worker_exited(exit, now),
        }
    }

    fn worker_ready(&mut self, info: WorkerInfo, weights: Option<WeightsHandle>, now: Instant) {
        let source = info.load_source;
        tracing::info!(load_ms = info.load_ms, ?source, device = %info.device_name, "worker ready");
        self.metrics
            .load(Duration::from_millis(info.load_ms.into()));
        self.worker.pulse = Pulse::new(now);
        self.worker.info = Some(Arc::new(info));
        self.weights = weights;
        self.worker.failed_loads = 0;
        self.life_event(Event::Ready, now);
    }

    fn worker_exited(&mut self, exit: WorkerExit, now: Instant) {
        let how = exit.to_string();
        tracing::info!(generation = self.life.generation, "worker ended: {how}");
        self.worker.pid = None;
        self.worker.last_exit = Some(how.clone());
        let lost = self.life.restarts;
        self.life_event(Event::Exited(how), now);
        if self.life.restarts > lost {
            self.metrics.restart(if self.worker.hung {
                "stalled"
            } else {
                exit.cause()
            });
        }
        self.worker.hung = false;
    }

    /// A worker did not come through loading. If that happens on the held weights again, they are
    /// given up: they may be the cause, and while they are held there may be no room to load anew.
    fn load_failed(&mut self) {
        self.worker.failed_loads += 1;
        if self.worker.failed_loads >= LOADS_TO_BLAME_WEIGHTS && self.weights.take().is_some() {
            tracing::warn!("held weights given up: workers fail to load on them");
        }
    }

    /// Passes an event through the lifecycle and does what it says. What that leads to is passed
    /// through as well.
    pub(super) fn life_event(&mut self, event: Event, now: Instant) {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            let was_loading = matches!(self.life.phase, Phase::Loading { .. });
            // What is wrong with the file is not the weights' fault.
            let file_is_bad = matches!(event, Event::LoadFailed(ErrorCode::ModelLoadFailed, _));
            let cx = lifecycle::Context {
                policy: &self.settings.policy,
                now,
                jitter: jitter(),
            };
            let (life, actions) = std::mem::take(&mut self.life).step(cx, event);
            self.life = life;
            let goes_on = matches!(self.life.phase, Phase::Loading { .. } | Phase::Ready { .. });
            if was_loading && !goes_on && !file_is_bad {
                self.load_failed();
            }
            for action in actions {
                next = self.perform(action, now).or(next);
            }
        }
    }

    fn perform(&mut self, action: Action, now: Instant) -> Option<Event> {
        let generation = self.life.generation;
        match action {
            Action::Spawn => self.host.spawn(generation),
            Action::Kill => self.host.kill(generation),
            Action::Load => return self.send_load(),
            Action::Serve => self.serve(now),
            Action::HoldJobs => self.hold_jobs(now),
            Action::Shutdown => {
                // A worker that does not take it is killed when its time is over.
                let _ = self.host.send(generation, ToWorker::Shutdown, None);
            }
            Action::Finish(outcome) => self.finish(outcome),
        }
        None
    }

    fn send_load(&mut self) -> Option<Event> {
        let mut request = self.settings.load.clone();
        request.model_path = self.model.location();
        request.weights = self
            .weights
            .as_ref()
            .map(|weights| weights.manifest.clone());
        let message = ToWorker::Load(Box::new(request));
        let sent = self
            .host
            .send(self.life.generation, message, self.weights.clone());
        sent.err().map(|error| Event::Hung(error.to_string()))
    }

    /// Sends to the worker; one that takes no messages is lost.
    pub(super) fn tell_worker(&mut self, message: ToWorker) {
        if let Err(error) = self.host.send(self.life.generation, message, None) {
            self.hung(error.to_string());
        }
    }

    /// The worker is beyond talking to.
    pub(super) fn hung(&mut self, why: String) {
        tracing::error!(generation = self.life.generation, "worker is killed: {why}");
        self.worker.hung = true;
        self.life_event(Event::Hung(why), Instant::now());
    }

    /// A worker is ready; [`Dispatcher::fill_worker`] hands it its jobs.
    fn serve(&mut self, now: Instant) {
        if let Some(lost_at) = self.worker.lost_at.take() {
            self.metrics
                .failover(now.saturating_duration_since(lost_at));
        }
        let (jobs, tokens) = self.roster.held_work();
        if jobs > 0 {
            tracing::info!(jobs, tokens, "jobs are replayed");
            self.metrics.replayed(jobs, tokens);
        }
    }

    /// The worker is lost: its jobs wait for the next, but for those that were there too often.
    fn hold_jobs(&mut self, now: Instant) {
        self.worker.lost_at.get_or_insert(now);
        self.worker.stalled = false;
        for key in self.roster.hold_running() {
            let Some(job) = self.roster.get_mut(key) else {
                continue;
            };
            job.crashes += 1;
            if job.crashes >= SUSPECT_CRASHES {
                let message = format!(
                    "the worker crashed {} times while this job was running; it is not tried again",
                    job.crashes
                );
                let ending = Ending::Error(ErrorCode::WorkerCrashed, message);
                self.end_job(key, ending, AtWorker::Done);
            }
        }
    }

    fn finish(&mut self, outcome: Outcome) {
        let (code, message) = match &outcome {
            Outcome::Stopped => (ErrorCode::Cancelled, "the service is stopping"),
            _ => (
                ErrorCode::WorkerUnavailable,
                "the worker can't be kept alive",
            ),
        };
        self.end_all(code, message, AtWorker::Done);
        self.outcome = Some(outcome);
    }
}

/// 0..1; good enough to keep supervisors of one host apart.
fn jitter() -> f64 {
    let (random, _) = uuid::Uuid::new_v4().as_u64_pair();
    f64::from((random >> 32) as u32) / f64::from(u32::MAX)
}
