//! What clients ask for: submit, cancel, resume, drain; and their going away.

use std::time::Instant;

use orcd_shared::error::ErrorCode;
use orcd_shared::job::JobKey;
use orcd_shared::protocol::message::{MAX_PARALLEL, ToWorker};

use super::super::admission::{self, Situation};
use super::super::journal::Journal;
use super::super::{CancelStatus, Command, Departure, JobStream, NewJob, Refusal};
use super::Answer;
use super::roster::{Job, Place, Reader};
use super::state::{AtWorker, Dispatcher, Ending};
use crate::worker::WorkerHost;
use crate::worker::lifecycle::Phase;

impl<H: WorkerHost> Dispatcher<H> {
    pub(super) fn command(&mut self, command: Command, now: Instant) -> Answer {
        match command {
            Command::Submit { job, reply } => Answer::Submit(reply, self.submit(*job, now)),
            Command::Cancel { job_id, reply } => Answer::Cancel(reply, self.cancel(&job_id)),
            Command::Resume {
                job_id,
                after,
                reply,
            } => Answer::Resume(reply, self.resume(&job_id, after, now)),
            Command::Ping { reply } => Answer::Ping(reply),
            Command::Drain => {
                let by = now + self.settings.drain_timeout;
                self.drain_by.get_or_insert(by);
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
        let (reader, stream) = self.open_stream(key, 0);
        let job = Job {
            journal: Journal::new(key, job, limit),
            reader: Some(reader),
            place: Place::Waiting,
            submitted: now,
            next_comment: now,
            crashes: 0,
        };
        self.roster.enqueue(key, job);
        self.fill_worker(now);
        self.comment_if_waiting(key, now);
        Ok(stream)
    }

    fn situation(&self, name: &str) -> Situation {
        Situation {
            state: self.service_state(),
            name_taken: self.roster.in_flight(name).is_some(),
            queued: self.roster.waiting(),
            queue_limit: self.settings.queue,
            free_slots: self.free_slots(),
            context: self.worker.info.as_ref().map_or(0, |info| info.context),
            max_tokens_out: self.settings.max_tokens_out,
        }
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
        if let Some(event) = job.journal.started(jiff::Timestamp::now()) {
            // Comments leave room for it.
            job.offer(event);
        }
        let spec = job.journal.submission();
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

    fn resume(&mut self, name: &str, after: Option<u64>, now: Instant) -> Option<JobStream> {
        let key = self.roster.named(name)?;
        let job = self.roster.get(key)?;
        // Event ids are the places of the kept events.
        let from = after.map_or(0, |id| {
            usize::try_from(id.saturating_add(1)).unwrap_or(usize::MAX)
        });
        let missed = job.journal.kept()?.get(from..).unwrap_or_default().to_vec();
        let ended = job.place == Place::Ended;
        let (mut reader, mut stream) = self.open_stream(key, missed.len());
        stream.complete = ended && missed.is_empty();
        for event in missed {
            reader.offer(event);
        }
        if !ended {
            // Of a reader that claims to have more than there is yet.
            reader.next = after.map_or(0, |id| id.saturating_add(1));
            // A reader that was still there is replaced, and its stream ends.
            self.roster.get_mut(key)?.reader = Some(reader);
            self.comment_if_waiting(key, now);
        }
        Some(stream)
    }

    /// A reader's stream was dropped.
    pub(super) fn reader_left(&mut self, departure: Departure) {
        let Some(job) = self.roster.get_mut(departure.key) else {
            return;
        };
        if job
            .reader
            .as_ref()
            .is_none_or(|reader| reader.id != departure.reader)
        {
            return;
        }
        job.reader = None;
        if job.journal.kept().is_none() {
            let ending = Ending::Error(ErrorCode::Cancelled, "the client went away".into());
            self.end_job(departure.key, ending, AtWorker::Abandon);
        }
    }

    /// Sends the keep-alive comment of a waiting job, or of one that was held for long, when it is due.
    pub(super) fn comment_if_waiting(&mut self, key: JobKey, now: Instant) {
        let every = self.settings.timing.keep_alive;
        let Some(job) = self.roster.get_mut(key) else {
            return;
        };
        match job.place {
            Place::Waiting | Place::Held => {}
            Place::Running | Place::Ended => {
                // A short hold is to be a pause and nothing else.
                job.next_comment = now + every;
                return;
            }
        }
        if job.next_comment > now {
            return;
        }
        job.next_comment = now + every;
        if let Some(reader) = &job.reader {
            reader.comment();
        }
    }

    fn open_stream(&mut self, key: JobKey, backlog: usize) -> (Reader, JobStream) {
        self.last_reader += 1;
        let (reader, events) = Reader::open(self.last_reader, backlog);
        let departure = Departure {
            key,
            reader: reader.id,
        };
        (
            reader,
            JobStream {
                events,
                complete: false,
                departure,
                departures: self.departures.clone(),
            },
        )
    }
}
