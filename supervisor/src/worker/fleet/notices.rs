//! What is logged for whoever runs the service, each thing once: a lost worker as a warning, an
//! unhealthy service as an error, and that it is healthy again. Why a start failed is the process's
//! last line, and stands nowhere else.

use std::fmt::Display;

use super::Fleet;
use crate::worker::WorkerHost;
use crate::worker::lifecycle::{CRASH_WINDOW, CRASHES_TO_UNHEALTHY, Phase};

/// A change that is to be logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Notice {
    Unhealthy,
    Healthy,
}

/// What is to be logged now, when the last that was logged is `reported_unhealthy`.
fn notice(reported_unhealthy: bool, unhealthy: bool, ready: bool) -> Option<Notice> {
    match (reported_unhealthy, unhealthy) {
        (false, true) => Some(Notice::Unhealthy),
        (true, false) if ready => Some(Notice::Healthy),
        _ => None,
    }
}

impl<H: WorkerHost> Fleet<H> {
    /// Warns of a worker's loss, unless that was done or the worker was asked to end.
    pub(super) fn warn_of_loss(&mut self, generation: u64, what: impl Display) {
        let ends = matches!(self.life.phase, Phase::Stopping { .. } | Phase::Over);
        let entry = self.workers.get_mut(generation);
        let warned = entry.is_some_and(|entry| std::mem::replace(&mut entry.warned, true));
        if warned || ends || self.is_failing_start(generation) {
            tracing::info!(generation, "{what}");
        } else {
            tracing::warn!(generation, "{what}");
        }
    }

    /// The loss of this worker ends the service, whose last line says why.
    fn is_failing_start(&self, generation: u64) -> bool {
        !self.life.served && generation == self.life.generation
    }

    /// The same for what goes before a loss: logged once, and not at all where the last line says it.
    pub(super) fn warn_of_cause(&mut self, generation: u64, what: impl Display) {
        if self.is_failing_start(generation) {
            tracing::debug!(generation, "{what}");
        } else {
            self.warn_of_loss(generation, what);
        }
    }

    /// Tells how the service is, when that has changed.
    pub(crate) fn report_health(&mut self) {
        let unhealthy = self.life.unhealthy || self.stalled;
        let ready = matches!(self.life.phase, Phase::Ready { .. });
        let generation = self.life.generation;
        match notice(self.reported_unhealthy, unhealthy, ready) {
            Some(Notice::Unhealthy) if self.life.unhealthy => tracing::error!(
                generation,
                "unhealthy: {CRASHES_TO_UNHEALTHY} workers were lost within {} s without a \
                 finished job; new jobs are refused until a worker serves again",
                CRASH_WINDOW.as_secs()
            ),
            Some(Notice::Unhealthy) => {
                tracing::error!(generation, "unhealthy: the worker's engine is stalled");
            }
            Some(Notice::Healthy) => tracing::info!(generation, "healthy again"),
            None => return,
        }
        self.reported_unhealthy = unhealthy;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_logged_once_and_health_only_when_a_worker_serves() {
        assert_eq!(notice(false, true, true), Some(Notice::Unhealthy));
        assert_eq!(notice(true, true, true), None);
        assert_eq!(notice(true, false, false), None, "none serves yet");
        assert_eq!(notice(true, false, true), Some(Notice::Healthy));
        assert_eq!(notice(false, false, true), None);
    }
}
