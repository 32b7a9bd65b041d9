//! What happens to workers, into the lifecycle; the lifecycle's actions, into the world.

use std::sync::Arc;
use std::time::{Duration, Instant};

use orcd_shared::error::ErrorCode;
use orcd_shared::kv::PageCounts;
use orcd_shared::protocol::message::{KvSize, ToSupervisor, ToWorker, WorkerInfo};

use super::{Fleet, FleetEvent, LostWorker};
use crate::worker::handles::{Handover, PoolHandle, WeightsHandle};
use crate::worker::lifecycle::{self, Action, Event, Outcome, Phase};
use crate::worker::process::WorkerExit;
use crate::worker::{WorkerEvent, WorkerHost, WorkerReport};

/// So many workers in a row that fail to load make what they are given suspect, weights and pool. One
/// may have been killed from outside meanwhile.
const LOADS_TO_BLAME_HANDLES: u32 = 2;

impl<H: WorkerHost> Fleet<H> {
    /// Something happened to a worker.
    pub(crate) fn handle(&mut self, report: WorkerReport, now: Instant) {
        let WorkerReport { generation, event } = report;
        let event = match event {
            WorkerEvent::Message(message) => match self.message(generation, message, now) {
                Some(message) => WorkerEvent::Message(message),
                None => return,
            },
            event => event,
        };
        self.note(generation, &event, now);
        let report = WorkerReport { generation, event };
        self.life_event(Event::Worker(&report), now);
        if let WorkerEvent::Exited(exit) = &report.event {
            self.count_loss(generation, exit.cause(), exit.to_string());
            self.settle(generation, *exit, now);
        }
    }

    /// What is known of the workers, and the log, after it.
    fn note(&mut self, generation: u64, event: &WorkerEvent, now: Instant) {
        match event {
            WorkerEvent::Spawned { pid } => {
                tracing::info!(pid, generation, "worker started");
                self.workers
                    .update(generation, |entry| entry.pid = Some(*pid));
            }
            WorkerEvent::SpawnFailed { message } => {
                self.warn_of_cause(generation, format_args!("no worker: {message}"));
                self.workers.leave(generation);
                if generation == self.life.generation {
                    self.last_exit = Some(message.as_str().into());
                }
            }
            WorkerEvent::Connected => {
                self.workers
                    .update(generation, |entry| entry.liveness.restart(now));
            }
            WorkerEvent::HandshakeFailed { message } => {
                self.warn_of_cause(generation, format_args!("no link to the worker: {message}"));
            }
            WorkerEvent::Looked(location) => self.looked(generation, location, now),
            WorkerEvent::Ready {
                info,
                weights,
                pool,
            } => {
                self.loaded(generation, info, weights.as_ref(), pool.as_ref(), now);
            }
            WorkerEvent::Message(message) => self.note_message(generation, message, now),
            WorkerEvent::Hung { message } => {
                self.warn_of_cause(generation, format_args!("worker is killed: {message}"));
                self.workers.update(generation, |entry| entry.hung = true);
            }
            WorkerEvent::LinkLost { message } => tracing::info!(generation, "{message}"),
            WorkerEvent::LastLines(lines) => {
                self.workers
                    .update(generation, |entry| entry.log.clone_from(lines));
            }
            WorkerEvent::Exited(exit) => {
                self.warn_of_loss(generation, format_args!("worker ended: {exit}"));
                let was_lost = self.workers.get(generation).is_some_and(|entry| entry.lost);
                if generation == self.life.generation || was_lost {
                    self.last_exit = Some(exit.to_string().into());
                }
            }
        }
    }

    fn note_message(&mut self, generation: u64, message: &ToSupervisor, now: Instant) {
        match message {
            ToSupervisor::LoadFailed { code, message } => {
                let what = format_args!("the worker can't load the model: {code}: {message}");
                self.warn_of_cause(generation, what);
            }
            ToSupervisor::Fatal { code, message } => {
                let what = format_args!("the worker is about to end: {code}: {message}");
                self.warn_of_cause(generation, what);
            }
            // It came further with loading.
            _ => self
                .workers
                .update(generation, |entry| entry.liveness.progressed(now)),
        }
    }

    /// A worker that waits for the model file can get its load request, or not.
    fn looked(&mut self, generation: u64, location: &Result<String, String>, now: Instant) {
        let Some(entry) = self.workers.get_mut(generation).filter(|entry| !entry.lost) else {
            // Lost meanwhile, and with it the need for an answer.
            return;
        };
        // Its time to load begins now.
        entry.liveness.progressed(now);
        match location {
            Ok(location) => self.send_load(generation, location.clone(), now),
            Err(why) => {
                self.warn_of_cause(generation, format_args!("no model to load: {why}"));
            }
        }
    }

    fn send_load(&mut self, generation: u64, location: String, now: Instant) {
        let handover = Handover {
            weights: self.settings.retained.present().weights,
            pool: self.pool.held().cloned(),
        };
        let mut request = self.settings.load.clone();
        request.model_path = location;
        request.weights = (handover.weights.as_ref()).map(|weights| weights.manifest.clone());
        request.pool = handover.pool.as_ref().map(|pool| pool.manifest.clone());
        match &self.info {
            // Whoever comes later does the same work, whatever memory is free at that moment.
            Some(info) => {
                request.context = Some(info.context);
                request.parallel = Some(info.parallel);
                request.kv = Some(KvSize::Pages(info.kv_pages));
                // And on the same model, whatever is in the file by now.
                request.model_hash = Some(info.model_hash);
            }
            None => {
                // The first leaves room for the standby,
                if self.settings.policy.standby {
                    request.engines = 2;
                }
                // and finds a pool's size by what is free, unless it has one: an earlier run's, sized as is asked for now.
                if let Some(pool) = &request.pool {
                    request.kv = Some(KvSize::Pages(pool.pages));
                }
            }
        }
        let message = ToWorker::Load(Box::new(request));
        if let Err(error) = self.host.send(generation, message, handover) {
            self.hung(generation, error.to_string(), now);
        }
    }

    fn loaded(
        &mut self,
        generation: u64,
        info: &WorkerInfo,
        weights: Option<&WeightsHandle>,
        pool: Option<&PoolHandle>,
        now: Instant,
    ) {
        let source = info.load_source;
        let load_ms = info.load_ms;
        tracing::info!(generation, load_ms, ?source, device = %info.device_name, "worker ready");
        self.metrics.load(Duration::from_millis(load_ms.into()));
        self.workers.update(generation, |entry| {
            entry.liveness.restart(now);
            entry.info = Some(Arc::new(info.clone()));
            entry.pool = pool.cloned();
        });
        if weights.is_some() || generation == self.life.generation {
            self.settings.retained.show_weights(weights);
        }
        if generation == self.life.generation {
            self.failed_loads = 0;
        }
    }

    /// A worker did not come through loading. If that happens again, the weights and the pool that it
    /// was given are given up: they may be the cause, and while they are held there may be no room to
    /// load anew.
    fn load_failed(&mut self) {
        self.failed_loads += 1;
        if self.failed_loads < LOADS_TO_BLAME_HANDLES {
            return;
        }
        let retained = &self.settings.retained;
        if retained.present().weights.is_some() {
            retained.show_weights(None);
            tracing::warn!("retained weights released: workers fail to load with them");
        }
        retained.show_pool(None);
        if self.pool.release() {
            tracing::warn!("retained KV memory released: workers fail to load with it");
        }
    }

    /// A worker can not be reached any more.
    pub(super) fn hung(&mut self, generation: u64, message: String, now: Instant) {
        let event = WorkerEvent::Hung { message };
        self.handle(WorkerReport { generation, event }, now);
    }

    /// Passes an event through the lifecycle and does what it says.
    pub(super) fn life_event(&mut self, event: Event<'_>, now: Instant) {
        let was = (self.life.generation, self.life.restarts);
        let was_loading = matches!(self.life.phase, Phase::Loading { .. });
        // What is wrong with the file is not the weights' fault.
        let file_is_bad = matches!(
            event,
            Event::Worker(WorkerReport {
                event: WorkerEvent::Looked(Err(_))
                    | WorkerEvent::Message(ToSupervisor::LoadFailed {
                        code: ErrorCode::ModelLoadFailed,
                        ..
                    }),
                ..
            })
        );
        let cx = lifecycle::Context {
            policy: &self.settings.policy,
            now,
            jitter: fastrand::f64(),
        };
        let (life, actions) = std::mem::take(&mut self.life).step(cx, event);
        self.life = life;
        if self.life.restarts > was.1 {
            self.workers.note_lost(was.0);
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
                self.workers.join(generation, now);
                self.host.spawn(generation);
            }
            Action::Kill(generation) => self.host.kill(generation),
            Action::Abandon(generation) => {
                self.warn_of_loss(generation, "the worker is still there after SIGKILL");
                self.count_loss(generation, "unknown", "not reaped after SIGKILL".into());
            }
            Action::Load(generation) => self.looker.look_for(generation),
            Action::Serve => {
                self.workers.update(self.life.generation, |entry| {
                    entry.liveness.restart(now);
                    self.info.clone_from(&entry.info);
                });
                let generation = self.life.generation;
                self.events.push_back(FleetEvent::Ready { generation });
            }
            Action::SuspendJobs(generation) => {
                self.given.clear();
                self.cancelled.clear();
                self.kv = PageCounts::default();
                self.stalled = false;
                let entry = self.workers.get(generation);
                self.events.push_back(FleetEvent::Lost {
                    generation,
                    on_demand: entry.is_some_and(|entry| entry.killed_on_demand),
                });
            }
            Action::Shutdown(generation) => {
                // A worker that does not take it is killed when its time is over.
                let _ = (self.host).send(generation, ToWorker::Shutdown, Handover::nothing());
            }
            Action::Finish(outcome) => self.finish(outcome),
        }
    }

    pub(super) fn finish(&mut self, outcome: Outcome) {
        // No worker needs a message that its jobs are over.
        self.given.clear();
        self.events.push_back(FleetEvent::Over(outcome));
    }

    /// A worker was reaped. If it was the last that the present worker's pool could still change by, that
    /// is said. One that could not be waited for may be there yet.
    fn settle(&mut self, generation: u64, exit: WorkerExit, now: Instant) {
        if exit == WorkerExit::Unknown {
            return;
        }
        let told = self.pool.ended(generation);
        if told == Some(self.life.generation) && matches!(self.life.phase, Phase::Ready { .. }) {
            self.send_to_worker(ToWorker::Settled, now);
        }
    }

    /// Counts a worker that was lost, now that its end is known.
    fn count_loss(&mut self, generation: u64, cause: &str, exit: String) {
        if let Some(entry) = self.workers.leave(generation)
            && entry.lost
        {
            let cause = if entry.hung { "stalled" } else { cause };
            self.metrics.restart(cause);
            self.events
                .push_back(FleetEvent::Reaped(Box::new(LostWorker {
                    generation,
                    exit,
                    hung: entry.hung,
                    info: entry.info,
                    log: entry.log,
                })));
        }
    }
}
