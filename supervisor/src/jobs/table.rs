//! All jobs and where each of them is: a value on which decisions are made. It holds no channel and
//! reads no clock; time comes as an argument, and what is to be done beside it goes back to whoever
//! asked. The one thing in it that others see is a job's log of events, which readers take from.
//!
//! Changes of state go through here, so that the lists and the jobs can't disagree.

mod readers;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use orcd_shared::job::{CacheScope, JobKey, JobSpec};
use orcd_shared::protocol::message::{StepToken, TokenLogprobs};

use super::admission::{self, AdmissionContext, Candidate, Limit};
use super::digest::request_digest;
use super::event_log::{EventLog, EventReader, LogBytes};
use super::journal::{Ending, Journal};
use super::pages::{self, Beginning, Claims};
use super::{JobName, NewJob, Rejection};

/// Where a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JobState {
    /// In the queue; no worker has seen it.
    Waiting,
    /// Given to the worker that serves.
    Running,
    /// It was with a worker that is lost; first in line for the next.
    AwaitingReplay,
    /// It gave its KV pages to older jobs, and goes on before any newer one begins.
    Preempted,
    /// Ended; its events are held for readers.
    Ended,
}

/// One job.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) journal: Journal,
    log: EventLog,
    /// Streams that are open on the log.
    readers: usize,
    state: JobState,
    pub(super) submitted: Instant,
    /// Crashes that it was running in.
    pub(super) crashes: u32,
    /// For how long its reader has had more to take than it may have: see
    /// [`super::dispatcher::Bounds::reader_grace`].
    behind: Duration,
}

/// A job that starts, or goes on with another worker.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) work: Work,
    /// Tokens of its prompt.
    pub(super) prompt_tokens: u32,
    /// How long it waited, if this is the first time.
    pub(super) waited: Option<Duration>,
}

/// What is to be done for a job that starts.
#[derive(Debug)]
pub(super) enum Work {
    /// The worker gets it.
    Submit(JobSpec),
    /// It ends so: all its tokens were there when it came.
    End(JobKey, Ending),
}

/// What came of a token.
#[derive(Debug)]
pub(super) struct Progress {
    /// The token became an event.
    pub(super) shown: Option<Shown>,
    /// The job is at its end.
    pub(super) ending: Option<Ending>,
}

/// A token that became an event.
#[derive(Debug)]
pub(super) struct Shown {
    /// How long its reader waited for it: since the token before it, or since the submission.
    pub(super) after: Duration,
    pub(super) is_first: bool,
    /// The job was replayed, and goes on by now.
    pub(super) is_replayed: bool,
}

/// What a job that a worker began found in pages that were kept.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    /// It began for the first time.
    First {
        /// Tokens of the prompt.
        asked: u32,
        /// Those that were kept.
        found: u32,
    },
    /// It was replayed: so many of its tokens were left by the worker that was lost.
    Replay {
        /// Those that were kept.
        adopted: u32,
    },
}

/// All jobs.
#[derive(Debug, Default)]
pub(super) struct JobTable {
    jobs: HashMap<JobKey, Job>,
    names: HashMap<JobName, JobKey>,
    last_key: u64,
    /// Keys rise with submission, so this is also the order in which jobs came.
    waiting: BTreeSet<JobKey>,
    waiting_bytes: usize,
    /// Of all jobs in flight, earliest first.
    deadlines: BTreeSet<(Instant, JobKey)>,
    /// In the order in which they began, too.
    running: BTreeSet<JobKey>,
    awaiting_replay: BTreeSet<JobKey>,
    /// Oldest first.
    preempted: BTreeSet<JobKey>,
    /// How often a job was preempted.
    preemptions: u64,
    /// Replayed jobs that have yet to show a new token. Until they have, no other job begins: should the
    /// worker die of one of them, that is known.
    replaying: BTreeSet<JobKey>,
    /// The last worker was lost in the middle of replays: the next replay begins when the one before
    /// has shown a new token.
    one_by_one: bool,
    /// Ended jobs that readers may come to, and until when; soonest first.
    retained: VecDeque<(Instant, JobKey)>,
    /// Ended jobs that nobody can come to any more, but somebody still reads.
    unread: BTreeSet<JobKey>,
    log_bytes: LogBytes,
    /// When readers were looked at last.
    readers_seen: Option<Instant>,
}

impl Job {
    /// Bytes that it takes while it waits.
    fn waiting_bytes(&self) -> usize {
        let job = self.journal.job();
        let constraint = job.options.constraint.as_ref();
        size_of_val(job.prompt.as_slice())
            + size_of_val(self.journal.tokens())
            + constraint.map_or(0, |c| c.text().len())
    }
}

impl JobTable {
    /// The job, if it has not ended.
    pub(super) fn in_flight(&self, key: JobKey) -> Option<&Job> {
        self.jobs
            .get(&key)
            .filter(|job| job.state != JobState::Ended)
    }

    /// The job of this name that has not ended.
    pub(super) fn named_in_flight(&self, name: &JobName) -> Option<JobKey> {
        let key = *self.names.get(name)?;
        self.in_flight(key).map(|_| key)
    }

    /// The job of this name, and all others of the request of this name, that have not ended.
    pub(super) fn of_request_in_flight(&self, name: &JobName) -> Vec<JobKey> {
        let belongs = |job: &NewJob| job.owner == name.owner && *job.request == *name.name;
        let mut keys = self.keys_in_flight();
        let named = self.named_in_flight(name);
        keys.retain(|key| {
            let job = self.jobs.get(key).map(|job| job.journal.job());
            Some(*key) == named || job.is_some_and(belongs)
        });
        keys
    }

    pub(super) fn keys_in_flight(&self) -> Vec<JobKey> {
        let mut keys: Vec<JobKey> = self.begun_keys().collect();
        keys.extend(&self.waiting);
        keys
    }

    fn begun_keys(&self) -> impl Iterator<Item = JobKey> {
        let held = self.awaiting_replay.union(&self.preempted);
        let mut keys: Vec<JobKey> = held.chain(&self.running).copied().collect();
        keys.sort_unstable();
        keys.into_iter()
    }

    /// Jobs in flight whose deadline has come.
    pub(super) fn late(&self, now: Instant) -> Vec<JobKey> {
        let due = self.deadlines.range(..=(now, JobKey(u64::MAX)));
        due.map(|(_, key)| *key).collect()
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Bytes of the prompts that wait.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Jobs that a worker has begun, lost and preempted ones included.
    pub(super) fn begun(&self) -> usize {
        self.running.len() + self.held()
    }

    /// Jobs that have begun and are with no worker: the next slots are theirs.
    pub(super) fn held(&self) -> usize {
        self.awaiting_replay.len() + self.preempted.len()
    }

    /// How often a job was preempted.
    pub(super) fn preemptions(&self) -> u64 {
        self.preemptions
    }

    /// Jobs that wait for the next worker, or for their turn with it.
    pub(super) fn awaiting_replay(&self) -> usize {
        self.awaiting_replay.len()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.begun() == 0
    }

    /// Takes all of some jobs or refuses them all. Those that are taken wait at the end of the queue; ended
    /// jobs of their names can't be found any more.
    ///
    /// # Errors
    /// The rejection, as the client gets it.
    pub(super) fn submit(
        &mut self,
        jobs: Vec<NewJob>,
        context: &AdmissionContext,
        now: Instant,
    ) -> Result<Vec<(JobKey, EventReader)>, Rejection> {
        let candidate = |job: &NewJob| Candidate {
            name_taken: self.named_in_flight(&job.name()).is_some(),
            prompt_tokens: job.prompt.len(),
            wanted: job.max_tokens,
        };
        let candidates: Vec<_> = jobs.iter().map(candidate).collect();
        let limits = admission::decide(context, &candidates)?;
        let mut digests = Vec::with_capacity(jobs.len());
        for (job, &limit) in jobs.iter().zip(&limits) {
            let digest = request_digest(job, limit);
            admission::check_resumption(job, &digest, limit)?;
            digests.push(digest);
        }
        let taken = jobs.into_iter().zip(limits).zip(digests);
        Ok(taken
            .map(|((job, limit), digest)| self.take(job, limit, digest, now))
            .collect())
    }

    fn take(
        &mut self,
        job: NewJob,
        limit: Limit,
        digest: Box<str>,
        now: Instant,
    ) -> (JobKey, EventReader) {
        self.last_key += 1;
        let key = JobKey(self.last_key);
        let (name, deadline) = (job.name(), job.deadline);
        let log = EventLog::new(job.continue_on_disconnect, self.log_bytes.clone());
        let reader = log.reader(0);
        let job = Job {
            journal: Journal::new(key, job, limit, digest),
            log,
            readers: 1,
            state: JobState::Waiting,
            submitted: now,
            crashes: 0,
            behind: Duration::ZERO,
        };
        self.waiting_bytes += job.waiting_bytes();
        self.deadlines.insert((deadline, key));
        self.waiting.insert(key);
        self.jobs.insert(key, job);
        if let Some(old) = self.names.insert(name, key) {
            self.retained.retain(|(_, key)| *key != old);
            self.release(old);
        }
        (key, reader)
    }

    /// The next job for the worker, now running: first those that await their replay, those with the fewest
    /// crashes first, then those that were preempted, then the queue's. Where a pool of `kv_pages` has no
    /// room for the first of them, none begins: whoever is next is not overtaken for ever by smaller ones.
    /// `started_at` is for people.
    pub(super) fn start_next(
        &mut self,
        kv_pages: u32,
        now: Instant,
        started_at: jiff::Timestamp,
    ) -> Option<Start> {
        let (key, beginning) = self.next()?;
        let waits_for_replays = self.one_by_one || beginning == Beginning::Fresh;
        if waits_for_replays && !self.replaying.is_empty() {
            return None;
        }
        if !self.has_room(kv_pages, key, beginning) {
            return None;
        }
        if self.awaiting_replay.remove(&key) {
            self.replaying.insert(key);
        }
        self.preempted.remove(&key);
        let job = self.jobs.get_mut(&key)?;
        if self.waiting.remove(&key) {
            self.waiting_bytes -= job.waiting_bytes();
        }
        self.running.insert(key);
        job.state = JobState::Running;
        let started = job.journal.started(started_at);
        let waited = (!started.is_empty()).then(|| now.saturating_duration_since(job.submitted));
        started.into_iter().for_each(|event| job.log.push(event));
        Some(Start {
            prompt_tokens: job.journal.prompt_tokens(),
            waited,
            work: match job.journal.over() {
                Some(ending) => Work::End(key, ending),
                None => Work::Submit(job.journal.submission()),
            },
        })
    }

    /// Whether there is a job that waits for KV memory alone, if there is a slot: no other may begin before it.
    pub(super) fn is_short_of_pages(&self, kv_pages: u32) -> bool {
        let next = self.next();
        next.is_some_and(|(key, beginning)| !self.has_room(kv_pages, key, beginning))
    }

    fn next(&self) -> Option<(JobKey, Beginning)> {
        if let Some(key) = self.next_replay() {
            return Some((key, Beginning::Replay));
        }
        let fresh = self.preempted.first().or(self.waiting.first())?;
        Some((*fresh, Beginning::Fresh))
    }

    fn has_room(&self, kv_pages: u32, key: JobKey, beginning: Beginning) -> bool {
        let Some(job) = self.jobs.get(&key) else {
            return false;
        };
        let mut running = Claims::default();
        for job in self.running.iter().filter_map(|key| self.jobs.get(key)) {
            running.add(job.journal.positions(), job.journal.most_positions());
        }
        pages::has_room(kv_pages, running, job.journal.positions(), beginning)
    }

    /// The worker has given the job's KV pages to older ones, and has nothing of it any more. It is to blame for no
    /// crash until it runs again, and nobody waits any longer for what its replay shows.
    pub(super) fn preempt(&mut self, key: JobKey) {
        if !self.running.remove(&key) {
            return;
        }
        self.preempted.insert(key);
        self.preemptions += 1;
        if let Some(job) = self.jobs.get_mut(&key) {
            job.state = JobState::Preempted;
            job.journal.preempted();
        }
        self.confirm_replay(key);
    }

    fn next_replay(&self) -> Option<JobKey> {
        let crashes = |key: &JobKey| self.jobs.get(key).map_or(0, |job| job.crashes);
        self.awaiting_replay
            .iter()
            .copied()
            .min_by_key(|key| (crashes(key), *key))
    }

    /// A worker has begun with a job, and so many of its tokens were kept. `None` if there is nothing to count: it was
    /// preempted before, or keeps its pages to itself and begins for the first time, or is over.
    pub(super) fn begin(&mut self, key: JobKey, cached: u32) -> Option<Lookup> {
        let job = self.jobs.get_mut(&key)?;
        if job.state != JobState::Running {
            return None;
        }
        let Some(found) = job.journal.begun(cached) else {
            let is_replay = self.replaying.contains(&key);
            return is_replay.then_some(Lookup::Replay { adopted: cached });
        };
        let shares = job.journal.job().options.cache != CacheScope::Job;
        shares.then(|| Lookup::First {
            asked: job.journal.prompt_tokens(),
            found,
        })
    }

    /// Takes a token from the worker. The token's text moves into the log; readers copy it, each in
    /// its own task. `None`: the job was cancelled meanwhile, and its stream has its last event.
    pub(super) fn token(
        &mut self,
        token: StepToken,
        logprobs: Option<TokenLogprobs>,
        step_us: u32,
        now: Instant,
    ) -> Option<Progress> {
        let job = self.jobs.get_mut(&token.key)?;
        if job.state != JobState::Running {
            return None;
        }
        let before = job.journal.last_token();
        let outcome = job.journal.record_token(token, logprobs, step_us, now);
        let shown = outcome.event.map(|event| {
            job.log.push(event);
            Shown {
                after: now.saturating_duration_since(before.unwrap_or(job.submitted)),
                is_first: before.is_none(),
                is_replayed: job.journal.replays() > 0,
            }
        });
        if shown.is_some() {
            self.confirm_replay(token.key);
        }
        Some(Progress {
            shown,
            ending: outcome.ending,
        })
    }

    /// A job showed a new token, or is over.
    fn confirm_replay(&mut self, key: JobKey) {
        self.replaying.remove(&key);
    }

    /// The worker is lost: what it ran awaits the next. Returns these jobs in the order in which they
    /// began, and whether each is suspect: those whose replays were under way, otherwise all of them.
    ///
    /// After a loss in the middle of replays they begin one after the other. So in a row of losses by one
    /// job the others are suspect twice at most: in the first loss, and in the first one in the middle of
    /// replays; after that it is alone in its replay. A loss that is no crash was asked for: it says nothing
    /// of any job.
    pub(super) fn suspend(&mut self, is_crash: bool) -> Vec<(JobKey, bool)> {
        let replaying = std::mem::take(&mut self.replaying);
        if is_crash {
            self.one_by_one = !replaying.is_empty();
        }
        let lost = std::mem::take(&mut self.running);
        self.awaiting_replay.extend(&lost);
        let judge = |key: JobKey| {
            let is_suspect = is_crash && (replaying.is_empty() || replaying.contains(&key));
            if let Some(job) = self.jobs.get_mut(&key) {
                job.state = JobState::AwaitingReplay;
                job.crashes += u32::from(is_suspect);
            }
            (key, is_suspect)
        };
        lost.into_iter().map(judge).collect()
    }

    /// Whether all jobs that await their replay begin at once, for nothing speaks against any of them.
    pub(super) fn replays_together(&self) -> bool {
        !self.one_by_one
    }

    /// Jobs that await their replay and the tokens that they have already emitted.
    pub(super) fn replay_work(&self) -> (u64, u64) {
        let jobs = self.awaiting_replay.iter();
        let tokens = jobs
            .filter_map(|key| self.jobs.get(key))
            .map(|j| j.journal.tokens().len() as u64);
        (self.awaiting_replay.len() as u64, tokens.sum())
    }

    /// Ends a job in flight: its last event goes into its log. If that keeps its events, readers may
    /// still come to it until `retain_until`.
    pub(super) fn end(&mut self, key: JobKey, ending: Ending, retain_until: Instant) {
        let Some(job) = self.jobs.get_mut(&key) else {
            return;
        };
        match job.state {
            JobState::Waiting => {
                self.waiting.remove(&key);
                self.waiting_bytes -= job.waiting_bytes();
            }
            JobState::Running => drop(self.running.remove(&key)),
            JobState::AwaitingReplay => drop(self.awaiting_replay.remove(&key)),
            JobState::Preempted => drop(self.preempted.remove(&key)),
            JobState::Ended => return,
        }
        job.state = JobState::Ended;
        let last = job.journal.end(ending);
        job.log.finish(last);
        let keeps = job.log.keeps();
        self.deadlines.remove(&(job.journal.job().deadline, key));
        job.journal.close();
        self.confirm_replay(key);
        if keeps {
            self.retained.push_back((retain_until, key));
        } else {
            self.release(key);
        }
    }
}
