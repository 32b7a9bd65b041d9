//! The worker's life: its events into the lifecycle, the lifecycle's actions into the world.

use std::sync::Arc;
use std::time::{Duration, Instant};

use orcd_shared::error::ErrorCode;
use orcd_shared::protocol::message::{ToWorker, WorkerInfo};

use super::look::{Looked, Unfit};
use super::state::{AtWorker, Dispatcher, Ending};
use crate::worker::handles::WeightsHandle;
use crate::worker::lifecycle::{self, Action, Event, News, Outcome, Phase};
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
        let now = self.turn();
        self.life_event(Event::Start, now);
    }

    /// Something happened to a worker.
    pub(super) fn worker_event(&mut self, event: WorkerEvent, now: Instant) {
        let generation = event.generation;
        let news = match event.what {
            Happening::Message(message) => return self.message(generation, message, now),
            Happening::Ready { info, weights } => {
                return self.worker_ready(generation, *info, weights, now);
            }
            Happening::Spawned { pid } => {
                tracing::info!(pid, generation, "worker started");
                if let Some(member) = self.crew.get_mut(generation) {
                    member.pid = Some(pid);
                }
                News::Spawned
            }
            Happening::Connected => {
                if let Some(member) = self.crew.get_mut(generation) {
                    member.pulse.restart(now);
                }
                News::Connected
            }
            Happening::SpawnFailed { message } => {
                self.warn_of_cause(generation, format_args!("no worker: {message}"));
                self.crew.leave(generation);
                if generation == self.life.generation {
                    self.worker.last_exit = Some(message.as_str().into());
                }
                News::SpawnFailed(message)
            }
            Happening::HandshakeFailed { message } => {
                self.warn_of_cause(generation, format_args!("no link to the worker: {message}"));
                News::HandshakeFailed(message)
            }
            Happening::LinkLost { message } => {
                tracing::info!(generation, "{message}");
                News::LinkLost(message)
            }
            Happening::LastLines(lines) => {
                if let Some(member) = self.crew.get_mut(generation) {
                    member.log = lines;
                }
                return;
            }
            Happening::Exited(exit) => return self.worker_exited(generation, exit, now),
        };
        self.life_event(Event::Worker { generation, news }, now);
    }

    fn worker_ready(
        &mut self,
        generation: u64,
        info: WorkerInfo,
        weights: Option<WeightsHandle>,
        now: Instant,
    ) {
        let source = info.load_source;
        let load_ms = info.load_ms;
        tracing::info!(generation, load_ms, ?source, device = %info.device_name, "worker ready");
        self.metrics.load(Duration::from_millis(load_ms.into()));
        if let Some(member) = self.crew.get_mut(generation) {
            member.pulse.restart(now);
            member.info = Some(Arc::new(info));
        }
        if weights.is_some() || generation == self.life.generation {
            self.weights = weights;
        }
        if generation == self.life.generation {
            self.worker.failed_loads = 0;
        }
        let news = News::Ready;
        self.life_event(Event::Worker { generation, news }, now);
    }

    fn worker_exited(&mut self, generation: u64, exit: WorkerExit, now: Instant) {
        let how = exit.to_string();
        self.warn_of_loss(generation, format_args!("worker ended: {how}"));
        if generation == self.life.generation || self.was_lost(generation) {
            self.worker.last_exit = Some(how.as_str().into());
        }
        let news = News::Exited(how);
        self.life_event(Event::Worker { generation, news }, now);
        self.count_loss(generation, exit.cause(), &exit.to_string());
    }

    fn was_lost(&self, generation: u64) -> bool {
        self.crew.get(generation).is_some_and(|member| member.lost)
    }

    /// Counts a worker that was lost, now that its end is known.
    fn count_loss(&mut self, generation: u64, cause: &str, exit: &str) {
        if let Some(member) = self.crew.leave(generation)
            && member.lost
        {
            let cause = if member.hung { "stalled" } else { cause };
            self.metrics.restart(cause);
            self.write_crash_bundle(generation, &member, exit);
        }
    }

    /// A worker did not come through loading. If that happens on the held weights again, they are
    /// given up: they may be the cause, and while they are held there may be no room to load anew.
    fn load_failed(&mut self) {
        self.worker.failed_loads += 1;
        if self.worker.failed_loads >= LOADS_TO_BLAME_WEIGHTS && self.weights.take().is_some() {
            tracing::warn!("held weights given up: workers fail to load on them");
        }
    }

    /// Passes an event through the lifecycle and does what it says.
    pub(super) fn life_event(&mut self, event: Event, now: Instant) {
        let was = (self.life.generation, self.life.restarts);
        let was_loading = matches!(self.life.phase, Phase::Loading { .. });
        // What is wrong with the file is not the weights' fault.
        let file_is_bad = matches!(
            event,
            Event::Worker {
                news: News::LoadFailed(ErrorCode::ModelLoadFailed, _),
                ..
            }
        );
        let cx = lifecycle::Context {
            policy: &self.settings.policy,
            now,
            jitter: fastrand::f64(),
        };
        let (life, actions) = std::mem::take(&mut self.life).step(cx, event);
        self.life = life;
        if self.life.restarts > was.1 {
            self.crew.note_lost(was.0);
            if was_loading && !file_is_bad {
                self.load_failed();
            }
        }
        for action in actions {
            self.perform(action, now);
        }
    }

    fn perform(&mut self, action: Action, now: Instant) {
        match action {
            Action::Spawn(generation) => {
                self.crew.join(generation, now);
                self.host.spawn(generation);
            }
            Action::Kill(generation) => self.host.kill(generation),
            Action::Abandon(generation) => {
                self.warn_of_loss(generation, "the worker does not go after SIGKILL");
                self.count_loss(generation, "unknown", "not reaped after SIGKILL");
            }
            Action::Load(generation) => self.looker.look_for(generation),
            Action::Serve => self.serve(now),
            Action::HoldJobs(lost) => self.hold_jobs(lost, now),
            Action::Shutdown(generation) => {
                // A worker that does not take it is killed when its time is over.
                let _ = self.host.send(generation, ToWorker::Shutdown, None);
            }
            Action::Finish(outcome) => self.finish(outcome),
        }
    }

    /// A worker that waits for the model file can be told to load, or not.
    pub(super) fn looked(&mut self, looked: Looked, now: Instant) {
        let generation = looked.generation;
        let Some(member) = self.crew.get_mut(generation) else {
            return;
        };
        // Its time to load begins now.
        member.pulse.moved(now);
        let news = match looked.location {
            Ok(location) => self.send_load(generation, location),
            Err(Unfit(message)) => {
                self.warn_of_cause(generation, format_args!("no model to load: {message}"));
                Some(News::LoadFailed(ErrorCode::ModelLoadFailed, message))
            }
        };
        if let Some(news) = news {
            self.life_event(Event::Worker { generation, news }, now);
        }
    }

    fn send_load(&mut self, generation: u64, location: String) -> Option<News> {
        let mut request = self.settings.load.clone();
        request.model_path = location;
        request.weights = self
            .weights
            .as_ref()
            .map(|weights| weights.manifest.clone());
        match &self.worker.info {
            // Whoever comes later does the same work, whatever memory is free at that moment.
            Some(info) => {
                request.context = Some(info.context);
                request.parallel = Some(info.parallel);
                // And on the same model, whatever is in the file by now.
                request.model_hash = Some(info.model_hash);
            }
            // The first leaves room for the one behind it.
            None if self.settings.policy.standby => request.engines = 2,
            None => {}
        }
        let message = ToWorker::Load(Box::new(request));
        let sent = self.host.send(generation, message, self.weights.clone());
        sent.err().map(|error| News::Hung(error.to_string()))
    }

    /// Sends to the present worker; one that takes no messages is lost.
    pub(super) fn tell_worker(&mut self, message: ToWorker) {
        let generation = self.life.generation;
        if let Err(error) = self.host.send(generation, message, None) {
            self.hung(generation, error.to_string());
        }
    }

    /// A worker is beyond talking to.
    pub(super) fn hung(&mut self, generation: u64, why: String) {
        self.warn_of_cause(generation, format_args!("worker is killed: {why}"));
        if let Some(member) = self.crew.get_mut(generation) {
            member.hung = true;
        }
        let news = News::Hung(why);
        let now = tokio::time::Instant::now().into_std();
        self.life_event(Event::Worker { generation, news }, now);
    }

    /// A worker is ready; [`Dispatcher::fill_worker`] hands it its jobs.
    fn serve(&mut self, now: Instant) {
        if let Some(member) = self.crew.get_mut(self.life.generation) {
            member.pulse.restart(now);
            self.worker.info.clone_from(&member.info);
        }
        self.worker.served = true;
        let (jobs, tokens) = self.roster.held_work();
        if jobs == 0 {
            self.failed_over(now);
        } else {
            tracing::info!(jobs, tokens, "jobs are replayed");
            self.metrics.replayed(jobs, tokens);
        }
    }

    /// The failover that was under way, if any, is over.
    pub(super) fn failed_over(&mut self, now: Instant) {
        if let Some(lost_at) = self.worker.lost_at.take() {
            let took = now.saturating_duration_since(lost_at);
            self.metrics.failover(took);
        }
    }

    /// The worker is lost: its jobs wait for the next, but for those that were there too often.
    fn hold_jobs(&mut self, lost: u64, now: Instant) {
        if std::mem::take(&mut self.worker.served) {
            self.worker.lost_at = Some(now);
        }
        self.worker.stalled = false;
        let running = self.roster.running_keys();
        let suspects = self.roster.hold_running();
        self.note_crashed_jobs(lost, &running, &suspects);
        for key in suspects {
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

    pub(super) fn finish(&mut self, outcome: Outcome) {
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
