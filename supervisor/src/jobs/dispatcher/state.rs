//! What the dispatcher owns, and what it does after each turn.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use orcd_shared::crash::CrashedJob;
use orcd_shared::error::ErrorCode;
use orcd_shared::job::JobKey;
use tokio::sync::mpsc;

use super::super::ServiceState;
use super::super::journal::{Ending, Journal};
use super::super::table::JobTable;
use super::DispatcherSettings;
use super::publisher::{self, Publisher};
use crate::metrics::Metrics;
use crate::worker::WorkerHost;
use crate::worker::fleet::Fleet;
use crate::worker::lifecycle::Outcome;

/// A gap between two turns of the dispatcher that says something about this process and not about
/// the others: many times [`super::Timing::tick`], at which it turns at the latest.
const OWN_ABSENCE: Duration = Duration::from_millis(400);

/// All state of the service. It only routes: what clients ask for and what the fleet says goes to the
/// table, and what that decides goes to the fleet, to readers and into metrics. Methods are spread over
/// this module's siblings by subject.
pub(super) struct Dispatcher<H> {
    pub(super) settings: DispatcherSettings,
    pub(super) metrics: Arc<Metrics>,
    pub(super) fleet: Fleet<H>,
    pub(super) table: JobTable,
    pub(super) publisher: Publisher,
    pub(super) disconnects: mpsc::UnboundedSender<JobKey>,
    /// The jobs of lost workers that have yet to be reaped, for crash bundles.
    pub(super) crashed_jobs: HashMap<u64, Vec<CrashedJob>>,
    /// When the worker was lost, until the failover is over: see
    /// [`crate::metrics::Metrics::failover`].
    pub(super) lost_at: Option<Instant>,
    /// Set while draining: when to cancel what is left.
    pub(super) drain_by: Option<Instant>,
    pub(super) outcome: Option<Outcome>,
    /// When the latest turn began.
    pub(super) turned: Option<Instant>,
}

impl<H: WorkerHost> Dispatcher<H> {
    /// The present, at the beginning of a turn. After a time in which this process itself did not run
    /// (a suspended machine, a stopped process, one that got no processor) every clock that judges
    /// somebody else is set forward by it, before anybody is judged: nobody else is to blame for what
    /// did not come meanwhile. Clocks that are promises to others go on: a job's deadline, the end of
    /// draining.
    pub(super) fn turn(&mut self) -> Instant {
        let now = tokio::time::Instant::now().into_std();
        let gap = self
            .turned
            .replace(now)
            .map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        if gap > OWN_ABSENCE + self.settings.fleet.timing.tick {
            tracing::warn!("this process did not run for {} ms", gap.as_millis());
            self.fleet.extend_deadlines(gap);
            self.table.extend_deadlines(gap);
        }
        now
    }

    /// Looks at all clocks.
    pub(super) fn tick(&mut self, now: Instant) {
        self.fleet.tick(now);
        self.follow_fleet(now);
        self.enforce_bounds(now);
    }

    /// Does what has become possible, and publishes the result.
    pub(super) fn advance(&mut self, now: Instant) {
        self.follow_fleet(now);
        self.fill_worker(now);
        if self.drain_by.is_some() && self.table.is_idle() {
            self.fleet.stop(now);
            self.follow_fleet(now);
        }
        self.fleet.report_health();
        let state = self.service_state();
        self.publisher.publish(state, &self.table, &self.fleet);
    }

    pub(super) fn service_state(&self) -> ServiceState {
        if self.drain_by.is_some() {
            ServiceState::Draining
        } else {
            self.fleet.state()
        }
    }

    pub(super) fn free_slots(&self) -> usize {
        publisher::free_slots(&self.table, &self.fleet)
    }

    /// Ends a job: the last event into its log, a cancellation to the worker if it still has it, the slot free.
    pub(super) fn end_job(&mut self, key: JobKey, ending: Ending, now: Instant) {
        let Some(job) = self.table.in_flight(key) else {
            return;
        };
        let outcome = ending.outcome();
        log_end(&job.journal, outcome);
        self.metrics.job_finished(outcome);
        self.metrics
            .end_to_end(now.saturating_duration_since(job.submitted));
        self.table.end(key, ending, now + self.settings.resume_ttl);
        self.fleet.cancel(key, now);
    }

    pub(super) fn fail_job(
        &mut self,
        key: JobKey,
        code: ErrorCode,
        message: impl Into<String>,
        now: Instant,
    ) {
        self.end_job(key, Ending::Error(code, message.into()), now);
    }

    /// Ends every job in flight with the same error.
    pub(super) fn fail_all(&mut self, code: ErrorCode, message: &str, now: Instant) {
        for key in self.table.keys_in_flight() {
            self.fail_job(key, code, message, now);
        }
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
