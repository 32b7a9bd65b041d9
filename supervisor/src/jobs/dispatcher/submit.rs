//! What clients ask for: submit, cancel, resume, drain; and their going away.

use std::time::{Duration, Instant};

use orcd_shared::error::ErrorCode;
use orcd_shared::job::JobKey;
use orcd_shared::protocol::message::{MAX_PARALLEL, ToWorker};

use super::super::admission::{self, Situation};
use super::super::event_log::EventLog;
use super::super::journal::Journal;
use super::super::{CancelStatus, Command, Departure, JobStream, NewJob, NoStream, Refusal};
use super::Answer;
use super::roster::{Job, Place};
use super::state::{AtWorker, Dispatcher, Ending};
use crate::worker::WorkerHost;
use crate::worker::lifecycle::{Outcome, Phase};

impl<H: WorkerHost> Dispatcher<H> {
    pub(super) fn command(&mut self, command: Command, now: Instant) -> Answer {
        match command {
            Command::Submit { job, reply } => Answer::Submit(reply, self.submit(*job, now)),
            Command::Cancel { job_id, reply } => Answer::Cancel(reply, self.cancel(&job_id)),
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
                self.finish(Outcome::Stopped);
                Answer::Nothing
            }
        }
    }

    fn submit(&mut self, job: NewJob, now: Instant) -> Result<JobStream, Refusal> {
        let limit = admission::decide(
            &self.situation(&job.job_id),
            job.prompt.len(),
            job.max_tokens,
        )?;
        self.last_key += 1;
        let key = JobKey(self.last_key);
        let log = EventLog::new(job.continue_on_disconnect, self.roster.log_bytes());
        let stream = JobStream::new(key, log.reader(0), self.departures.clone());
        let job = Job {
            journal: Journal::new(key, job, limit),
            log,
            readers: 1,
            place: Place::Waiting,
            submitted: now,
            crashes: 0,
            behind: Duration::ZERO,
        };
        self.roster.enqueue(key, job);
        self.fill_worker(now);
        Ok(stream)
    }

    fn situation(&self, name: &str) -> Situation {
        Situation {
            state: self.service_state(),
            name_taken: self.roster.in_flight(name).is_some(),
            queued: self.roster.waiting(),
            queue_limit: self.settings.queue,
            queued_bytes: self.roster.waiting_bytes(),
            queue_bytes: self.settings.bounds.queue_bytes,
            free_places: self.free_places(),
            context: self.worker.info.as_ref().map_or(0, |info| info.context),
            max_tokens_out: self.settings.max_tokens_out,
        }
    }

    /// The same for jobs to come: places that held jobs will take are theirs.
    pub(super) fn free_places(&self) -> usize {
        self.free_slots().saturating_sub(self.roster.held())
    }

    /// Sequences that the worker could begin now.
    fn free_slots(&self) -> usize {
        match (&self.life.phase, &self.worker.info) {
            (Phase::Ready { .. }, Some(info)) => {
                let places = info.parallel.min(MAX_PARALLEL) as usize;
                places.saturating_sub(self.roster.occupied())
            }
            _ => 0,
        }
    }

    /// Gives the worker jobs while it has room: first those of its predecessor, then the queue's.
    pub(super) fn fill_worker(&mut self, now: Instant) {
        while self.free_slots() > 0 {
            if self.roster.running() == 0
                && let Some(member) = self.crew.get_mut(self.life.generation)
            {
                member.pulse.moved(now);
            }
            let Some(key) = self.roster.start_next() else {
                return;
            };
            self.start_job(key);
        }
    }

    fn start_job(&mut self, key: JobKey) {
        let Some(job) = self.roster.get_mut(key) else {
            return;
        };
        let waited = job.submitted.elapsed();
        let started = job.journal.started(jiff::Timestamp::now());
        let is_first = started.is_some();
        if let Some(event) = started {
            job.log.push(event);
        }
        let spec = job.journal.submission();
        if is_first {
            self.metrics.job_started(waited, spec.prompt.len() as u64);
        }
        if let Some(member) = self.crew.get_mut(self.life.generation) {
            member.pulse.submitted();
        }
        self.tell_worker(ToWorker::Submit(Box::new(spec)));
    }

    fn cancel(&mut self, name: &str) -> CancelStatus {
        let Some(key) = self.roster.in_flight(name) else {
            return CancelStatus::Unknown;
        };
        let ending = Ending::Error(ErrorCode::Cancelled, "the job was cancelled".into());
        self.end_job(key, ending, AtWorker::Abandon);
        CancelStatus::Cancelling
    }

    fn resume(&mut self, name: &str, after: Option<u64>) -> Result<JobStream, NoStream> {
        let key = self.roster.named(name).ok_or(NoStream::Unknown)?;
        let job = self.roster.get_mut(key).ok_or(NoStream::Unknown)?;
        if !job.log.keeps() {
            return Err(NoStream::Unknown);
        }
        let events = job.log.next_id();
        let next = after.map_or(0, |id| id.saturating_add(1));
        if next > events {
            return Err(NoStream::Ahead { events });
        }
        if next == events && job.place == Place::Ended {
            return Err(NoStream::Complete);
        }
        if job.readers >= self.settings.bounds.readers_per_job {
            let readers = job.readers;
            return Err(NoStream::Crowded { readers });
        }
        job.readers += 1;
        let events = job.log.reader(next);
        Ok(JobStream::new(key, events, self.departures.clone()))
    }

    /// A reader's stream was dropped.
    pub(super) fn reader_left(&mut self, departure: Departure) {
        let key = departure.key;
        let alone = self.roster.reader_left(key);
        if alone && self.roster.get(key).is_some_and(|job| !job.log.keeps()) {
            let ending = Ending::Error(ErrorCode::Cancelled, "the client went away".into());
            self.end_job(key, ending, AtWorker::Abandon);
        }
    }
}
