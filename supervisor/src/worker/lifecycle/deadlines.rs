//! The clocks of workers, set forward by the time in which nobody could hear them.

use std::time::Duration;

use super::{Dying, Phase, State};

impl State {
    /// Whoever hears the workers was away for `gap`: it counts for nobody. The pause before the next
    /// worker is nobody's deadline and ends when it ends.
    pub fn extend_deadlines(&mut self, gap: Duration) {
        self.phase.extend_deadlines(gap);
        self.standby.phase.extend_deadlines(gap);
        for Dying {
            kill_at,
            abandon_at,
            ..
        } in &mut self.dying
        {
            *kill_at = kill_at.map(|at| at + gap);
            *abandon_at += gap;
        }
    }
}

impl Phase {
    fn extend_deadlines(&mut self, gap: Duration) {
        match self {
            Self::Handshaking { until } => *until += gap,
            Self::Ready { since } => *since += gap,
            Self::Ending {
                kill_at,
                abandon_at,
            }
            | Self::Stopping {
                kill_at,
                abandon_at,
            } => {
                *kill_at = kill_at.map(|at| at + gap);
                *abandon_at += gap;
            }
            Self::Idle
            | Self::Spawning
            | Self::Loading { .. }
            | Self::Backoff { .. }
            | Self::Over => {}
        }
    }
}
