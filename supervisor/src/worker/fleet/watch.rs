//! What only the passing of time brings about.

use std::time::Instant;

use super::Fleet;
use crate::worker::WorkerHost;
use crate::worker::lifecycle::{Event, Phase};

impl<H: WorkerHost> Fleet<H> {
    /// Looks at all clocks.
    pub(crate) fn tick(&mut self, now: Instant) {
        self.life_event(Event::Tick, now);
        self.watch_workers(now);
        self.escalate_cancellations(now);
    }

    fn watch_workers(&mut self, now: Instant) {
        let present = (self.life.generation, self.life.phase.clone());
        let standby = (
            self.life.standby.generation,
            self.life.standby.phase.clone(),
        );
        for (generation, phase) in [present, standby] {
            if let Some(why) = self.liveness_violation(generation, &phase, now) {
                self.hung(generation, why, now);
            }
        }
        let floor = self.settings.timing.hang;
        let generation = self.life.generation;
        self.stalled = matches!(self.life.phase, Phase::Ready { .. })
            && !self.given.is_empty()
            && self.workers.get(generation).is_some_and(|entry| {
                // Said before it is acted upon.
                entry.liveness.since_progress(now) > entry.liveness.stall_timeout(floor) / 2
                    || entry.liveness.silent(now, floor / 2)
            });
    }

    /// What is wrong with a worker.
    fn liveness_violation(&self, generation: u64, phase: &Phase, now: Instant) -> Option<String> {
        let timing = &self.settings.timing;
        let liveness = &self.workers.get(generation)?.liveness;
        let limit = match phase {
            Phase::Ready { .. } => timing.hang,
            Phase::Loading { .. } => timing.loading_silence,
            _ => return None,
        };
        let ms = limit.as_millis();
        // Heartbeats wait for no step.
        if liveness.silent(now, limit) {
            return Some(format!("no message from it for {ms} ms"));
        }
        if matches!(phase, Phase::Loading { .. }) {
            return (liveness.since_progress(now) > limit)
                .then(|| format!("its loading made no progress for {ms} ms"));
        }
        if generation != self.life.generation {
            return None;
        }
        // Jobs are taken between two steps.
        let stall_timeout = liveness.stall_timeout(limit);
        let ms = stall_timeout.as_millis();
        if liveness.is_not_accepting(now, stall_timeout) {
            return Some(format!("it has not accepted its jobs for {ms} ms"));
        }
        (!self.given.is_empty() && liveness.since_progress(now) > stall_timeout)
            .then(|| format!("its engine made no step for {ms} ms"))
    }

    /// The ladder of a cancellation that the worker does not answer: a signal that reaches also an
    /// engine in the middle of a step, then the end of the process. An engine that can't give its
    /// step up answers after it.
    fn escalate_cancellations(&mut self, now: Instant) {
        if !matches!(self.life.phase, Phase::Ready { .. }) {
            return;
        }
        let generation = self.life.generation;
        let (interrupt, limit) = (
            self.settings.timing.interrupt,
            self.settings.timing.cancel_limit,
        );
        let limit = (self.workers.get(generation))
            .map_or(limit, |entry| entry.liveness.answers_within(limit));
        let mut interrupted = false;
        let mut expired = false;
        for pending in self.cancelled.values_mut() {
            let age = now.saturating_duration_since(pending.since);
            if age >= interrupt && !pending.interrupted {
                pending.interrupted = true;
                interrupted = true;
            }
            expired |= age >= interrupt + limit;
        }
        if interrupted {
            self.host.interrupt(generation);
        }
        if expired {
            let ms = (interrupt + limit).as_millis();
            let why = format!("a cancellation was not answered for {ms} ms");
            self.hung(generation, why, now);
        }
    }
}
