//! What clients ask for: submit, cancel, resume, drain; and their going away.

use std::time::Instant;

use orcd_shared::error::ErrorCode;

use super::super::admission::Situation;
use super::super::{CancelStatus, Command, Departure, JobStream, NewJob, NoStream, Refusal};
use super::Answer;
use super::state::Dispatcher;
use crate::worker::WorkerHost;

impl<H: WorkerHost> Dispatcher<H> {
    pub(super) fn command(&mut self, command: Command, now: Instant) -> Answer {
        match command {
            Command::Submit { job, reply } => Answer::Submit(reply, self.submit(*job, now)),
            Command::Cancel { job_id, reply } => Answer::Cancel(reply, self.cancel(&job_id, now)),
            Command::Resume {
                job_id,
                after,
                reply,
            } => Answer::Resume(reply, self.resume(&job_id, after)),
            Command::Ping { reply } => Answer::Ping(reply),
            Command::Drain => {
                let by = now + self.settings.drain_timeout;
                self.drain_by.get_or_insert(by);
                Answer::Nothing
            }
            Command::Abort => {
                tracing::warn!("stopped at once: jobs are cancelled, workers killed");
                self.fleet.abort();
                Answer::Nothing
            }
        }
    }

    fn submit(&mut self, job: NewJob, now: Instant) -> Result<JobStream, Refusal> {
        let situation = Situation {
            state: self.service_state(),
            name_taken: self.table.named_in_flight(&job.job_id).is_some(),
            queued: self.table.waiting(),
            queue_limit: self.settings.queue,
            queued_bytes: self.table.waiting_bytes(),
            queue_bytes: self.settings.bounds.queue_bytes,
            free_places: self.free_places(),
            context: self.fleet.info().map_or(0, |info| info.context),
            max_tokens_out: self.settings.max_tokens_out,
        };
        let (key, events) = self.table.submit(job, &situation, now)?;
        Ok(JobStream::new(key, events, self.departures.clone()))
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
        Ok(JobStream::new(key, events, self.departures.clone()))
    }

    /// A reader's stream was dropped.
    pub(super) fn reader_left(&mut self, departure: Departure, now: Instant) {
        if self.table.reader_left(departure.key) {
            let (code, message) = (ErrorCode::Cancelled, "the client went away");
            self.fail_job(departure.key, code, message, now);
        }
    }
}
