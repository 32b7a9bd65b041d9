//! How often something is tried again, and after which pause.

use std::time::Duration;

/// Failures in a row, without a byte in between, after which it is given up.
const MAX_FAILURES: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause that a hub may ask for; a person would rather be told.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);

/// Failures so far.
#[derive(Debug, Default)]
pub struct Attempts {
    in_a_row: u32,
}

impl Attempts {
    /// Bytes came: what failed before counts no more.
    pub fn progressed(&mut self) {
        self.in_a_row = 0;
    }

    /// The pause before the next try, where the hub `asked` for one or left it open; `None`: give up.
    pub fn failed(&mut self, asked: Option<Duration>) -> Option<Duration> {
        self.in_a_row += 1;
        if self.in_a_row >= MAX_FAILURES {
            return None;
        }
        let own = FIRST_PAUSE * (1 << (self.in_a_row - 1));
        let pause = asked.map_or(own, |asked| asked.max(own));
        (pause <= LONGEST_PAUSE).then_some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_end_unless_bytes_come() {
        let mut attempts = Attempts::default();
        let pauses: Vec<_> = std::iter::from_fn(|| attempts.failed(None)).collect();
        assert_eq!(pauses, [500, 1000, 2000, 4000].map(Duration::from_millis));
        assert_eq!(attempts.failed(None), None);
        attempts.progressed();
        assert_eq!(attempts.failed(None), Some(FIRST_PAUSE));
    }

    #[test]
    fn a_pause_that_is_asked_for_is_kept_unless_it_is_too_long() {
        let asked = |seconds| Attempts::default().failed(Some(Duration::from_secs(seconds)));
        assert_eq!(asked(0), Some(FIRST_PAUSE));
        assert_eq!(asked(7), Some(Duration::from_secs(7)));
        assert_eq!(asked(121), None);
    }
}
