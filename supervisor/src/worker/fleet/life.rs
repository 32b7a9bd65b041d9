//! What happens to workers, into the lifecycle; the lifecycle's actions, into the world.

use std::sync::Arc;
use std::time::{Duration, Instant};

use orcd_shared::error::ErrorCode;
use orcd_shared::protocol::message::{ToSupervisor, ToWorker, WorkerInfo};

use super::{Fleet, FleetEvent, LostWorker};
use crate::worker::handles::WeightsHandle;
use crate::worker::lifecycle::{self, Action, Event, Outcome, Phase};
use crate::worker::{Happening, WorkerEvent, WorkerHost};

/// So many workers in a row that fail to load make the held weights suspect. One may have been
/// killed from outside meanwhile.
const LOADS_TO_BLAME_WEIGHTS: u32 = 2;

impl<H: WorkerHost> Fleet<H> {
    /// Something happened to a worker.
    pub(crate) fn handle(&mut self, event: WorkerEvent, now: Instant) {
        let WorkerEvent { generation, what } = event;
        let what = match what {
            Happening::Message(message) => match self.message(generation, message, now) {
                Some(message) => Happening::Message(message),
                None => return,
            },
            what => what,
        };
        self.note(generation, &what, now);
        let event = WorkerEvent { generation, what };
        self.life_event(Event::Worker(&event), now);
        if let Happening::Exited(exit) = &event.what {
            self.count_loss(generation, exit.cause(), exit.to_string());
        }
    }

    /// What the members and the log have to know of it.
    fn note(&mut self, generation: u64, what: &Happening, now: Instant) {
        match what {
            Happening::Spawned { pid } => {
                tracing::info!(pid, generation, "worker started");
                self.crew
                    .update(generation, |member| member.pid = Some(*pid));
            }
            Happening::SpawnFailed { message } => {
                self.warn_of_cause(generation, format_args!("no worker: {message}"));
                self.crew.leave(generation);
                if generation == self.life.generation {
                    self.last_exit = Some(message.as_str().into());
                }
            }
            Happening::Connected => {
                self.crew
                    .update(generation, |member| member.pulse.restart(now));
            }
            Happening::HandshakeFailed { message } => {
                self.warn_of_cause(generation, format_args!("no link to the worker: {message}"));
            }
            Happening::Looked(location) => self.looked(generation, location, now),
            Happening::Ready { info, weights } => {
                self.loaded(generation, info, weights.as_ref(), now);
            }
            Happening::Message(message) => self.note_message(generation, message, now),
            Happening::Hung { message } => {
                self.warn_of_cause(generation, format_args!("worker is killed: {message}"));
                self.crew.update(generation, |member| member.hung = true);
            }
            Happening::LinkLost { message } => tracing::info!(generation, "{message}"),
            Happening::LastLines(lines) => {
                self.crew
                    .update(generation, |member| member.log.clone_from(lines));
            }
            Happening::Exited(exit) => {
                self.warn_of_loss(generation, format_args!("worker ended: {exit}"));
                let was_lost = self.crew.get(generation).is_some_and(|member| member.lost);
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
                .crew
                .update(generation, |member| member.pulse.moved(now)),
        }
    }

    /// A worker that waits for the model file can be told to load, or not.
    fn looked(&mut self, generation: u64, location: &Result<String, String>, now: Instant) {
        let Some(member) = self.crew.get_mut(generation).filter(|member| !member.lost) else {
            // Lost meanwhile, and with it the need for an answer.
            return;
        };
        // Its time to load begins now.
        member.pulse.moved(now);
        match location {
            Ok(location) => self.send_load(generation, location.clone(), now),
            Err(why) => {
                self.warn_of_cause(generation, format_args!("no model to load: {why}"));
            }
        }
    }

    fn send_load(&mut self, generation: u64, location: String, now: Instant) {
        let weights = self.settings.held.present();
        let mut request = self.settings.load.clone();
        request.model_path = location;
        request.weights = weights.as_ref().map(|weights| weights.manifest.clone());
        match &self.info {
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
        if let Err(error) = self.host.send(generation, message, weights) {
            self.hung(generation, error.to_string(), now);
        }
    }

    fn loaded(
        &mut self,
        generation: u64,
        info: &WorkerInfo,
        weights: Option<&WeightsHandle>,
        now: Instant,
    ) {
        let source = info.load_source;
        let load_ms = info.load_ms;
        tracing::info!(generation, load_ms, ?source, device = %info.device_name, "worker ready");
        self.metrics.load(Duration::from_millis(load_ms.into()));
        self.crew.update(generation, |member| {
            member.pulse.restart(now);
            member.info = Some(Arc::new(info.clone()));
        });
        if weights.is_some() || generation == self.life.generation {
            self.settings.held.show(weights);
        }
        if generation == self.life.generation {
            self.failed_loads = 0;
        }
    }

    /// A worker did not come through loading. If that happens on the held weights again, they are
    /// given up: they may be the cause, and while they are held there may be no room to load anew.
    fn load_failed(&mut self) {
        self.failed_loads += 1;
        let held = &self.settings.held;
        if self.failed_loads >= LOADS_TO_BLAME_WEIGHTS && held.present().is_some() {
            held.show(None);
            tracing::warn!("held weights given up: workers fail to load on them");
        }
    }

    /// A worker is beyond talking to.
    pub(super) fn hung(&mut self, generation: u64, message: String, now: Instant) {
        let what = Happening::Hung { message };
        self.handle(WorkerEvent { generation, what }, now);
    }

    /// Passes an event through the lifecycle and does what it says.
    pub(super) fn life_event(&mut self, event: Event<'_>, now: Instant) {
        let was = (self.life.generation, self.life.restarts);
        let was_loading = matches!(self.life.phase, Phase::Loading { .. });
        // What is wrong with the file is not the weights' fault.
        let file_is_bad = matches!(
            event,
            Event::Worker(WorkerEvent {
                what: Happening::Looked(Err(_))
                    | Happening::Message(ToSupervisor::LoadFailed {
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
                self.count_loss(generation, "unknown", "not reaped after SIGKILL".into());
            }
            Action::Load(generation) => self.looker.look_for(generation),
            Action::Serve => {
                self.crew.update(self.life.generation, |member| {
                    member.pulse.restart(now);
                    self.info.clone_from(&member.info);
                });
                self.news.push_back(FleetEvent::Ready);
            }
            Action::HoldJobs(generation) => {
                self.given.clear();
                self.cancelled.clear();
                self.stalled = false;
                self.news.push_back(FleetEvent::Lost { generation });
            }
            Action::Shutdown(generation) => {
                // A worker that does not take it is killed when its time is over.
                let _ = self.host.send(generation, ToWorker::Shutdown, None);
            }
            Action::Finish(outcome) => self.finish(outcome),
        }
    }

    pub(super) fn finish(&mut self, outcome: Outcome) {
        // No worker has to be told that its jobs are over.
        self.given.clear();
        self.news.push_back(FleetEvent::Over(outcome));
    }

    /// Counts a worker that was lost, now that its end is known.
    fn count_loss(&mut self, generation: u64, cause: &str, exit: String) {
        if let Some(member) = self.crew.leave(generation)
            && member.lost
        {
            let cause = if member.hung { "stalled" } else { cause };
            self.metrics.restart(cause);
            self.news.push_back(FleetEvent::Reaped(Box::new(LostWorker {
                generation,
                exit,
                hung: member.hung,
                info: member.info,
                log: member.log,
            })));
        }
    }
}
