//! The readers of jobs' events, and what is kept for them.

use std::time::{Duration, Instant};

use orcd_shared::job::JobKey;

use super::{JobState, JobTable};
use crate::jobs::dispatcher::Bounds;
use crate::jobs::event_log::EventReader;
use crate::jobs::{JobName, NoStream};

impl JobTable {
    /// Another reader of the job's events after the event `after`, of at most `most`.
    ///
    /// # Errors
    /// [`NoStream`].
    pub(in crate::jobs) fn resume(
        &mut self,
        name: &JobName,
        after: Option<u64>,
        most: usize,
    ) -> Result<(JobKey, EventReader), NoStream> {
        let key = *self.names.get(name).ok_or(NoStream::Unknown)?;
        let job = self.jobs.get_mut(&key).ok_or(NoStream::Unknown)?;
        if !job.log.keeps() {
            return Err(NoStream::Unknown);
        }
        let events = job.log.next_id();
        let next = after.map_or(0, |id| id.saturating_add(1));
        if next > events {
            return Err(NoStream::Ahead { events });
        }
        if next == events && job.state == JobState::Ended {
            return Err(NoStream::Complete);
        }
        if job.readers >= most {
            let readers = job.readers;
            return Err(NoStream::Crowded { readers });
        }
        job.readers += 1;
        Ok((key, job.log.reader(next)))
    }

    /// One of a job's streams is closed. `true`: the job goes on for nobody.
    pub(in crate::jobs) fn reader_left(&mut self, key: JobKey) -> bool {
        let Some(job) = self.jobs.get_mut(&key) else {
            return false;
        };
        job.readers = job.readers.saturating_sub(1);
        if job.readers > 0 {
            return false;
        }
        let for_nobody = job.state != JobState::Ended && !job.log.keeps();
        if self.unread.remove(&key) {
            self.jobs.remove(&key);
        }
        for_nobody
    }

    /// The running jobs whose readers do not keep up. The events of a job that goes on without readers
    /// are kept anyway: whoever is slow there costs nothing. While this process did not run readers
    /// could not be served: no more than `longest` counts of the time since the last look.
    pub(in crate::jobs) fn slow_readers(
        &mut self,
        now: Instant,
        longest: Duration,
        bounds: &Bounds,
    ) -> Vec<JobKey> {
        let last = self.readers_seen.replace(now).unwrap_or(now);
        let step = now.saturating_duration_since(last).min(longest);
        let is_slow = |key: &JobKey| {
            let Some(job) = self.jobs.get_mut(key) else {
                return false;
            };
            let excess = job.log.bytes() / bounds.reader_bytes.max(1);
            if job.log.keeps() || excess == 0 {
                job.behind = Duration::ZERO;
                return false;
            }
            job.behind += step * u32::try_from(excess).unwrap_or(u32::MAX);
            job.behind > bounds.reader_grace
        };
        self.running.iter().copied().filter(is_slow).collect()
    }

    /// Readers that have yet to come back are waited for so much longer: nobody listened for `gap`.
    pub(in crate::jobs) fn extend_deadlines(&mut self, gap: Duration) {
        for (until, _) in &mut self.retained {
            *until += gap;
        }
    }

    /// Lets go of ended jobs whose time is over, and of the oldest of more than `most`.
    pub(in crate::jobs) fn expire(&mut self, now: Instant, most: usize) {
        while let Some((until, key)) = self.retained.front().copied()
            && (until <= now || self.retained.len() > most)
        {
            self.retained.pop_front();
            self.release(key);
        }
    }

    /// Drops the events of ended jobs until those of all jobs take no more than `limit` bytes: the
    /// oldest first, and first those that nobody may be reading. If that is not enough, the job in
    /// flight that holds most.
    pub(in crate::jobs) fn make_room(&mut self, limit: usize) -> Option<JobKey> {
        while self.log_bytes.get() > limit {
            let oldest = self.retained.pop_front().map(|(_, key)| key);
            let Some(key) = oldest.or_else(|| self.unread.pop_first()) else {
                let bytes = |key: &JobKey| self.jobs.get(key).map(|job| job.log.bytes());
                return self.begun_keys().max_by_key(bytes);
            };
            self.forget_name(key);
            if let Some(job) = self.jobs.remove(&key) {
                job.log.cut();
            }
        }
        None
    }

    /// An ended job can't be found any more. Who still reads its events gets all of them.
    pub(super) fn release(&mut self, key: JobKey) {
        self.forget_name(key);
        if self.jobs.get(&key).is_some_and(|job| job.readers > 0) {
            self.unread.insert(key);
        } else {
            self.jobs.remove(&key);
        }
    }

    fn forget_name(&mut self, key: JobKey) {
        if let Some(job) = self.jobs.get(&key) {
            let name = job.journal.job().name();
            // A later job may have it by now.
            if self.names.get(&name) == Some(&key) {
                self.names.remove(&name);
            }
        }
    }
}
