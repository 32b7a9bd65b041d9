//! Memory for bodies: bytes that all requests together may hold, so that many large or abandoned ones
//! take no more than that.

use std::sync::Arc;
use std::time::Duration;

use orcd_shared::error::ErrorCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::super::error::ApiError;
use super::{MAX_BYTES, MAX_CONTROL_BYTES};

/// Bytes of bodies at once: as many as 64 of the largest.
const TOTAL_BYTES: usize = 64 * MAX_BYTES;
/// A token of text and what JSON makes of it: few are longer, and most have 4.
const BYTES_PER_TOKEN: usize = 16;
/// Largest body for any context: a quarter of all.
const MOST_BYTES: usize = TOTAL_BYTES / 4;
/// Memory grows in steps of this size.
const STEP_BYTES: usize = 64 << 10;
/// How long a body waits for others to be done with theirs.
const WAIT: Duration = Duration::from_secs(1);

/// What bodies of a kind may take.
#[derive(Debug, Clone)]
pub struct Budget {
    /// Bytes that are still free.
    free: Arc<Semaphore>,
    largest: usize,
}

/// A body, and its part of the budget for as long as it lives.
#[derive(Debug)]
pub struct Bytes {
    bytes: Vec<u8>,
    part: OwnedSemaphorePermit,
}

impl Default for Budget {
    fn default() -> Self {
        Self::of(TOTAL_BYTES, MAX_BYTES)
    }
}

impl Budget {
    /// A budget of so many bytes, of which one body may have `largest`.
    #[must_use]
    pub fn of(bytes: usize, largest: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(bytes)),
            largest,
        }
    }

    /// The same budget, of which one body may have what a prompt of `tokens` can take; at least
    /// [`MAX_BYTES`].
    #[must_use]
    pub fn for_context(&self, tokens: u32) -> Self {
        let bytes = (tokens as usize).saturating_mul(BYTES_PER_TOKEN);
        Self {
            free: Arc::clone(&self.free),
            largest: bytes.clamp(MAX_BYTES, MOST_BYTES),
        }
    }

    /// For requests that control the service: it is never spent, however many connections there are.
    #[must_use]
    pub fn of_control(connections: usize) -> Self {
        Self::of(connections * MAX_CONTROL_BYTES, MAX_CONTROL_BYTES)
    }

    /// Bytes of the largest body.
    pub(super) fn largest(&self) -> usize {
        self.largest
    }

    /// Room for a body of which nothing has come. A length that is merely announced takes none.
    pub(super) async fn begin(&self) -> Result<Bytes, ApiError> {
        let part = self.take(0).await?;
        let bytes = Vec::new();
        Ok(Bytes { bytes, part })
    }

    async fn take(&self, bytes: usize) -> Result<OwnedSemaphorePermit, ApiError> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let taken = timeout(WAIT, Arc::clone(&self.free).acquire_many_owned(bytes)).await;
        match taken {
            Ok(Ok(part)) => Ok(part),
            _ => Err(ApiError::new(
                ErrorCode::QueueFull,
                "too many large requests are being read; try again or send it elsewhere",
            )
            .closing()),
        }
    }
}

impl Bytes {
    /// Appends `more`, whose memory is taken from `budget` first.
    pub(super) async fn extend(&mut self, more: &[u8], budget: &Budget) -> Result<(), ApiError> {
        let free = self.bytes.capacity() - self.bytes.len();
        if more.len() > free {
            let rest = budget.largest - self.bytes.len();
            let step = more.len().max(STEP_BYTES.min(rest));
            // What is taken already and not used yet counts for the step.
            self.part.merge(budget.take(step - free).await?);
            self.bytes.reserve_exact(step);
        }
        self.bytes.extend_from_slice(more);
        Ok(())
    }

    /// Gives back what `bytes` take, for a body that is no longer wanted.
    pub(super) fn clear(&mut self) {
        self.bytes = Vec::new();
        drop(self.part.split(self.part.num_permits()));
    }
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_does_not_fit_waits_and_is_turned_away() {
        let budget = Budget::of(3 * STEP_BYTES, MAX_BYTES);
        let mut first = budget.begin().await.unwrap();
        let mut second = budget.begin().await.unwrap();
        first.extend(&[1; 2 * STEP_BYTES], &budget).await.unwrap();
        second.extend(&[2; 10], &budget).await.unwrap();
        // It fits into what was taken already.
        second.extend(&[2; 100], &budget).await.unwrap();
        assert_eq!(second.len(), 110);
        let error = second.extend(&[2; STEP_BYTES], &budget).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::QueueFull);
        let waiting = second.extend(&[2; STEP_BYTES], &budget);
        let freeing = async {
            tokio::time::sleep(WAIT / 2).await;
            drop(first);
        };
        let (extended, ()) = tokio::join!(waiting, freeing);
        extended.unwrap();
        assert_eq!(second.len(), 110 + STEP_BYTES);
    }

    #[tokio::test]
    async fn a_body_takes_what_it_holds_in_whatever_pieces_it_comes() {
        for piece in [1000, 40 << 10, 100_000] {
            let budget = Budget::of(4 * MAX_BYTES, MAX_BYTES);
            let mut body = budget.begin().await.unwrap();
            while body.len() + piece <= MAX_BYTES {
                body.extend(&vec![0; piece], &budget).await.unwrap();
                let taken = 4 * MAX_BYTES - budget.free.available_permits();
                assert!(body.bytes.capacity() <= taken, "{piece}");
                assert!(taken <= body.len() + STEP_BYTES, "{piece}: {taken}");
            }
        }
    }

    #[tokio::test]
    async fn all_comes_back() {
        let budget = Budget::of(4 * STEP_BYTES, MAX_BYTES);
        for cleared in [true, false] {
            let mut body = budget.begin().await.unwrap();
            body.extend(&[0; STEP_BYTES + 1], &budget).await.unwrap();
            assert!(budget.free.available_permits() < 4 * STEP_BYTES);
            if cleared {
                body.clear();
                assert_eq!(budget.free.available_permits(), 4 * STEP_BYTES);
            }
            drop(body);
            assert_eq!(budget.free.available_permits(), 4 * STEP_BYTES);
        }
    }
}
