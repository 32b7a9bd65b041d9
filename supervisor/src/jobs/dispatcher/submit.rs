//! What clients ask for: submit, cancel, resume, drain; and their going away.

use std::time::Instant;

use orcd_shared::error::ErrorCode;
use orcd_shared::job::JobKey;

use super::super::admission::AdmissionContext;
use super::super::{CancelStatus, Command, JobStream, NewJob, NoStream, Rejection};
use super::state::Dispatcher;
use super::{Answer, answer};
use crate::worker::WorkerHost;

impl<H: WorkerHost> Dispatcher<H> {
    pub(super) fn command(&mut self, command: Command, now: Instant) -> Option<Answer> {
        match command {
            Command::Submit { job, reply } => answer(reply, self.submit(*job, now)),
            Command::Cancel { job_id, reply } => answer(reply, self.cancel(&job_id, now)),
            Command::Resume {
                job_id,
                after,
                reply,
            } => answer(reply, self.resume(&job_id, after)),
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

    fn submit(&mut self, job: NewJob, now: Instant) -> Result<JobStream, Rejection> {
        let context = AdmissionContext {
            state: self.service_state(),
            name_taken: self.table.named_in_flight(&job.job_id).is_some(),
            queued: self.table.waiting(),
            queue_limit: self.settings.queue,
            queued_bytes: self.table.waiting_bytes(),
            queue_bytes: self.settings.bounds.queue_bytes,
            free_slots: self.free_slots(),
            context: self.fleet.info().map_or(0, |info| info.context),
            max_tokens_out: self.settings.max_tokens_out,
        };
        let (key, events) = self.table.submit(job, &context, now)?;
        Ok(JobStream::new(key, events, self.disconnects.clone()))
    }

    fn cancel(&mut self, name: &str, now: Instant) -> CancelStatus {
        let Some(key) = self.table.named_in_flight(name) else {
            return CancelStatus::Unknown;
        };
        self.fail_job(key, ErrorCode::Cancelled, "the job was cancelled", now);
        CancelStatus::Cancelling
    }

    fn resume(&mut self, name: &str, after: Option<u64>) -> Result<JobStream, NoStream> {
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
