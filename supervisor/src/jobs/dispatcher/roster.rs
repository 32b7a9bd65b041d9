//! All jobs and where each of them is. Changes of place go through here, so that the lists and the
//! jobs can't disagree.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use orcd_shared::job::JobKey;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::super::journal::Journal;
use super::super::{JobEvent, Numbered};

/// Events that may wait for a reader before it counts as too slow.
pub(super) const READER_EVENTS: usize = 256;
/// One more place in a reader's channel that only the terminal event takes.
const TERMINAL_EVENTS: usize = 1;
/// Ended jobs whose events are held at most.
const RETAINED_JOBS: usize = 256;

/// Where a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In the queue; no worker has seen it.
    Waiting,
    /// Given to the present worker.
    Running,
    /// It was with a worker that is lost; first in line for the next.
    Held,
    /// Ended; its events are held for readers.
    Ended,
}

/// One job.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) journal: Journal,
    pub(super) reader: Option<Reader>,
    pub(super) place: Place,
    pub(super) submitted: Instant,
    /// When the next keep-alive comment is due.
    pub(super) next_comment: Instant,
    /// Crashes that it was running in.
    pub(super) crashes: u32,
}

/// The sending side of a reader's stream.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) id: u64,
    /// It has all events below this.
    pub(super) next: u64,
    events: mpsc::Sender<Numbered>,
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offered {
    Taken,
    /// The reader does not keep up.
    Slow,
    /// The reader's departure is on its way here.
    Gone,
}

impl Job {
    /// Sends an event to the reader, if there is one. `false`: the job is to end because its
    /// reader does not keep up. A job that goes on without readers only loses this one.
    pub(super) fn offer(&mut self, event: Numbered) -> bool {
        match self.reader.as_ref().map(|reader| reader.offer(event)) {
            None | Some(Offered::Taken | Offered::Gone) => true,
            Some(Offered::Slow) if self.journal.kept().is_some() => {
                self.reader = None;
                true
            }
            Some(Offered::Slow) => false,
        }
    }
}

impl Reader {
    /// A stream with room for `backlog` events more than usual.
    pub(super) fn open(id: u64, backlog: usize) -> (Self, mpsc::Receiver<Numbered>) {
        let (events, stream) = mpsc::channel(backlog + READER_EVENTS + TERMINAL_EVENTS);
        let reader = Self {
            id,
            next: 0,
            events,
        };
        (reader, stream)
    }

    pub(super) fn offer(&self, event: Numbered) -> Offered {
        if event.id.is_some_and(|id| id < self.next) {
            return Offered::Taken;
        }
        if self.events.capacity() <= TERMINAL_EVENTS {
            return if self.events.is_closed() {
                Offered::Gone
            } else {
                Offered::Slow
            };
        }
        match self.events.try_send(event) {
            Ok(()) => Offered::Taken,
            Err(TrySendError::Full(_)) => Offered::Slow,
            Err(TrySendError::Closed(_)) => Offered::Gone,
        }
    }

    /// Sends a keep-alive. A reader that has many unread misses nothing without it, and its room
    /// is kept for events.
    pub(super) fn comment(&self) {
        if self.events.capacity() > READER_EVENTS / 2 {
            self.offer(Numbered {
                id: None,
                event: JobEvent::Queued,
            });
        }
    }

    /// Sends the terminal event into the place kept for it; the stream ends behind it.
    pub(super) fn conclude(self, event: Numbered) {
        // Only a reader that is gone can fail to get it: this side alone fills the channel.
        let _ = self.events.try_send(event);
    }
}

/// A job that the worker was told to abandon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Leaving {
    /// Since when.
    pub(super) since: Instant,
    /// The worker's process was signalled too.
    pub(super) nudged: bool,
}

/// All jobs.
#[derive(Debug, Default)]
pub(super) struct Roster {
    jobs: HashMap<JobKey, Job>,
    names: HashMap<String, JobKey>,
    waiting: VecDeque<JobKey>,
    /// Keys rise with submission, so this is also the order in which jobs began.
    running: BTreeSet<JobKey>,
    held: BTreeSet<JobKey>,
    /// The replayed job that has yet to show a new token. Until it has, nothing else begins: should
    /// the worker die of it, that is known.
    proving: Option<JobKey>,
    /// Abandoned, but the worker has not yet said that they are gone.
    pub(super) leaving: HashMap<JobKey, Leaving>,
    /// Ended jobs and when they are forgotten, soonest first.
    retained: VecDeque<(Instant, JobKey)>,
}

impl Roster {
    pub(super) fn get(&self, key: JobKey) -> Option<&Job> {
        self.jobs.get(&key)
    }

    pub(super) fn get_mut(&mut self, key: JobKey) -> Option<&mut Job> {
        self.jobs.get_mut(&key)
    }

    /// The job of this name that is in flight or whose events are held.
    pub(super) fn named(&self, name: &str) -> Option<JobKey> {
        self.names.get(name).copied()
    }

    pub(super) fn in_flight(&self, name: &str) -> Option<JobKey> {
        self.named(name)
            .filter(|key| self.get(*key).is_some_and(|j| j.place != Place::Ended))
    }

    pub(super) fn keys_in_flight(&self) -> Vec<JobKey> {
        let mut keys: Vec<JobKey> = self.held.union(&self.running).copied().collect();
        keys.extend(&self.waiting);
        keys
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Jobs that a worker has begun, held ones included.
    pub(super) fn begun(&self) -> usize {
        self.running.len() + self.held.len()
    }

    pub(super) fn running(&self) -> usize {
        self.running.len()
    }

    /// The running jobs in the order in which they began.
    pub(super) fn running_keys(&self) -> Vec<JobKey> {
        self.running.iter().copied().collect()
    }

    /// Sequences that the worker holds, as far as it has told.
    pub(super) fn occupied(&self) -> usize {
        self.running.len() + self.leaving.len()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty() && self.held.is_empty()
    }

    /// Puts a new job at the end of the queue. An ended job of that name is forgotten.
    pub(super) fn enqueue(&mut self, key: JobKey, job: Job) {
        let name = job.journal.job().job_id.clone();
        if let Some(old) = self.names.insert(name, key) {
            self.jobs.remove(&old);
            self.retained.retain(|(_, key)| *key != old);
        }
        self.waiting.push_back(key);
        self.jobs.insert(key, job);
    }

    /// The next job for the worker, now running: held ones first, one after the other and those
    /// with the fewest crashes first, then the queue's.
    pub(super) fn start_next(&mut self) -> Option<JobKey> {
        if self.proving.is_some() {
            return None;
        }
        let key = match self.next_held() {
            Some(key) => {
                self.held.remove(&key);
                self.proving = Some(key);
                key
            }
            None => self.waiting.pop_front()?,
        };
        self.place(key, Place::Running);
        self.running.insert(key);
        Some(key)
    }

    fn next_held(&self) -> Option<JobKey> {
        let crashes = |key: &JobKey| self.get(*key).map_or(0, |job| job.crashes);
        self.held
            .iter()
            .copied()
            .min_by_key(|key| (crashes(key), *key))
    }

    /// A job showed a new token, or is over.
    pub(super) fn proved(&mut self, key: JobKey) {
        if self.proving == Some(key) {
            self.proving = None;
        }
    }

    /// The worker is lost: what it ran is held for the next. Returns the suspects in their order:
    /// the job whose replay was under way, otherwise all of them.
    pub(super) fn hold_running(&mut self) -> Vec<JobKey> {
        self.leaving.clear();
        let lost: Vec<JobKey> = std::mem::take(&mut self.running).into_iter().collect();
        for &key in &lost {
            self.place(key, Place::Held);
            self.held.insert(key);
        }
        match self.proving.take() {
            Some(key) => vec![key],
            None => lost,
        }
    }

    /// Held jobs and the tokens they have already emitted.
    pub(super) fn held_work(&self) -> (u64, u64) {
        let tokens = self
            .held
            .iter()
            .filter_map(|key| self.get(*key))
            .map(|j| j.journal.emitted());
        (self.held.len() as u64, tokens.sum::<usize>() as u64)
    }

    /// Positions of the KV cache that running jobs have filled.
    pub(super) fn running_positions(&self) -> usize {
        let jobs = self.running.iter().filter_map(|key| self.get(*key));
        jobs.map(|job| job.journal.job().prompt.len() + job.journal.emitted())
            .sum()
    }

    /// Takes a job out of flight. With `retain_until` its events stay for readers.
    pub(super) fn end(&mut self, key: JobKey, retain_until: Option<Instant>) {
        match self.get(key).map(|job| job.place) {
            Some(Place::Waiting) => self.waiting.retain(|k| *k != key),
            Some(Place::Running) => drop(self.running.remove(&key)),
            Some(Place::Held) => drop(self.held.remove(&key)),
            Some(Place::Ended) | None => return,
        }
        self.proved(key);
        let Some(until) = retain_until else {
            return self.forget(key);
        };
        self.place(key, Place::Ended);
        self.retained.push_back((until, key));
        if self.retained.len() > RETAINED_JOBS {
            self.forget_oldest();
        }
    }

    /// The clocks of those that were waited for, while nobody waited for `gap`: workers that have yet
    /// to answer, and readers that have yet to come back.
    pub(super) fn excuse(&mut self, gap: Duration) {
        for leaving in self.leaving.values_mut() {
            leaving.since += gap;
        }
        for (until, _) in &mut self.retained {
            *until += gap;
        }
    }

    /// Drops the events of jobs whose time is over.
    pub(super) fn expire(&mut self, now: Instant) {
        while self
            .retained
            .front()
            .is_some_and(|(until, _)| *until <= now)
        {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, key)) = self.retained.pop_front() {
            self.forget(key);
        }
    }

    fn forget(&mut self, key: JobKey) {
        if let Some(job) = self.jobs.remove(&key) {
            self.names.remove(&job.journal.job().job_id);
        }
    }

    fn place(&mut self, key: JobKey, place: Place) {
        if let Some(job) = self.jobs.get_mut(&key) {
            job.place = place;
        }
    }
}
