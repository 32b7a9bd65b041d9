//! The pool of KV memory that outlives workers: which one it is, which worker's it is, and who may still
//! be writing to it.

use std::collections::BTreeMap;
use std::time::SystemTime;

use orcd_shared::protocol::message::Serve;

use crate::worker::handles::PoolHandle;

/// [`orcd_shared::kv::PoolManifest::id`].
type PoolId = [u8; 16];

/// Who owns the pool, and who did.
#[derive(Debug)]
pub(super) struct Pool {
    /// What the next worker is given.
    held: Option<PoolHandle>,
    /// Of the last worker that served.
    epoch: u64,
    /// Workers that served on a pool, by their numbers, and which it is; each until its end was seen.
    /// Its last steps may be written until then, on a GPU even after SIGKILL.
    owners: BTreeMap<u64, PoolId>,
    /// The worker that was told that some of those before it are left, and not yet that none is.
    unsettled: Option<u64>,
}

impl Pool {
    /// `held` is what an earlier process left, without a worker that had it. Epochs rise from the present time in
    /// nanoseconds on: a pool that outlives this process has only lower ones in its ledger, so a worker that was left from
    /// then can't take a later owner's epoch for its own.
    pub(super) fn new(held: Option<PoolHandle>) -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let nanoseconds = since.map_or(0, |since| since.as_nanos());
        Self::from_epoch(held, u64::try_from(nanoseconds).unwrap_or(0))
    }

    fn from_epoch(held: Option<PoolHandle>, epoch: u64) -> Self {
        Self {
            held,
            epoch,
            owners: BTreeMap::new(),
            unsettled: None,
        }
    }

    /// What the next worker is given.
    pub(super) fn held(&self) -> Option<&PoolHandle> {
        self.held.as_ref()
    }

    /// No worker is given it any more; `false`: there was none.
    pub(super) fn release(&mut self) -> bool {
        self.held.take().is_some()
    }

    /// Worker number `generation` serves from now on, on the pool that it reported; the
    /// one held before is let go of. `keep`: what is in its pages may be believed. Returns what it is told,
    /// but for the jobs that follow.
    pub(super) fn pass_to(
        &mut self,
        generation: u64,
        pool: Option<PoolHandle>,
        keep: bool,
    ) -> Serve {
        self.held = pool;
        self.epoch += 1;
        let id = self.held.as_ref().map(|pool| pool.manifest.id);
        let settled = !self.owners.values().any(|of| Some(*of) == id);
        if let Some(id) = id {
            self.owners.insert(generation, id);
        }
        self.unsettled = (!settled).then_some(generation);
        Serve {
            epoch: self.epoch,
            keep,
            settled,
            replays: 0,
        }
    }

    /// Nothing is left of a worker. Returns who is to be told that all is settled: the worker that serves,
    /// if this was the last of those that it had to expect something of.
    pub(super) fn ended(&mut self, generation: u64) -> Option<u64> {
        self.owners.remove(&generation)?;
        let waiting = self.unsettled?;
        let id = self.owners.get(&waiting)?;
        let mut others = self.owners.iter().filter(|(owner, _)| **owner != waiting);
        if others.any(|(_, of)| of == id) {
            return None;
        }
        self.unsettled.take()
    }
}

#[cfg(test)]
mod tests {
    use orcd_shared::kv::PoolManifest;

    use super::*;

    fn pool(id: u8) -> Option<PoolHandle> {
        let manifest = PoolManifest {
            id: [id; 16],
            backend: "cpu".into(),
            pages: 3,
            bytes: 4,
            fingerprint: [5; 32],
        };
        let file = || tempfile::tempfile().unwrap().into();
        Some(PoolHandle::new(manifest, file(), file()))
    }

    fn settled(pool: &mut Pool, generation: u64, of: Option<PoolHandle>) -> bool {
        pool.pass_to(generation, of, true).settled
    }

    #[test]
    fn epochs_rise_with_each_worker_and_from_one_process_to_the_next() {
        let mut one = Pool::new(None);
        let first = one.pass_to(1, pool(1), true);
        let second = one.pass_to(2, pool(1), false);
        assert_eq!(second.epoch, first.epoch + 1);
        assert!(first.keep && !second.keep);
        std::thread::sleep(std::time::Duration::from_millis(1));
        assert!(Pool::new(None).pass_to(1, pool(1), true).epoch > second.epoch);
    }

    #[test]
    fn what_an_earlier_process_left_is_settled() {
        let mut held = Pool::new(pool(1));
        assert_eq!(held.held().map(|pool| pool.manifest.id), Some([1; 16]));
        assert!(settled(&mut held, 1, pool(1)));
        assert!(!settled(&mut held, 2, pool(1)));
    }

    #[test]
    fn it_is_settled_when_the_last_of_those_before_has_ended_and_that_is_said_once() {
        let mut held = Pool::from_epoch(None, 0);
        assert!(settled(&mut held, 1, pool(1)));
        assert!(!settled(&mut held, 2, pool(1)));
        assert!(!settled(&mut held, 4, pool(1)));
        assert_eq!(held.ended(2), None, "the first is left");
        assert_eq!(held.ended(3), None, "a standby that never served");
        assert_eq!(held.ended(1), Some(4));
        assert_eq!(held.ended(1), None);
        assert!(!settled(&mut held, 5, pool(1)));
        assert_eq!(held.ended(5), None, "nobody waits any more");
        assert_eq!(held.ended(4), None);
        assert!(settled(&mut held, 6, pool(1)));
    }

    #[test]
    fn one_that_is_never_seen_to_end_leaves_its_pool_unsettled_and_no_other() {
        let mut held = Pool::from_epoch(None, 0);
        assert!(settled(&mut held, 1, pool(1)));
        for generation in 2..5 {
            assert!(!settled(&mut held, generation, pool(1)));
            assert_eq!(held.ended(generation), None);
        }
        assert!(settled(&mut held, 5, pool(2)), "a pool of its own");
        assert!(settled(&mut held, 6, None), "one that nobody else has");
    }

    #[test]
    fn what_the_last_one_reported_is_held_until_it_is_released() {
        let mut held = Pool::from_epoch(None, 0);
        let id = |held: &Pool| held.held().map(|pool| pool.manifest.id[0]);
        assert_eq!(id(&held), None);
        for reported in [1, 1, 2] {
            held.pass_to(reported.into(), pool(reported), true);
            assert_eq!(id(&held), Some(reported));
        }
        assert!(held.release());
        assert!(!held.release());
        held.pass_to(7, pool(3), true);
        held.pass_to(8, None, true);
        assert_eq!(id(&held), None);
    }
}
