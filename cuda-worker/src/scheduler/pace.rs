//! How many prompt tokens a step may hold so that it stays short. Running streams get their next
//! tokens when it ends, and commands are heard between steps only: a cancellation that is not
//! answered in time costs the process its life.

use std::time::Duration;

/// Never fewer than this: smaller chunks read each weight almost as often as single tokens do.
const LEAST: usize = 4;

/// The prompt tokens that fit one step, learned from the steps before.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    tokens: usize,
    most: usize,
    /// Steps with prompt tokens are to stay below this.
    target: Duration,
}

impl Pace {
    /// Begins with `most` tokens a step and never goes over it.
    #[must_use]
    pub fn new(most: usize, target: Duration) -> Self {
        Self {
            tokens: most,
            most,
            target,
        }
    }

    /// Prompt tokens for the next step.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Learns from a step with `prefill` prompt tokens that took `took`. Steps without any say
    /// nothing about prompts.
    pub fn learn(&mut self, prefill: usize, took: Duration) {
        if prefill == 0 {
            return;
        }
        if took > self.target {
            self.tokens = (self.tokens / 2).max(LEAST).min(self.most);
        } else if took < self.target / 3 && prefill >= self.tokens {
            self.tokens = (self.tokens * 2).min(self.most);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Duration = Duration::from_millis(100);
    const SLOW: Duration = Duration::from_millis(150);
    const FAST: Duration = Duration::from_millis(10);

    #[test]
    fn slow_steps_shrink_the_chunk_and_fast_ones_restore_it() {
        let mut pace = Pace::new(64, TARGET);
        pace.learn(64, SLOW);
        pace.learn(32, SLOW);
        assert_eq!(pace.tokens(), 16);
        pace.learn(16, FAST);
        assert_eq!(pace.tokens(), 32);
        pace.learn(32, FAST);
        pace.learn(64, FAST);
        assert_eq!(pace.tokens(), 64);
    }

    #[test]
    fn what_is_slow_is_a_matter_of_the_gap_that_is_wanted() {
        let took = Duration::from_millis(60);
        let tokens = |target| {
            let mut pace = Pace::new(64, Duration::from_millis(target));
            pace.learn(64, took);
            pace.tokens()
        };
        assert_eq!([50, 100].map(tokens), [32, 64]);
    }

    #[test]
    fn chunk_has_a_floor_but_never_exceeds_its_most() {
        let mut pace = Pace::new(64, TARGET);
        (0..10).for_each(|_| pace.learn(64, SLOW));
        assert_eq!(pace.tokens(), LEAST);
        let mut tiny = Pace::new(2, TARGET);
        tiny.learn(2, SLOW);
        assert_eq!(tiny.tokens(), 2);
    }

    #[test]
    fn decode_steps_and_small_chunks_teach_nothing() {
        let mut pace = Pace::new(64, TARGET);
        pace.learn(0, SLOW);
        assert_eq!(pace.tokens(), 64);
        pace.learn(64, SLOW);
        pace.learn(3, FAST);
        assert_eq!(pace.tokens(), 32);
    }
}
