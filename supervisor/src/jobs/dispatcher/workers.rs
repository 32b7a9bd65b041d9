//! What the fleet says, and what follows from it for jobs.

use std::time::Instant;

use orcd_shared::error::ErrorCode;
use orcd_shared::job::JobKey;
use orcd_shared::protocol::message::StepReport;

use super::state::Dispatcher;
use crate::jobs::journal::Ending;
use crate::jobs::table::{Lookup, Shown, Work};
use crate::worker::WorkerHost;
use crate::worker::fleet::FleetEvent;
use crate::worker::lifecycle::Outcome;

/// A job that was running in so many crashes is taken for their cause.
const SUSPECT_CRASHES: u32 = 3;

impl<H: WorkerHost> Dispatcher<H> {
    /// Follows what the fleet has to say, until it has nothing more to say.
    pub(super) fn follow_fleet(&mut self, now: Instant) {
        while let Some(event) = self.fleet.next_event() {
            match event {
                FleetEvent::Tokens(report) => self.tokens(report, now),
                FleetEvent::Begun { key, cached } => match self.table.begin(key, cached) {
                    Some(Lookup::First { asked, found }) => {
                        self.metrics.looked_up(asked.into(), found.into());
                    }
                    Some(Lookup::Replay { adopted }) => self.metrics.adopted(adopted.into()),
                    None => {}
                },
                FleetEvent::JobFailed { key, code, message } => {
                    self.fail_job(key, code, message, now);
                }
                FleetEvent::Preempted(key) => {
                    self.table.preempt(key);
                    self.metrics.preempted();
                }
                FleetEvent::Ready { generation } => self.ready(generation, now),
                FleetEvent::Lost {
                    generation,
                    on_demand,
                } => self.lost(generation, on_demand, now),
                FleetEvent::Reaped(worker) => self.write_crash_bundle(*worker),
                FleetEvent::Over(outcome) => self.finish(outcome, now),
            }
        }
    }

    /// Gives the worker jobs while it has free slots and KV pages: first those of its predecessor, then those that it
    /// preempted, then the queue's.
    pub(super) fn fill_worker(&mut self, now: Instant) {
        while self.fleet.free_slots() > 0
            && let Some(start) =
                (self.table).start_next(self.fleet.kv_pages(), now, jiff::Timestamp::now())
        {
            if let Some(waited) = start.waited {
                self.metrics.job_started(waited, start.prompt_tokens.into());
            }
            match start.work {
                Work::Submit(job) => self.fleet.submit(job, now),
                Work::End(key, ending) => self.end_job(key, ending, now),
            }
            // It may have lost the worker.
            self.follow_fleet(now);
        }
    }

    /// This runs for every token.
    fn tokens(&mut self, report: StepReport, now: Instant) {
        let mut logprobs = report.logprobs.into_iter().peekable();
        for token in report.tokens {
            let logprobs = logprobs.next_if(|of| of.key == token.key);
            let Some(progress) = self.table.token(token, logprobs, report.step_us, now) else {
                continue;
            };
            if let Some(shown) = progress.shown {
                self.count_token(&shown, now);
            }
            if let Some(ending) = progress.ending {
                let is_success = !matches!(ending, Ending::Error(..));
                self.end_job(token.key, ending, now);
                if is_success {
                    self.fleet.job_finished(now);
                }
            }
        }
    }

    fn count_token(&mut self, shown: &Shown, now: Instant) {
        self.metrics.tokens(1);
        if shown.is_first {
            self.metrics.first_token(shown.after);
        } else {
            self.metrics.inter_token(shown.after);
        }
        if shown.is_replayed {
            self.failed_over(now);
        }
    }

    /// A worker is ready: it serves from now on, and [`Dispatcher::fill_worker`] hands it its jobs. Where
    /// jobs are replayed one after the other to find the one that workers die of, it may as well be what
    /// is in the pages: nothing of that is believed then.
    fn ready(&mut self, generation: u64, now: Instant) {
        let keep = self.table.replays_together();
        let (jobs, tokens) = self.table.replay_work();
        let at_once = if keep { jobs } else { jobs.min(1) };
        let replays = u32::try_from(at_once).unwrap_or(u32::MAX);
        self.fleet.serve(generation, keep, replays, now);
        if jobs == 0 {
            self.failed_over(now);
        } else {
            tracing::info!(jobs, tokens, "jobs are replayed");
            self.metrics.replayed(jobs, tokens);
        }
    }

    /// The failover that was under way, if any, is over.
    fn failed_over(&mut self, now: Instant) {
        if let Some(lost_at) = self.lost_at.take() {
            self.metrics
                .failover(now.saturating_duration_since(lost_at));
        }
    }

    /// The worker is lost: its jobs wait for the next, but for those that were there too often. A loss `on_demand` is
    /// no job's fault.
    fn lost(&mut self, generation: u64, on_demand: bool, now: Instant) {
        self.lost_at = Some(now);
        let jobs = self.table.suspend(!on_demand);
        self.note_crashed_jobs(generation, &jobs);
        for (key, _) in jobs.into_iter().filter(|(_, is_suspect)| *is_suspect) {
            self.judge(key, now);
        }
    }

    fn judge(&mut self, suspect: JobKey, now: Instant) {
        let crashes = (self.table.in_flight(suspect)).map_or(0, |job| job.crashes);
        if crashes >= SUSPECT_CRASHES {
            let message = format!(
                "the worker crashed {crashes} times while this job was running; it is not tried again"
            );
            self.fail_job(suspect, ErrorCode::WorkerCrashed, message, now);
        }
    }

    fn finish(&mut self, outcome: Outcome, now: Instant) {
        let (code, message) = match &outcome {
            Outcome::Stopped => (ErrorCode::Cancelled, "the service is stopping"),
            _ => (
                ErrorCode::WorkerUnavailable,
                "the worker can't be kept alive",
            ),
        };
        self.fail_all(code, message, now);
        self.outcome = Some(outcome);
    }
}
