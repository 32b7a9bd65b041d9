//! What only the passing of time brings about.

use std::time::Instant;

use orcd_shared::error::ErrorCode;

use super::state::{AtWorker, Dispatcher, Ending};
use crate::worker::WorkerHost;
use crate::worker::lifecycle::{Event, Phase};

impl<H: WorkerHost> Dispatcher<H> {
    /// Looks at all clocks.
    pub(super) fn tick(&mut self, now: Instant) {
        self.life_event(Event::Tick, now);
        self.watch_worker(now);
        for key in self.roster.keys_in_flight() {
            let late = self
                .roster
                .get(key)
                .is_some_and(|job| job.journal.job().deadline <= now);
            if late {
                let message = "the job's deadline passed; allow more time or ask for fewer tokens";
                let ending = Ending::Error(ErrorCode::InferenceTimeout, message.into());
                self.end_job(key, ending, AtWorker::Abandon);
            } else {
                self.comment_if_waiting(key, now);
            }
        }
        self.roster.expire(now);
        if self.drain_by.is_some_and(|by| by <= now) {
            let message = "the service is stopping; send the job again, elsewhere";
            self.end_all(ErrorCode::Cancelled, message, AtWorker::Abandon);
        }
    }

    fn watch_worker(&mut self, now: Instant) {
        let timing = &self.settings.timing;
        let limit = match self.life.phase {
            Phase::Ready { .. } => timing.silence,
            Phase::Loading { .. } => timing.loading_silence,
            _ => return,
        };
        let stalled = self.roster.running() > 0 && self.worker.pulse.stalled(now, timing.stall);
        if stalled != self.worker.stalled {
            tracing::warn!(
                stalled,
                "the worker's engine {}",
                if stalled { "stands still" } else { "moves" }
            );
            self.worker.stalled = stalled;
        }
        if self.worker.pulse.silent(now, limit) {
            self.hung(format!("nothing was heard of it for {} s", limit.as_secs()));
        }
    }
}
