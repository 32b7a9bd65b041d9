//! Figures from samples.

use std::time::Duration;

/// Sorted samples.
#[derive(Debug, Clone)]
pub struct Samples(Vec<Duration>);

impl Samples {
    /// Takes at least one sample.
    pub fn new(mut samples: Vec<Duration>) -> Self {
        assert!(!samples.is_empty(), "no samples");
        samples.sort();
        Self(samples)
    }

    /// The smallest sample that `percent` of all don't exceed (nearest rank).
    pub fn percentile(&self, percent: usize) -> Duration {
        assert!((1..=100).contains(&percent));
        self.0[(self.0.len() * percent).div_ceil(100) - 1]
    }

    /// The 50th percentile.
    pub fn median(&self) -> Duration {
        self.percentile(50)
    }

    /// The largest.
    pub fn max(&self) -> Duration {
        self.percentile(100)
    }
}

impl std::fmt::Display for Samples {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "p50 {:.2?}, p99 {:.2?}, max {:.2?} of {}",
            self.median(),
            self.percentile(99),
            self.max(),
            self.0.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_rank() {
        let samples = Samples::new((1..=200).rev().map(Duration::from_millis).collect());
        assert_eq!(samples.median(), Duration::from_millis(100));
        assert_eq!(samples.percentile(99), Duration::from_millis(198));
        assert_eq!(samples.max(), Duration::from_millis(200));
        assert_eq!(
            Samples::new(vec![Duration::ZERO]).percentile(1),
            Duration::ZERO
        );
    }
}
