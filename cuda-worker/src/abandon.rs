//! When a step is given up half-way: a cancellation waits, the step is made for the job that is
//! cancelled, and no job of it was in the step before that was given up.
//!
//! The supervisor asks by SIGUSR1 when a cancellation is not answered for long. Heeding that without
//! a second thought would let whoever submits and cancels all the time keep every other job from
//! coming any further; so a step is given up only where that frees the device of a cancelled job's
//! work, and never twice in a row for the same bystander.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use orcd_shared::job::JobKey;

/// The question between two layers, and all that its answer depends on. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Abandon(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Set by the signal.
    asked: Arc<AtomicBool>,
    jobs: Mutex<Jobs>,
}

#[derive(Debug, Default)]
struct Jobs {
    /// Cancellations that came and were not answered.
    cancelled: BTreeSet<JobKey>,
    /// What the present step is made for.
    in_step: Vec<JobKey>,
    /// The present step goes on to its end.
    binding: bool,
}

impl Abandon {
    /// What the signal's handler sets.
    #[must_use]
    pub fn signal(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0.asked)
    }

    /// A cancellation came off the socket.
    pub fn cancelled(&self, key: JobKey) {
        self.jobs().cancelled.insert(key);
    }

    /// It is answered.
    pub fn answered(&self, key: JobKey) {
        self.jobs().cancelled.remove(&key);
    }

    /// A step for these jobs begins. A `binding` one is made to its end.
    pub fn begin(&self, jobs: impl Iterator<Item = JobKey>, binding: bool) {
        let mut state = self.jobs();
        state.in_step.clear();
        state.in_step.extend(jobs);
        state.binding = binding;
    }

    /// Whether the present step is to be given up. Cheap as long as nobody has asked.
    #[must_use]
    pub fn is_due(&self) -> bool {
        if !self.0.asked.load(Ordering::Relaxed) {
            return false;
        }
        let state = self.jobs();
        !state.binding
            && state
                .in_step
                .iter()
                .any(|key| state.cancelled.contains(key))
    }

    /// Whether the signal came since the last call.
    #[must_use]
    pub fn take(&self) -> bool {
        self.0.asked.swap(false, Ordering::Relaxed)
    }

    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        // Each change is one whole statement.
        self.0.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> Abandon {
        let abandon = Abandon::default();
        abandon.signal().store(true, Ordering::Relaxed);
        abandon
    }

    #[test]
    fn step_is_given_up_for_a_cancelled_job_in_it_and_for_no_other() {
        let abandon = asked();
        abandon.begin([1, 2].map(JobKey).into_iter(), false);
        assert!(!abandon.is_due(), "nobody cancelled");
        abandon.cancelled(JobKey(3));
        assert!(!abandon.is_due(), "its job waits for a place");
        abandon.cancelled(JobKey(2));
        assert!(abandon.is_due());
        abandon.answered(JobKey(2));
        assert!(!abandon.is_due());
    }

    #[test]
    fn binding_step_and_one_without_a_signal_go_on() {
        let abandon = asked();
        abandon.cancelled(JobKey(1));
        abandon.begin([JobKey(1)].into_iter(), true);
        assert!(!abandon.is_due());
        abandon.begin([JobKey(1)].into_iter(), false);
        assert!(abandon.is_due());
        assert!(abandon.take() && !abandon.take());
        assert!(!abandon.is_due());
    }
}
