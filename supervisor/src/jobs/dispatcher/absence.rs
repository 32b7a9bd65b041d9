//! The time in which this process itself stood still: a suspended machine, a stopped process, one that
//! got no processor. Nobody else is to blame for what did not come meanwhile.

use std::time::{Duration, Instant};

use super::state::Dispatcher;
use crate::worker::WorkerHost;

/// A gap between two turns of the dispatcher that says something about this process and not about
/// the others: many times [`super::Timing::tick`], at which it turns at the latest.
const OWN_ABSENCE: Duration = Duration::from_millis(400);

impl<H: WorkerHost> Dispatcher<H> {
    /// The present, at the beginning of a turn. After an absence every clock that judges somebody
    /// else is set forward by it, before anybody is judged. Clocks that are promises to others go on:
    /// a job's deadline, the end of draining.
    pub(super) fn turn(&mut self) -> Instant {
        let now = tokio::time::Instant::now().into_std();
        let gap = self
            .turned
            .replace(now)
            .map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        if gap > OWN_ABSENCE + self.settings.timing.tick {
            tracing::warn!("this process stood still for {} ms", gap.as_millis());
            self.crew.excuse(gap);
            self.life.excuse(gap);
            self.roster.excuse(gap);
        }
        now
    }
}
