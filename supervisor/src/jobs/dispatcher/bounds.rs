//! What jobs may take of time and memory.

use std::time::{Duration, Instant};

use orcd_shared::error::ErrorCode;

use super::state::Dispatcher;
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
    /// Ends the jobs that have taken too much, and lets go of events whose time is over.
    pub(super) fn enforce_bounds(&mut self, now: Instant) {
        for key in self.table.late(now) {
            let message = "the job's deadline passed; allow more time or ask for fewer tokens";
            self.fail_job(key, ErrorCode::InferenceTimeout, message, now);
        }
        let bounds = self.settings.bounds.clone();
        let longest = 2 * self.settings.fleet.timing.tick;
        for key in self.table.slow_readers(now, longest, &bounds) {
            let message = "the client reads more slowly than tokens are made";
            self.fail_job(key, ErrorCode::Cancelled, message, now);
        }
        self.table.expire(now, bounds.retained_jobs);
        while let Some(key) = self.table.make_room(bounds.events_bytes) {
            let message = format!(
                "the events of all jobs take more than {} MiB, and this job holds most of them",
                bounds.events_bytes >> 20
            );
            self.fail_job(key, ErrorCode::Cancelled, message, now);
        }
        if self.drain_by.is_some_and(|by| by <= now) {
            let message = "the service is stopping; send the job again, elsewhere";
            self.fail_all(ErrorCode::Cancelled, message, now);
        }
    }
}
