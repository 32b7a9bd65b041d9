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
        self.press_cancellations(now);
    }

    fn watch_workers(&mut self, now: Instant) {
        let present = (self.life.generation, self.life.phase.clone());
        let standby = (
            self.life.standby.generation,
            self.life.standby.phase.clone(),
        );
        for (generation, phase) in [present, standby] {
            if let Some(why) = self.ailment(generation, &phase, now) {
                self.hung(generation, why, now);
            }
        }
        let floor = self.settings.timing.hang;
        let generation = self.life.generation;
        self.stalled = matches!(self.life.phase, Phase::Ready { .. })
            && !self.given.is_empty()
            && self.crew.get(generation).is_some_and(|member| {
                // Said before it is acted upon.
                member.pulse.still_for(now) > member.pulse.patience(floor) / 2
                    || member.pulse.silent(now, floor / 2)
            });
    }

    /// What is wrong with a worker.
    fn ailment(&self, generation: u64, phase: &Phase, now: Instant) -> Option<String> {
        let timing = &self.settings.timing;
        let pulse = &self.crew.get(generation)?.pulse;
        let limit = match phase {
            Phase::Ready { .. } => timing.hang,
            Phase::Loading { .. } => timing.loading_silence,
            _ => return None,
        };
        let ms = limit.as_millis();
        // Heartbeats wait for no step.
        if pulse.silent(now, limit) {
            return Some(format!("nothing was heard of it for {ms} ms"));
        }
        if matches!(phase, Phase::Loading { .. }) {
            return (pulse.still_for(now) > limit)
                .then(|| format!("it came no further with loading for {ms} ms"));
        }
        if generation != self.life.generation {
            return None;
        }
        // Jobs are taken between two steps.
        let patience = pulse.patience(limit);
        let ms = patience.as_millis();
        if pulse.deaf(now, patience) {
            return Some(format!("it has not taken its jobs for {ms} ms"));
        }
        (!self.given.is_empty() && pulse.still_for(now) > patience)
            .then(|| format!("its engine made no step for {ms} ms"))
    }

    /// The ladder of a cancellation that the worker does not answer: a signal that reaches also an
    /// engine in the middle of a step, then the end of the process. An engine that can't give its
    /// step up answers after it.
    fn press_cancellations(&mut self, now: Instant) {
        if !matches!(self.life.phase, Phase::Ready { .. }) {
            return;
        }
        let generation = self.life.generation;
        let (nudge, limit) = (
            self.settings.timing.nudge,
            self.settings.timing.cancel_limit,
        );
        let limit =
            (self.crew.get(generation)).map_or(limit, |member| member.pulse.answers_within(limit));
        let mut nudged = false;
        let mut expired = false;
        for pending in self.cancelled.values_mut() {
            let age = now.saturating_duration_since(pending.since);
            if age >= nudge && !pending.nudged {
                pending.nudged = true;
                nudged = true;
            }
            expired |= age >= nudge + limit;
        }
        if nudged {
            self.host.nudge(generation);
        }
        if expired {
            let ms = (nudge + limit).as_millis();
            let why = format!("a cancellation was not answered for {ms} ms");
            self.hung(generation, why, now);
        }
    }
}
