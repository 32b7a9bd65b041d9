//! The events of one job. The dispatcher writes them and never waits; readers take them, each from
//! its own place and at its own pace. What a slow reader has not taken stays in here and is counted
//! in bytes, so a reader costs nothing but its place.
//!
//! The log of a job that goes on without readers keeps its events, and any number of readers copy
//! from it. That of any other job has one reader, and what it took is gone.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::Numbered;

/// Bytes of the events in all logs together. Clones share the count.
#[derive(Debug, Clone, Default)]
pub(crate) struct LogBytes(Arc<AtomicUsize>);

impl LogBytes {
    /// The count now.
    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// The writing side, of which there is one.
#[derive(Debug)]
pub(crate) struct EventLog {
    shared: Arc<Shared>,
}

/// One reader's place in a log.
#[derive(Debug)]
pub struct EventReader {
    shared: Arc<Shared>,
    /// Id of the event to take next.
    next: u64,
}

#[derive(Debug)]
struct Shared {
    keeps: bool,
    /// Held for as long as it takes to add or take one event.
    state: Mutex<State>,
    /// Told of every event and of the end.
    changed: Notify,
    /// Bytes of the events in here; changed only while `state` is held.
    bytes: AtomicUsize,
    total: LogBytes,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<Numbered>,
    /// Id of the first of them.
    first: u64,
    /// Nothing more comes.
    closed: bool,
}

impl EventLog {
    /// An empty log; `keeps` what readers took.
    pub(crate) fn new(keeps: bool, total: LogBytes) -> Self {
        Self {
            shared: Arc::new(Shared {
                keeps,
                state: Mutex::default(),
                changed: Notify::new(),
                bytes: AtomicUsize::new(0),
                total,
            }),
        }
    }

    /// Events stay when readers have taken them.
    pub(crate) fn keeps(&self) -> bool {
        self.shared.keeps
    }

    /// Bytes of the events in it; without `keeps` those that are still to be taken.
    pub(crate) fn bytes(&self) -> usize {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// The id of the event to come, which is the number of events so far.
    pub(crate) fn next_id(&self) -> u64 {
        self.shared.state().next_id()
    }

    /// Adds the event with the id [`EventLog::next_id`].
    pub(crate) fn push(&self, event: Numbered) {
        let mut state = self.shared.state();
        debug_assert_eq!(event.id, state.next_id(), "ids count without a gap");
        self.shared.count_up(event.bytes());
        state.events.push_back(event);
        drop(state);
        self.shared.changed.notify_waiters();
    }

    /// Adds the last event.
    pub(crate) fn finish(&self, event: Numbered) {
        self.push(event);
        self.shared.state().closed = true;
        self.shared.changed.notify_waiters();
    }

    /// Drops all events of a job that is over but the last one. Readers that have taken all others get
    /// it; those behind see their stream end without it.
    pub(crate) fn cut(&self) {
        let mut state = self.shared.state();
        let next = state.next_id();
        let last = state.events.pop_back();
        self.shared.count_down(self.bytes());
        self.shared
            .count_up(last.as_ref().map_or(0, Numbered::bytes));
        state.first = next - u64::from(last.is_some());
        // The memory goes too, not only what is in it.
        state.events = last.into_iter().collect();
        state.closed = true;
        drop(state);
        self.shared.changed.notify_waiters();
    }

    /// A reader that begins with event number `next`.
    pub(crate) fn reader(&self, next: u64) -> EventReader {
        EventReader {
            shared: Arc::clone(&self.shared),
            next,
        }
    }
}

impl EventReader {
    /// The next event; `None` when none comes any more. Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Option<Numbered> {
        let shared = Arc::clone(&self.shared);
        loop {
            // Made before the look, so that nothing is missed between the two.
            let changed = shared.changed.notified();
            if let Some(event) = self.try_recv() {
                return Some(event);
            }
            if self.is_over() {
                return None;
            }
            changed.await;
        }
    }

    /// The next event, if it is there already.
    pub fn try_recv(&mut self) -> Option<Numbered> {
        let mut state = self.shared.state();
        let event = if self.shared.keeps {
            let at = usize::try_from(self.next.checked_sub(state.first)?).ok()?;
            state.events.get(at)?.clone()
        } else {
            if self.next != state.first {
                // What came before is cut.
                return None;
            }
            let event = state.events.pop_front()?;
            state.first += 1;
            self.shared.count_down(event.bytes());
            event
        };
        self.next += 1;
        Some(event)
    }

    /// The id of the event that it takes next.
    #[must_use]
    pub fn next_id(&self) -> u64 {
        self.next
    }

    /// Nothing more comes, and nothing is left to take.
    fn is_over(&self) -> bool {
        let state = self.shared.state();
        state.closed && !(state.first..state.next_id()).contains(&self.next)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count_up(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.total.0.fetch_add(bytes, Ordering::Relaxed);
    }

    fn count_down(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.total.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.count_down(self.bytes.load(Ordering::Relaxed));
    }
}

impl State {
    fn next_id(&self) -> u64 {
        self.first + self.events.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use orcd_shared::error::ErrorCode;

    use super::*;
    use crate::jobs::JobEvent;

    fn event(id: u64) -> Numbered {
        let event = JobEvent::Error {
            code: ErrorCode::Cancelled,
            message: "x".repeat(100),
            retriable: true,
            tokens_out: 0,
        };
        Numbered { id, event }
    }

    #[tokio::test]
    async fn who_has_all_but_the_last_event_gets_it_also_after_a_cut() {
        for keeps in [true, false] {
            let total = LogBytes::default();
            let log = EventLog::new(keeps, total.clone());
            (0..3).for_each(|id| log.push(event(id)));
            let mut reader = log.reader(0);
            for id in 0..3 {
                assert_eq!(reader.recv().await.unwrap().id, id);
            }
            log.finish(event(3));
            log.cut();
            assert_eq!(total.get(), event(3).bytes());
            assert_eq!(reader.recv().await.unwrap().id, 3);
            assert!(reader.recv().await.is_none());
            drop((log, reader));
            assert_eq!(total.get(), 0);
            // One that is behind sees no event out of turn.
            let log = EventLog::new(keeps, total.clone());
            (0..3).for_each(|id| log.push(event(id)));
            let mut reader = log.reader(0);
            assert_eq!(reader.recv().await.unwrap().id, 0);
            log.finish(event(3));
            log.cut();
            assert!(reader.recv().await.is_none());
        }
    }
}
