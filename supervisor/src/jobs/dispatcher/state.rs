//! What the dispatcher owns, and how it shows it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use orcd_shared::error::ErrorCode;
use orcd_shared::job::JobKey;
use orcd_shared::protocol::message::{ToWorker, WorkerInfo};
use tokio::sync::{mpsc, watch};

use super::super::{Departure, ServiceState, Snapshot, Standby};
use super::DispatcherSettings;
use super::crew::Crew;
use super::look::Looker;
use super::roster::{Leaving, Place, Roster};
use crate::jobs::StopReason;
use crate::jobs::journal::Journal;
use crate::metrics::Metrics;
use crate::worker::WorkerHost;
use crate::worker::handles::WeightsHandle;
use crate::worker::lifecycle::{Event, Outcome, Phase, State};

/// All state of the service. Methods are spread over this module's siblings by subject.
pub(super) struct Dispatcher<H> {
    pub(super) settings: DispatcherSettings,
    pub(super) metrics: Arc<Metrics>,
    pub(super) host: H,
    pub(super) life: State,
    pub(super) crew: Crew,
    pub(super) worker: Worker,
    pub(super) roster: Roster,
    pub(super) looker: Looker,
    /// Keeps the weights alive between workers.
    pub(super) weights: Option<WeightsHandle>,
    /// Set while draining: when to cancel what is left.
    pub(super) drain_by: Option<Instant>,
    pub(super) outcome: Option<Outcome>,
    pub(super) departures: mpsc::UnboundedSender<Departure>,
    /// When readers were looked at last.
    pub(super) readers_seen: Option<Instant>,
    /// When the latest turn began.
    pub(super) turned: Option<Instant>,
    pub(super) last_key: u64,
    publisher: watch::Sender<Arc<Snapshot>>,
    /// As of the latest tick: see [`Snapshot::cache_usage`].
    cache_usage: f64,
}

/// Where the dispatcher's doings go, beside the workers.
pub(super) struct Outputs {
    pub(super) publisher: watch::Sender<Arc<Snapshot>>,
    pub(super) departures: mpsc::UnboundedSender<Departure>,
    pub(super) looker: Looker,
}

/// What is known of the workers taken together.
#[derive(Debug, Default)]
pub(super) struct Worker {
    /// The present worker's account of itself, or that of the last one that served.
    pub(super) info: Option<Arc<WorkerInfo>>,
    /// The present worker's engine stands still.
    pub(super) stalled: bool,
    pub(super) last_exit: Option<Arc<str>>,
    /// Workers in a row that were lost while they loaded.
    pub(super) failed_loads: u32,
    /// When the last ready worker was lost, until the failover is over: see
    /// [`crate::metrics::Metrics::failover`].
    pub(super) lost_at: Option<Instant>,
    /// The present worker is or was ready.
    pub(super) served: bool,
    /// The log says that the service is unhealthy, and not yet that it is healthy again.
    pub(super) told_unhealthy: bool,
}

/// What the worker still has of a job that ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AtWorker {
    /// Nothing: it ended the job itself, or is gone.
    Done,
    /// Perhaps all of it: it is to be told.
    Abandon,
}

/// How a job ends.
#[derive(Debug)]
pub(super) enum Ending {
    Stop(StopReason),
    Error(ErrorCode, String),
}

impl<H: WorkerHost> Dispatcher<H> {
    pub(super) fn new(
        settings: DispatcherSettings,
        metrics: Arc<Metrics>,
        host: H,
        outputs: Outputs,
    ) -> Self {
        let weights = settings.held.present();
        Self {
            settings,
            metrics,
            host,
            life: State::default(),
            crew: Crew::default(),
            worker: Worker::default(),
            turned: None,
            roster: Roster::default(),
            looker: outputs.looker,
            weights,
            drain_by: None,
            outcome: None,
            departures: outputs.departures,
            readers_seen: None,
            last_key: 0,
            publisher: outputs.publisher,
            cache_usage: 0.0,
        }
    }

    pub(super) fn tick_interval(&self) -> Duration {
        self.settings.timing.tick
    }

    /// How it ended, once everything is over and every stream has its last event.
    pub(super) fn outcome(&mut self) -> Option<Outcome> {
        self.outcome.take()
    }

    /// Does what has become possible, and shows the result.
    pub(super) fn settle(&mut self, now: Instant) {
        self.fill_worker(now);
        if self.drain_by.is_some() && self.roster.is_idle() {
            self.life_event(Event::Stop, now);
        }
        self.settings.held.show(self.weights.as_ref());
        self.tell_health();
        self.publish();
    }

    /// Ends a job: the last event into its log, the worker told, the place free.
    pub(super) fn end_job(&mut self, key: JobKey, ending: Ending, at_worker: AtWorker) {
        let Some(job) = self.roster.get_mut(key) else {
            return;
        };
        if job.place == Place::Ended {
            return;
        }
        let was_running = job.place == Place::Running;
        let (outcome, event) = match ending {
            Ending::Stop(reason) => ("end", job.journal.end(reason)),
            Ending::Error(code, message) => (code.name(), job.journal.fail(code, message)),
        };
        log_end(&job.journal, outcome);
        job.log.finish(event);
        self.metrics.job_finished(outcome);
        self.metrics.end_to_end(job.submitted.elapsed());
        let retain = job.log.keeps();
        let now = tokio::time::Instant::now().into_std();
        let retain_until = retain.then(|| now + self.settings.resume_ttl);
        self.roster.end(key, retain_until);
        if let Some(job) = self.roster.get_mut(key) {
            job.journal.close();
        }
        if was_running && at_worker == AtWorker::Abandon {
            let leaving = Leaving {
                since: now,
                nudged: false,
            };
            self.roster.leaving.insert(key, leaving);
            self.tell_worker(ToWorker::Cancel(key));
        }
    }

    /// Ends every job in flight with the same error.
    pub(super) fn end_all(&mut self, code: ErrorCode, message: &str, at_worker: AtWorker) {
        for key in self.roster.keys_in_flight() {
            self.end_job(key, Ending::Error(code, message.to_owned()), at_worker);
        }
    }

    pub(super) fn service_state(&self) -> ServiceState {
        match &self.life.phase {
            _ if self.drain_by.is_some() => ServiceState::Draining,
            Phase::Stopping { .. } => ServiceState::Draining,
            Phase::Over => ServiceState::Unhealthy,
            _ if self.life.unhealthy => ServiceState::Unhealthy,
            Phase::Ready { .. } => ServiceState::Ready,
            _ if self.life.served => ServiceState::Recovering,
            Phase::Loading { percent } => ServiceState::Starting { percent: *percent },
            _ => ServiceState::Starting { percent: 0 },
        }
    }

    /// Shows the service as it is now, if anything is new. Only a tick looks how full the cache is:
    /// nothing is published for a mere token.
    fn publish(&self) {
        let now = self.snapshot();
        self.publisher.send_if_modified(|shown| {
            let is_news = **shown != now;
            if is_news {
                *shown = Arc::new(now);
            }
            is_news
        });
    }

    fn snapshot(&self) -> Snapshot {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Snapshot {
            state: self.service_state(),
            worker: self.worker.info.clone(),
            worker_pid: self.crew.get(self.life.generation).and_then(|m| m.pid),
            generation: self.life.generation,
            restarts: self.life.restarts,
            last_exit: self.worker.last_exit.clone(),
            running: count(self.roster.begun()),
            queued: count(self.roster.waiting()),
            free_places: count(self.free_places()),
            cache_usage: self.cache_usage,
            stalled: self.worker.stalled,
            standby: self.standby(),
        }
    }

    /// Looks how full the caches of the running sequences are.
    pub(super) fn measure_cache(&mut self) {
        let capacity = (self.worker.info.as_ref()).map_or(0.0, |info| {
            f64::from(info.context) * f64::from(info.parallel)
        });
        #[expect(clippy::cast_precision_loss, reason = "a share, for people")]
        let used = self.roster.running_positions() as f64;
        self.cache_usage = used / capacity.max(1.0);
    }

    fn standby(&self) -> Option<Standby> {
        let life = &self.life.standby;
        let member = self.crew.get(life.generation).filter(|_| life.is_alive())?;
        // The weights are there once, whoever maps them.
        let own = |info: &WorkerInfo| {
            let shared = info.weights.as_ref().map_or(0, |w| w.image_bytes);
            info.memory_used.saturating_sub(shared)
        };
        Some(Standby {
            pid: member.pid,
            ready: matches!(life.phase, Phase::Ready { .. }),
            memory_bytes: member.info.as_deref().map_or(0, own),
        })
    }
}

fn log_end(journal: &Journal, outcome: &str) {
    let job = journal.job();
    tracing::info!(
        job_id = %job.job_id,
        correlation_id = %job.correlation_id,
        outcome,
        tokens = journal.tokens_out(),
        replays = journal.replays(),
        "job ended"
    );
}
