//! What is known of each worker that there is: the present one, the one behind it, and lost ones
//! that have yet to be reaped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use orcd_shared::protocol::message::WorkerInfo;

use super::pulse::Pulse;

/// One worker process.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) pid: Option<u32>,
    /// Its account of itself, once it is ready.
    pub(super) info: Option<Arc<WorkerInfo>>,
    pub(super) pulse: Pulse,
    /// It was killed for not reacting, whatever its exit status says.
    pub(super) hung: bool,
    /// It was the present worker when it was lost: its end is to be counted.
    pub(super) lost: bool,
    /// A warning of its loss stands in the log.
    pub(super) warned: bool,
    /// The last lines that it wrote for people.
    pub(super) log: Vec<String>,
}

/// All of them by their numbers.
#[derive(Debug, Default)]
pub(super) struct Crew {
    members: BTreeMap<u64, Member>,
    /// The slowest step that a lost worker made: its successor does the same work.
    slowest: Duration,
}

impl Crew {
    /// A worker is being started.
    pub(super) fn join(&mut self, generation: u64, now: Instant) {
        let member = Member {
            pid: None,
            info: None,
            pulse: Pulse::new(now, self.slowest),
            hung: false,
            lost: false,
            warned: false,
            log: Vec::new(),
        };
        self.members.insert(generation, member);
    }

    pub(super) fn get(&self, generation: u64) -> Option<&Member> {
        self.members.get(&generation)
    }

    pub(super) fn get_mut(&mut self, generation: u64) -> Option<&mut Member> {
        self.members.get_mut(&generation)
    }

    /// Changes what is known of a worker, if it is still there.
    pub(super) fn update(&mut self, generation: u64, change: impl FnOnce(&mut Member)) {
        self.members.get_mut(&generation).map(change);
    }

    /// The present worker is lost.
    pub(super) fn note_lost(&mut self, generation: u64) {
        if let Some(member) = self.members.get_mut(&generation) {
            member.lost = true;
            self.slowest = member.pulse.slowest().unwrap_or(self.slowest);
        }
    }

    /// There is no such process any more.
    pub(super) fn leave(&mut self, generation: u64) -> Option<Member> {
        self.members.remove(&generation)
    }

    /// This process itself stood still for `gap`: nobody else is to blame for what did not come
    /// meanwhile.
    pub(super) fn excuse(&mut self, gap: Duration) {
        for member in self.members.values_mut() {
            member.pulse.excuse(gap);
        }
    }
}
