//! Signs of life of one worker: whether the process speaks, whether the engine moves, and whether
//! jobs that were sent arrive.

use std::time::{Duration, Instant};

/// How many of the slowest steps seen may pass without another one.
const SLOWEST_STEPS: u32 = 20;
/// The same as long as no step was seen: a large model's first step on a slow machine.
const FIRST_STEP: Duration = Duration::from_secs(30);
/// How many of them an answer may take: the step under way and the one that was decided upon.
const STEPS_TO_ANSWER: u32 = 2;
/// What the slowest step seen loses with each step: one that was slow by accident is forgotten
/// within some hundred.
const FADING: u32 = 64;

/// What is known of a worker from its messages.
#[derive(Debug, Clone)]
pub(super) struct Liveness {
    last_message: Instant,
    last_progress: Instant,
    steps: u64,
    /// Zero until a step was seen.
    slowest: Duration,
    /// Jobs that were sent to it.
    submitted: u64,
    /// Since when it holds fewer jobs than it was given, and how many were sent by then. It takes
    /// them in order: when it has taken so many, the jobs that were missing are there.
    missing: Option<(Instant, u64)>,
}

impl Liveness {
    /// `slowest` of a worker before it that did the same work, or zero.
    pub(super) fn new(now: Instant, slowest: Duration) -> Self {
        Self {
            last_message: now,
            last_progress: now,
            steps: 0,
            slowest,
            submitted: 0,
            missing: None,
        }
    }

    /// It is in the next phase of its life: all clocks begin again.
    pub(super) fn restart(&mut self, now: Instant) {
        *self = Self::new(now, self.slowest);
    }

    /// Any message.
    pub(super) fn message_received(&mut self, now: Instant) {
        self.last_message = now;
    }

    /// The engine's own count of steps.
    pub(super) fn steps(&mut self, steps: u64, now: Instant) {
        if steps > self.steps {
            self.steps = steps;
            self.last_progress = now;
        }
    }

    /// How long a step took.
    pub(super) fn step_took(&mut self, took: Duration) {
        self.slowest = took.max(self.slowest - self.slowest / FADING);
    }

    /// The slowest of the latest steps; `None` before the first.
    pub(super) fn slowest(&self) -> Option<Duration> {
        (!self.slowest.is_zero()).then_some(self.slowest)
    }

    /// A job was sent to it.
    pub(super) fn submitted(&mut self) {
        self.submitted += 1;
    }

    /// It says that it holds `holds` jobs; `given` were sent to it and are not over. A busy worker is
    /// always one step behind with some of them, but never long with the same ones.
    pub(super) fn holds(&mut self, holds: usize, given: usize, now: Instant) {
        let behind = given.saturating_sub(holds) as u64;
        let taken = self.submitted.saturating_sub(behind);
        self.missing = match self.missing {
            Some((since, due)) if behind > 0 && taken < due => Some((since, due)),
            _ if behind > 0 => Some((now, self.submitted)),
            _ => None,
        };
    }

    /// It came further in another way than by a step, or has work only now: its deadline begins anew.
    pub(super) fn progressed(&mut self, now: Instant) {
        self.last_progress = now;
    }

    /// Whoever listens was away for `gap`.
    pub(super) fn extend_deadlines(&mut self, gap: Duration) {
        self.last_message += gap;
        self.last_progress += gap;
        self.missing = self.missing.map(|(since, due)| (since + gap, due));
    }

    /// No message came for longer than `limit`.
    pub(super) fn silent(&self, now: Instant, limit: Duration) -> bool {
        now.saturating_duration_since(self.last_message) > limit
    }

    /// How long it may take to answer what it hears between two steps; `at_least` so long.
    pub(super) fn answers_within(&self, at_least: Duration) -> Duration {
        at_least.max(
            self.slowest()
                .map_or(FIRST_STEP, |slowest| slowest * STEPS_TO_ANSWER),
        )
    }

    /// It has not taken its jobs for longer than `limit`.
    pub(super) fn is_not_accepting(&self, now: Instant, limit: Duration) -> bool {
        self.missing
            .is_some_and(|(since, _)| now.saturating_duration_since(since) > limit)
    }

    /// How long an engine with work may go without a step; `at_least` so long.
    pub(super) fn stall_timeout(&self, at_least: Duration) -> Duration {
        match self.slowest() {
            Some(slowest) => at_least.max(slowest * SLOWEST_STEPS),
            None => at_least.max(FIRST_STEP),
        }
    }

    /// How long ago the latest step was.
    pub(super) fn since_progress(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.last_progress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOR: Duration = Duration::from_millis(1500);

    fn after(start: Instant, seconds: f64) -> Instant {
        start + Duration::from_secs_f64(seconds)
    }

    #[test]
    fn heartbeats_without_steps_are_messages_and_no_progress() {
        let start = Instant::now();
        let mut liveness = Liveness::new(start, Duration::from_millis(1));
        let late = after(start, 6.0);
        liveness.message_received(late);
        liveness.steps(0, late);
        assert!(!liveness.silent(late, FLOOR));
        assert_eq!(liveness.since_progress(late), Duration::from_secs(6));
        liveness.steps(1, late);
        assert_eq!(liveness.since_progress(late), Duration::ZERO);
    }

    #[test]
    fn slow_steps_buy_time_and_are_forgotten() {
        let mut liveness = Liveness::new(Instant::now(), Duration::ZERO);
        assert_eq!(liveness.stall_timeout(FLOOR), FIRST_STEP);
        liveness.step_took(Duration::from_secs(1));
        assert_eq!(liveness.stall_timeout(FLOOR), Duration::from_secs(20));
        for _ in 0..300 {
            liveness.step_took(Duration::from_millis(1));
        }
        assert_eq!(liveness.stall_timeout(FLOOR), FLOOR);
    }

    #[test]
    fn successor_is_judged_by_what_its_predecessor_took() {
        let liveness = Liveness::new(Instant::now(), Duration::from_millis(2));
        assert_eq!(liveness.stall_timeout(FLOOR), FLOOR);
    }

    #[test]
    fn a_worker_whose_jobs_never_arrive_is_not_accepting_and_a_late_one_is() {
        let start = Instant::now();
        let mut liveness = Liveness::new(start, Duration::ZERO);
        liveness.submitted();
        liveness.submitted();
        liveness.holds(1, 2, start);
        liveness.holds(1, 2, after(start, 1.0));
        assert!(!liveness.is_not_accepting(after(start, 1.4), FLOOR));
        assert!(liveness.is_not_accepting(after(start, 1.6), FLOOR));
        liveness.holds(2, 2, after(start, 1.6));
        assert!(!liveness.is_not_accepting(after(start, 9.0), FLOOR));
    }

    #[test]
    fn a_worker_that_is_always_one_job_behind_is_busy_and_accepts_jobs() {
        let start = Instant::now();
        let mut liveness = Liveness::new(start, Duration::from_millis(1));
        (0..8).for_each(|_| liveness.submitted());
        for beat in 0..400 {
            // One job has ended since the last heartbeat, and the one in its place is on its way.
            liveness.submitted();
            let now = after(start, 0.25 * f64::from(beat));
            liveness.holds(7, 8, now);
            assert!(
                !liveness.is_not_accepting(now, FLOOR),
                "at heartbeat {beat}"
            );
        }
        // From here on it takes none.
        assert!(liveness.is_not_accepting(after(start, 102.0), FLOOR));
        liveness.holds(7, 8, after(start, 102.0));
        assert!(liveness.is_not_accepting(after(start, 102.0), FLOOR));
    }

    #[test]
    fn slow_steps_buy_time_for_answers_too() {
        let mut liveness = Liveness::new(Instant::now(), Duration::ZERO);
        let at_least = Duration::from_millis(500);
        assert_eq!(liveness.answers_within(at_least), FIRST_STEP);
        liveness.step_took(Duration::from_millis(10));
        assert_eq!(liveness.answers_within(at_least), at_least);
        liveness.step_took(Duration::from_millis(2500));
        assert_eq!(liveness.answers_within(at_least), Duration::from_secs(5));
    }

    #[test]
    fn own_absence_is_nobody_elses_fault() {
        let start = Instant::now();
        let mut liveness = Liveness::new(start, Duration::from_millis(1));
        liveness.submitted();
        liveness.holds(0, 1, start);
        liveness.extend_deadlines(Duration::from_secs(10));
        let now = after(start, 11.0);
        assert!(!liveness.silent(now, FLOOR) && !liveness.is_not_accepting(now, FLOOR));
        assert_eq!(liveness.since_progress(now), Duration::from_secs(1));
    }
}
