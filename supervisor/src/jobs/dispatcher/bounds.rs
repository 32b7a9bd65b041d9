//! What jobs may take of time and memory.

use std::time::{Duration, Instant};

use orcd_shared::error::ErrorCode;

use super::state::{AtWorker, Dispatcher, Ending};
use crate::worker::WorkerHost;

/// How much is held for jobs and their readers; tests make it less.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Bytes of events that the reader of a job may leave untaken, if the job ends with its reader.
    pub reader_bytes: usize,
    /// For how long it may have just more than that; with n times as much, for an nth of it. Past
    /// it the job is cancelled. Only the time counts in which this process ran: a burst after a
    /// standstill is not the reader's fault.
    pub reader_grace: Duration,
    /// Streams that may be open on one job.
    pub readers_per_job: usize,
    /// Ended jobs whose events are kept for readers to come. The oldest go first.
    pub retained_jobs: usize,
    /// Bytes of the events of all jobs, ended ones included. The oldest ended jobs go first; if that
    /// is not enough, the job in flight that holds most is cancelled.
    pub events_bytes: usize,
    /// Bytes of the prompts that wait. Past it a job is refused as for a full queue.
    pub queue_bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            reader_bytes: 1 << 20,
            reader_grace: Duration::from_secs(2),
            readers_per_job: 16,
            retained_jobs: 256,
            events_bytes: 128 << 20,
            queue_bytes: 64 << 20,
        }
    }
}

impl<H: WorkerHost> Dispatcher<H> {
    pub(super) fn end_late_jobs(&mut self, now: Instant) {
        for key in self.roster.late(now) {
            let message = "the job's deadline passed; allow more time or ask for fewer tokens";
            let ending = Ending::Error(ErrorCode::InferenceTimeout, message.into());
            self.end_job(key, ending, AtWorker::Abandon);
        }
    }

    /// Cancels the jobs whose readers do not keep up. The events of a job that goes on without
    /// readers are kept anyway: whoever is slow there costs nothing.
    pub(super) fn watch_readers(&mut self, now: Instant) {
        let last = self.readers_seen.replace(now).unwrap_or(now);
        // While this process stood still readers could not be served: that time is not theirs.
        let step = now
            .saturating_duration_since(last)
            .min(2 * self.settings.timing.tick);
        let bounds = &self.settings.bounds;
        let mut slow = Vec::new();
        for key in self.roster.running_keys() {
            let Some(job) = self.roster.get_mut(key) else {
                continue;
            };
            let excess = job.log.bytes() / bounds.reader_bytes.max(1);
            if job.log.keeps() || excess == 0 {
                job.behind = Duration::ZERO;
                continue;
            }
            job.behind += step * u32::try_from(excess).unwrap_or(u32::MAX);
            if job.behind > bounds.reader_grace {
                slow.push(key);
            }
        }
        for key in slow {
            let message = "the client reads more slowly than tokens are made";
            let ending = Ending::Error(ErrorCode::Cancelled, message.into());
            self.end_job(key, ending, AtWorker::Abandon);
        }
    }

    /// Lets go of events whose time is over, or that there is no room for.
    pub(super) fn make_room(&mut self, now: Instant) {
        let bounds = self.settings.bounds.clone();
        self.roster.expire(now, bounds.retained_jobs);
        while let Some(key) = self.roster.make_room(bounds.events_bytes) {
            let message = format!(
                "the events of all jobs take more than {} MiB, and this job holds most of them",
                bounds.events_bytes >> 20
            );
            let ending = Ending::Error(ErrorCode::Cancelled, message);
            self.end_job(key, ending, AtWorker::Abandon);
        }
    }
}
