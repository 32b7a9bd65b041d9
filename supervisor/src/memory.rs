//! Memory that is free goes back to the system. The C library keeps what many large requests took for
//! a moment, in an arena for each thread, until it is told otherwise.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::worker::handles::give_free_memory_back;

/// How often is looked.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The longest pause between two attempts of which the last gave nothing: what is in use is in use.
const LONGEST_PAUSE: Duration = Duration::from_secs(40);
/// Growth that is not worth a look, KiB.
const SMALL_KIB: u64 = 1024;

/// Gives back what is free now, and learns what this process needs at the least: to be awaited before
/// there is work.
pub async fn learn() -> Watch {
    look_once(Watch::default()).await
}

/// Gives free memory back whenever this process has grown, until `stop`.
pub async fn keep_small(mut watch: Watch, stop: CancellationToken) {
    loop {
        let pause = tokio::time::sleep(watch.pause());
        if stop.run_until_cancelled(pause).await.is_none() {
            return;
        }
        watch = look_once(watch).await;
    }
}

async fn look_once(watch: Watch) -> Watch {
    // Walking through a large heap takes milliseconds.
    let looked = tokio::task::spawn_blocking(move || {
        let mut watch = watch;
        look(&mut watch, resident_kib, give_free_memory_back);
        watch
    });
    looked.await.unwrap_or(watch)
}

/// What is known of this process's size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Watch {
    /// The smallest that it was, KiB; `None` before the first look.
    smallest: Option<u64>,
    /// Attempts in a row that gave nothing.
    vain: u32,
}

impl Watch {
    fn pause(self) -> Duration {
        let doubled = LOOK_EVERY.saturating_mul(2_u32.saturating_pow(self.vain));
        doubled.min(LONGEST_PAUSE)
    }

    /// Whether a process of this size has grown so far that it is worth an attempt.
    fn has_grown(self, resident: u64) -> bool {
        let worth = |smallest| resident > smallest + smallest / 10 + SMALL_KIB;
        self.smallest.is_none_or(worth)
    }
}

/// Looks at the size and makes an attempt if it has grown.
fn look(watch: &mut Watch, resident: impl Fn() -> Option<u64>, give_back: impl Fn()) {
    let Some(before) = resident() else { return };
    if !watch.has_grown(before) {
        watch.vain = 0;
        return;
    }
    give_back();
    let after = resident().unwrap_or(before);
    watch.vain = match after + SMALL_KIB < before {
        true => 0,
        false => watch.vain + 1,
    };
    watch.smallest = Some(watch.smallest.map_or(after, |smallest| smallest.min(after)));
}

/// Memory of this process that no file backs, KiB.
fn resident_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn growth_is_given_back_and_steady_size_left_alone() {
        let size = Cell::new(20_000_u64);
        let attempts = Cell::new(0);
        let mut watch = Watch::default();
        let mut look_at = |resident: u64, freed: u64| {
            size.set(resident);
            let give_back = || {
                attempts.set(attempts.get() + 1);
                size.set(size.get() - freed);
            };
            look(&mut watch, || Some(size.get()), give_back);
            (attempts.get(), watch.pause())
        };
        assert_eq!(look_at(20_000, 0), (1, 2 * LOOK_EVERY));
        assert_eq!(look_at(20_500, 0), (1, LOOK_EVERY));
        assert_eq!(look_at(100_000, 79_000), (2, LOOK_EVERY));
        assert_eq!(look_at(21_000, 0), (2, LOOK_EVERY));
        // In use, and then free.
        for attempt in 3..6 {
            assert_eq!(look_at(100_000, 0).0, attempt);
        }
        assert_eq!(look_at(100_000, 0), (6, LONGEST_PAUSE));
        assert_eq!(look_at(100_000, 80_000), (7, LOOK_EVERY));
    }

    #[test]
    fn this_process_has_a_size() {
        assert!(resident_kib().unwrap() > 100);
    }

    #[test]
    fn freed_memory_goes_back_to_the_system() {
        // Small pieces, which come out of the heap, with some between them that stay.
        let pieces: Vec<Vec<u8>> = (0..20_000).map(|_| vec![1; 4096]).collect();
        let full = resident_kib().unwrap();
        let kept: Vec<Vec<u8>> = pieces.into_iter().step_by(100).collect();
        give_free_memory_back();
        let left = resident_kib().unwrap();
        assert!(left + 40_000 < full, "{full} KiB, then {left}");
        assert_eq!(kept.len(), 200);
    }
}
