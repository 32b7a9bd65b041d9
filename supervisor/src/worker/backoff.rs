//! How long to wait before the next worker: the first restart comes at once, because a crash that
//! happens once costs the clients least that way; after that the pause doubles.

use std::time::Duration;

/// Pause before the second restart in a row.
const FIRST: Duration = Duration::from_millis(100);
/// Longest pause.
pub const CAP: Duration = Duration::from_secs(10);

/// The pause before restart number `in_a_row` (from 1) without success in between. `jitter` in
/// 0..1 takes up to a fifth off, so that many supervisors on a host don't restart in step.
#[must_use]
pub fn pause(in_a_row: u32, jitter: f64) -> Duration {
    if in_a_row <= 1 {
        return Duration::ZERO;
    }
    let doublings = (in_a_row - 2).min(16);
    let full = FIRST.saturating_mul(1 << doublings).min(CAP);
    full.mul_f64(1.0 - 0.2 * jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_restart_is_at_once_then_doubling_to_the_cap() {
        let pauses: Vec<u128> = (1..=11).map(|n| pause(n, 0.0).as_millis()).collect();
        assert_eq!(
            pauses,
            [
                0, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000, 10_000
            ]
        );
        assert_eq!(pause(u32::MAX, 0.0), CAP);
    }

    #[test]
    fn jitter_only_shortens_and_by_a_fifth_at_most() {
        assert_eq!(pause(9, 1.0), Duration::from_secs(8));
        assert_eq!(pause(9, 99.0), Duration::from_secs(8));
        assert_eq!(pause(1, 1.0), Duration::ZERO);
    }
}
