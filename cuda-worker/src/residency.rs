//! Whether the engine's buffers still lie in device memory: looked at from time to time, told when it
//! changes. A look costs some driver calls that touch no device, microseconds.

use std::time::{Duration, Instant};

use orcd_shared::protocol::message::ToSupervisor;

use crate::log;

/// Time between two looks.
pub const INTERVAL: Duration = Duration::from_secs(60);

/// What the supervisor was told, and when to look again.
#[derive(Debug)]
pub struct Residency {
    told: bool,
    interval: Duration,
    /// `None` where nothing ever was device memory: on the CPU.
    next: Option<Instant>,
}

impl Residency {
    /// After loading, when the supervisor was told `resident`.
    #[must_use]
    pub fn new(resident: bool, interval: Duration, now: Instant) -> Self {
        Self {
            told: resident,
            interval,
            next: resident.then(|| now + interval),
        }
    }

    /// How long until a look is due; `None` is never.
    #[must_use]
    pub fn due_in(&self, now: Instant) -> Option<Duration> {
        self.next.map(|next| next.saturating_duration_since(now))
    }

    /// Looks if it is time; returns what to tell.
    pub fn look(&mut self, now: Instant, resident: impl FnOnce() -> bool) -> Option<ToSupervisor> {
        if self.due_in(now)? > Duration::ZERO {
            return None;
        }
        self.next = Some(now + self.interval);
        let resident = resident();
        if resident == self.told {
            return None;
        }
        self.told = resident;
        log::line(format_args!(
            "{}",
            if resident {
                "every buffer is device memory again"
            } else {
                "a buffer is no longer plain device memory"
            }
        ));
        Some(ToSupervisor::Residency { resident })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn looks_once_an_interval_and_tells_changes_only() {
        let start = Instant::now();
        let mut residency = Residency::new(true, MINUTE, start);
        let early = start + MINUTE / 2;
        assert_eq!(residency.due_in(early), Some(MINUTE / 2));
        assert_eq!(residency.look(early, || panic!("too early")), None);
        assert_eq!(residency.look(start + MINUTE, || true), None);
        let lost = ToSupervisor::Residency { resident: false };
        assert_eq!(
            residency.look(start + 2 * MINUTE, || false),
            Some(lost),
            "lost"
        );
        assert_eq!(residency.look(start + 3 * MINUTE, || false), None);
        let back = ToSupervisor::Residency { resident: true };
        assert_eq!(residency.look(start + 4 * MINUTE, || true), Some(back));
    }

    #[test]
    fn what_never_was_resident_is_not_looked_at() {
        let start = Instant::now();
        let mut residency = Residency::new(false, MINUTE, start);
        assert_eq!(residency.due_in(start + MINUTE), None);
        assert_eq!(residency.look(start + 9 * MINUTE, || panic!()), None);
    }
}
