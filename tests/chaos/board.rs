//! Who streams, and how many crashes each stream was in: a job that was running in three of them is
//! given up by design, so the campaign keeps below that.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

/// One less than the service bears.
const MOST_CRASHES: u32 = 2;

#[derive(Debug, Default)]
struct Open {
    /// Crashes by the number of the stream.
    crashes: HashMap<u64, u32>,
    next: u64,
    /// What a fault that is not over may cost whoever begins meanwhile.
    under_way: u32,
}

/// All open streams.
#[derive(Debug, Default)]
pub(crate) struct Board(Mutex<Open>);

/// A stream that is open, until it is dropped.
#[derive(Debug)]
pub(crate) struct Entry<'b> {
    board: &'b Board,
    number: u64,
}

impl Board {
    /// A stream begins; its number with it.
    pub(crate) fn enter(&self) -> Entry<'_> {
        let mut open = self.open();
        let number = open.next;
        open.next += 1;
        let crashes = open.under_way;
        open.crashes.insert(number, crashes);
        Entry {
            board: self,
            number,
        }
    }

    /// Begins a fault if every stream bears it.
    pub(crate) fn begin(&self, crashes: u32) -> bool {
        let mut open = self.open();
        let bears = |so_far: &u32| so_far + crashes <= MOST_CRASHES;
        if !open.crashes.values().all(bears) {
            return false;
        }
        open.crashes.values_mut().for_each(|c| *c += crashes);
        open.under_way = crashes;
        true
    }

    /// The fault is over.
    pub(crate) fn end(&self) {
        self.open().under_way = 0;
    }

    /// The worker was lost so many times and nobody had asked for it.
    pub(crate) fn count(&self, crashes: u32) {
        self.open().crashes.values_mut().for_each(|c| *c += crashes);
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap()
    }
}

impl Entry<'_> {
    pub(crate) fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.board.open().crashes.remove(&self.number);
    }
}

#[test]
fn no_stream_is_hit_more_often_than_it_bears() {
    let board = Board::default();
    let old = board.enter();
    assert!(board.begin(1));
    let young = board.enter();
    board.end();
    assert!(!board.begin(2), "both had one");
    assert!(board.begin(1));
    board.end();
    assert!(!board.begin(1));
    drop((old, young));
    assert!(board.begin(2));
}
