//! What is known of each worker that there is: the present one, the standby, and lost ones
//! that have yet to be reaped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use orcd_shared::protocol::message::WorkerInfo;

use super::liveness::Liveness;
use crate::worker::handles::PoolHandle;

/// One worker process.
#[derive(Debug)]
pub(super) struct WorkerEntry {
    pub(super) pid: Option<u32>,
    /// Its account of itself, once it is ready.
    pub(super) info: Option<Arc<WorkerInfo>>,
    /// The pool that it reported then. A standby that could not take over the one held made its own.
    pub(super) pool: Option<PoolHandle>,
    pub(super) liveness: Liveness,
    /// It was killed for not reacting, whatever its exit status says.
    pub(super) hung: bool,
    /// Somebody wanted to see it die.
    pub(super) killed_on_demand: bool,
    /// It was the present worker when it was lost: its end is to be counted.
    pub(super) lost: bool,
    /// A warning of its loss stands in the log.
    pub(super) warned: bool,
    /// The last lines that it wrote for people.
    pub(super) log: Vec<String>,
}

/// All of them by their numbers.
#[derive(Debug, Default)]
pub(super) struct Workers {
    entries: BTreeMap<u64, WorkerEntry>,
    /// The slowest step that a lost worker made: its successor does the same work.
    slowest: Duration,
}

impl Workers {
    /// A worker is being started.
    pub(super) fn join(&mut self, generation: u64, now: Instant) {
        let entry = WorkerEntry {
            pid: None,
            info: None,
            pool: None,
            liveness: Liveness::new(now, self.slowest),
            hung: false,
            killed_on_demand: false,
            lost: false,
            warned: false,
            log: Vec::new(),
        };
        self.entries.insert(generation, entry);
    }

    pub(super) fn get(&self, generation: u64) -> Option<&WorkerEntry> {
        self.entries.get(&generation)
    }

    pub(super) fn get_mut(&mut self, generation: u64) -> Option<&mut WorkerEntry> {
        self.entries.get_mut(&generation)
    }

    /// Changes what is known of a worker, if it is still there.
    pub(super) fn update(&mut self, generation: u64, change: impl FnOnce(&mut WorkerEntry)) {
        self.entries.get_mut(&generation).map(change);
    }

    /// The present worker is lost.
    pub(super) fn note_lost(&mut self, generation: u64) {
        if let Some(entry) = self.entries.get_mut(&generation) {
            entry.lost = true;
            self.slowest = entry.liveness.slowest().unwrap_or(self.slowest);
        }
    }

    /// There is no such process any more.
    pub(super) fn leave(&mut self, generation: u64) -> Option<WorkerEntry> {
        self.entries.remove(&generation)
    }

    /// This process itself did not run for `gap`: nobody else is to blame for what did not come
    /// meanwhile.
    pub(super) fn extend_deadlines(&mut self, gap: Duration) {
        for entry in self.entries.values_mut() {
            entry.liveness.extend_deadlines(gap);
        }
    }
}
