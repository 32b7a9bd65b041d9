//! All jobs and where each of them is. Changes of place go through here, so that the lists and the
//! jobs can't disagree.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use orcd_shared::job::JobKey;

use super::super::event_log::{EventLog, LogBytes};
use super::super::journal::Journal;

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
    pub(super) log: EventLog,
    /// Streams that are open on the log.
    pub(super) readers: usize,
    pub(super) place: Place,
    pub(super) submitted: Instant,
    /// Crashes that it was running in.
    pub(super) crashes: u32,
    /// For how long its reader has had more to take than it may have: see
    /// [`super::Bounds::reader_grace`].
    pub(super) behind: Duration,
}

impl Job {
    /// Bytes that it takes while it waits.
    fn waiting_bytes(&self) -> usize {
        size_of_val(self.journal.job().prompt.as_slice())
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
    /// Keys rise with submission, so this is also the order in which jobs came.
    waiting: BTreeSet<JobKey>,
    waiting_bytes: usize,
    /// Of all jobs in flight, earliest first.
    deadlines: BTreeSet<(Instant, JobKey)>,
    /// In the order in which they began, too.
    running: BTreeSet<JobKey>,
    held: BTreeSet<JobKey>,
    /// The replayed job that has yet to show a new token. Until it has, nothing else begins: should
    /// the worker die of it, that is known.
    proving: Option<JobKey>,
    /// Abandoned, but the worker has not yet said that they are gone.
    pub(super) leaving: HashMap<JobKey, Leaving>,
    /// Ended jobs that readers may come to, and until when; soonest first.
    retained: VecDeque<(Instant, JobKey)>,
    /// Ended jobs that nobody can come to any more, but somebody still reads.
    unread: BTreeSet<JobKey>,
    log_bytes: LogBytes,
}

impl Roster {
    pub(super) fn get(&self, key: JobKey) -> Option<&Job> {
        self.jobs.get(&key)
    }

    pub(super) fn get_mut(&mut self, key: JobKey) -> Option<&mut Job> {
        self.jobs.get_mut(&key)
    }

    /// What the logs of all jobs count their bytes in.
    pub(super) fn log_bytes(&self) -> LogBytes {
        self.log_bytes.clone()
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

    /// Jobs that a worker has begun, held ones included.
    pub(super) fn begun(&self) -> usize {
        self.running.len() + self.held.len()
    }

    /// Jobs that wait for the next worker, or for their turn with it.
    pub(super) fn held(&self) -> usize {
        self.held.len()
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

    /// Puts a new job at the end of the queue. An ended job of that name can't be found any more.
    pub(super) fn enqueue(&mut self, key: JobKey, job: Job) {
        let name = job.journal.job().job_id.clone();
        self.waiting_bytes += job.waiting_bytes();
        self.deadlines.insert((job.journal.job().deadline, key));
        self.waiting.insert(key);
        self.jobs.insert(key, job);
        if let Some(old) = self.names.insert(name, key) {
            self.retained.retain(|(_, key)| *key != old);
            self.release(old);
        }
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
            None => self.next_waiting()?,
        };
        self.place(key, Place::Running);
        self.running.insert(key);
        Some(key)
    }

    fn next_waiting(&mut self) -> Option<JobKey> {
        let key = self.waiting.pop_first()?;
        self.waiting_bytes -= self.get(key).map_or(0, Job::waiting_bytes);
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

    /// Takes a job out of flight. With `retain_until` readers may still come to its events.
    pub(super) fn end(&mut self, key: JobKey, retain_until: Option<Instant>) {
        let Some(job) = self.get(key) else {
            return;
        };
        let (deadline, bytes) = (job.journal.job().deadline, job.waiting_bytes());
        match job.place {
            Place::Waiting => {
                self.waiting.remove(&key);
                self.waiting_bytes -= bytes;
            }
            Place::Running => drop(self.running.remove(&key)),
            Place::Held => drop(self.held.remove(&key)),
            Place::Ended => return,
        }
        self.deadlines.remove(&(deadline, key));
        self.proved(key);
        self.place(key, Place::Ended);
        match retain_until {
            Some(until) => self.retained.push_back((until, key)),
            None => self.release(key),
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

    /// Lets go of ended jobs whose time is over, and of the oldest of more than `most`.
    pub(super) fn expire(&mut self, now: Instant, most: usize) {
        while let Some((until, key)) = self.retained.front().copied()
            && (until <= now || self.retained.len() > most)
        {
            self.retained.pop_front();
            self.release(key);
        }
    }

    /// One of a job's streams is closed. `true`: the job is in flight, and that was the last one.
    pub(super) fn reader_left(&mut self, key: JobKey) -> bool {
        let Some(job) = self.jobs.get_mut(&key) else {
            return false;
        };
        job.readers = job.readers.saturating_sub(1);
        if job.readers > 0 {
            return false;
        }
        let in_flight = job.place != Place::Ended;
        if self.unread.remove(&key) {
            self.jobs.remove(&key);
        }
        in_flight
    }

    /// Drops the events of ended jobs until those of all jobs take no more than `limit` bytes: the
    /// oldest first, and first those that nobody may be reading. If that is not enough, the job in
    /// flight that holds most.
    pub(super) fn make_room(&mut self, limit: usize) -> Option<JobKey> {
        while self.log_bytes.get() > limit {
            let oldest = self.retained.pop_front().map(|(_, key)| key);
            let Some(key) = oldest.or_else(|| self.unread.pop_first()) else {
                let begun = self.running.union(&self.held).copied();
                return begun.max_by_key(|key| self.get(*key).map(|job| job.log.bytes()));
            };
            self.forget_name(key);
            if let Some(job) = self.jobs.remove(&key) {
                job.log.cut();
            }
        }
        None
    }

    /// An ended job can't be found any more. Who still reads its events gets all of them.
    fn release(&mut self, key: JobKey) {
        self.forget_name(key);
        if self.get(key).is_some_and(|job| job.readers > 0) {
            self.unread.insert(key);
        } else {
            self.jobs.remove(&key);
        }
    }

    fn forget_name(&mut self, key: JobKey) {
        if let Some(job) = self.jobs.get(&key) {
            let name = &job.journal.job().job_id;
            // A later job may have it by now.
            if self.names.get(name) == Some(&key) {
                self.names.remove(name);
            }
        }
    }

    fn place(&mut self, key: JobKey, place: Place) {
        if let Some(job) = self.jobs.get_mut(&key) {
            job.place = place;
        }
    }
}
