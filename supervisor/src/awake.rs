//! Time limits on others that count only the time in which this process ran: after a suspended
//! machine wakes up, whoever was waited for gets the rest of its time.

use std::pin::pin;
use std::time::Duration;

/// Parts that a limit is counted in. An absence costs one of them at most.
const PARTS: u32 = 20;

/// The limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elapsed;

/// The result of `work`, if it comes within `limit`.
///
/// # Errors
/// [`Elapsed`]: it did not.
pub async fn timeout<T>(limit: Duration, work: impl Future<Output = T>) -> Result<T, Elapsed> {
    let mut work = pin!(work);
    for _ in 0..PARTS {
        if let Ok(done) = tokio::time::timeout(limit / PARTS, &mut work).await {
            return Ok(done);
        }
    }
    Err(Elapsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn absence_costs_a_part_and_the_rest_is_still_there() {
        let begin = tokio::time::Instant::now();
        let waiting = tokio::spawn(timeout(LIMIT, std::future::pending::<()>()));
        tokio::task::yield_now().await;
        tokio::time::advance(100 * LIMIT).await;
        assert_eq!(waiting.await.unwrap(), Err(Elapsed));
        let waited = begin.elapsed() - 100 * LIMIT;
        assert!(waited >= LIMIT - LIMIT / PARTS, "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_in_time_is_given_and_what_does_not_is_not() {
        assert_eq!(timeout(LIMIT, async { 7 }).await, Ok(7));
        let early = tokio::time::sleep(LIMIT - LIMIT / PARTS / 2);
        assert_eq!(timeout(LIMIT, early).await, Ok(()));
        let late = tokio::time::sleep(LIMIT + LIMIT / PARTS);
        assert_eq!(timeout(LIMIT, late).await, Err(Elapsed));
    }
}
