//! What clients ask for: submit, cancel, resume, drain; and their going away.

use std::time::Instant;

use orcd_shared::error::ErrorCode;
use orcd_shared::job::JobKey;
use orcd_shared::kv;

use super::super::admission::AdmissionContext;
use super::super::{CancelStatus, Command, JobName, JobStream, NewJob, NoStream, Rejection};
use super::state::Dispatcher;
use super::{Answer, answer};
use crate::worker::WorkerHost;

impl<H: WorkerHost> Dispatcher<H> {
    pub(super) fn command(&mut self, command: Command, now: Instant) -> Option<Answer> {
        match command {
            Command::Submit { jobs, reply } => answer(reply, self.submit(jobs, now)),
            Command::Cancel { job, reply } => answer(reply, self.cancel(&job, now)),
            Command::Resume { job, after, reply } => answer(reply, self.resume(&job, after)),
            Command::KillWorker { reply } => answer(reply, self.fleet.kill_serving()),
            Command::Ping { reply } => answer(reply, ()),
            Command::Drain => {
                let by = now + self.settings.drain_timeout;
                self.drain_by.get_or_insert(by);
                None
            }
            Command::Abort => {
                tracing::warn!("stopped at once: jobs are cancelled, workers killed");
                self.fleet.abort();
                None
            }
        }
    }

    fn submit(&mut self, jobs: Vec<NewJob>, now: Instant) -> Result<Vec<JobStream>, Rejection> {
        let context = AdmissionContext {
            state: self.service_state(),
            queued: self.table.waiting(),
            queue_limit: self.settings.queue,
            queued_bytes: self.table.waiting_bytes(),
            queue_bytes: self.settings.bounds.queue_bytes,
            free_slots: self.free_slots(),
            context: self.fleet.info().map_or(0, |info| info.context),
            positions: (self.fleet.info())
                .map_or(0, |info| kv::positions(info.kv_pages, info.context)),
        };
        let taken = self.table.submit(jobs, &context, now)?;
        let stream = |(key, events)| JobStream::new(key, events, self.disconnects.clone());
        Ok(taken.into_iter().map(stream).collect())
    }

    fn cancel(&mut self, name: &JobName, now: Instant) -> CancelStatus {
        let keys = self.table.of_request_in_flight(name);
        if keys.is_empty() {
            return CancelStatus::Unknown;
        }
        for key in keys {
            self.fail_job(key, ErrorCode::Cancelled, "the job was cancelled", now);
        }
        CancelStatus::Cancelling
    }

    fn resume(&mut self, name: &JobName, after: Option<u64>) -> Result<JobStream, NoStream> {
        let most = self.settings.bounds.readers_per_job;
        let (key, events) = self.table.resume(name, after, most)?;
        Ok(JobStream::new(key, events, self.disconnects.clone()))
    }

    /// A reader's stream was dropped.
    pub(super) fn reader_left(&mut self, key: JobKey, now: Instant) {
        if self.table.reader_left(key) {
            self.fail_job(key, ErrorCode::Cancelled, "the client went away", now);
        }
    }
}
