//! What only the passing of time brings about.

use std::time::Instant;

use orcd_shared::error::ErrorCode;

use super::state::{AtWorker, Dispatcher};
use crate::worker::WorkerHost;
use crate::worker::lifecycle::{Event, Phase};

impl<H: WorkerHost> Dispatcher<H> {
    /// Looks at all clocks.
    pub(super) fn tick(&mut self, now: Instant) {
        self.life_event(Event::Tick, now);
        self.watch_workers(now);
        self.press_cancellations(now);
        self.end_late_jobs(now);
        self.watch_readers(now);
        self.make_room(now);
        self.measure_cache();
        if self.drain_by.is_some_and(|by| by <= now) {
            let message = "the service is stopping; send the job again, elsewhere";
            self.end_all(ErrorCode::Cancelled, message, AtWorker::Abandon);
        }
    }

    fn watch_workers(&mut self, now: Instant) {
        let present = (self.life.generation, self.life.phase.clone());
        let standby = (
            self.life.standby.generation,
            self.life.standby.phase.clone(),
        );
        for (generation, phase) in [present, standby] {
            if let Some(why) = self.ailment(generation, &phase, now) {
                self.hung(generation, why);
            }
        }
        let floor = self.settings.timing.hang;
        let generation = self.life.generation;
        let stalled = matches!(self.life.phase, Phase::Ready { .. })
            && self.roster.running() > 0
            && self.crew.get(generation).is_some_and(|member| {
                // Said before it is acted upon.
                member.pulse.still_for(now) > member.pulse.patience(floor) / 2
                    || member.pulse.silent(now, floor / 2)
            });
        self.worker.stalled = stalled;
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
        (self.roster.running() > 0 && pulse.still_for(now) > patience)
            .then(|| format!("its engine made no step for {ms} ms"))
    }

    /// The ladder of a cancellation that the worker does not answer: a signal that reaches also an
    /// engine in the middle of a step, then the end of the process. An engine that can't give its
    /// step up answers after it.
    fn press_cancellations(&mut self, now: Instant) {
        if !matches!(self.life.phase, Phase::Ready { .. }) {
            return;
        }
        let timing = &self.settings.timing;
        let member = self.crew.get(self.life.generation);
        let (nudge, limit) = (
            timing.nudge,
            member.map_or(timing.cancel_limit, |member| {
                member.pulse.answers_within(timing.cancel_limit)
            }),
        );
        let mut nudged = false;
        let mut expired = false;
        for leaving in self.roster.leaving.values_mut() {
            let age = now.saturating_duration_since(leaving.since);
            if age >= nudge && !leaving.nudged {
                leaving.nudged = true;
                nudged = true;
            }
            expired |= age >= nudge + limit;
        }
        let generation = self.life.generation;
        if nudged {
            self.host.nudge(generation);
        }
        if expired {
            let ms = (nudge + limit).as_millis();
            self.hung(
                generation,
                format!("a cancellation was not answered for {ms} ms"),
            );
        }
    }
}
