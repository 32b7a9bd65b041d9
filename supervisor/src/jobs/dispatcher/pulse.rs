//! Signs of life of one worker: whether the process speaks and whether the engine moves.

use std::time::{Duration, Instant};

/// How many of the slowest steps seen may pass without another one.
const SLOWEST_STEPS: u32 = 20;

/// What was heard of the present worker.
#[derive(Debug, Clone)]
pub(super) struct Pulse {
    heard: Instant,
    moved: Instant,
    steps: u64,
    slowest: Duration,
}

impl Pulse {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            heard: now,
            moved: now,
            steps: 0,
            slowest: Duration::ZERO,
        }
    }

    /// Any message.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// The engine's own count of steps.
    pub(super) fn steps(&mut self, steps: u64, now: Instant) {
        if steps > self.steps {
            self.steps = steps;
            self.moved = now;
        }
    }

    /// How long a step took.
    pub(super) fn step_took(&mut self, took: Duration) {
        self.slowest = self.slowest.max(took);
    }

    /// An idle engine was given work: its deadline begins now.
    pub(super) fn set_to_work(&mut self, now: Instant) {
        self.moved = now;
    }

    /// Nothing was heard for longer than `limit`.
    pub(super) fn silent(&self, now: Instant, limit: Duration) -> bool {
        now.saturating_duration_since(self.heard) > limit
    }

    /// An engine with work made no step for longer than it may.
    pub(super) fn stalled(&self, now: Instant, at_least: Duration) -> bool {
        let limit = at_least.max(self.slowest * SLOWEST_STEPS);
        now.saturating_duration_since(self.moved) > limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALL: Duration = Duration::from_secs(5);

    #[test]
    fn heartbeats_without_steps_are_a_stall_but_no_silence() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        let late = start + Duration::from_secs(6);
        pulse.heard(late);
        pulse.steps(0, late);
        assert!(!pulse.silent(late, STALL));
        assert!(pulse.stalled(late, STALL));
        pulse.steps(1, late);
        assert!(!pulse.stalled(late, STALL));
    }

    #[test]
    fn slow_steps_buy_time() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        pulse.step_took(Duration::from_secs(1));
        assert!(!pulse.stalled(start + Duration::from_secs(20), STALL));
        assert!(pulse.stalled(start + Duration::from_secs(21), STALL));
    }
}
