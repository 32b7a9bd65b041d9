//! Which of the descriptors that came back belong together.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;

use orcd_shared::sealed;

use super::record::{self, PoolRecord, WeightsRecord};
use crate::systemd::Passed;
use crate::worker::handles::{PoolHandle, WeightsHandle};

/// What a descriptor in the store is; in the order in which those of one tag are taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Weights,
    WeightsRecord,
    Memory,
    Ledger,
    PoolRecord,
}

/// Of weights.
pub(super) const WEIGHTS: [Kind; 2] = [Kind::Weights, Kind::WeightsRecord];
/// Of a pool.
pub(super) const POOL: [Kind; 3] = [Kind::Memory, Kind::Ledger, Kind::PoolRecord];

impl Kind {
    /// What its names begin with; none is the beginning of another.
    const fn prefix(self) -> &'static str {
        match self {
            Self::Weights => "orcd-weights-",
            Self::WeightsRecord => "orcd-record-",
            Self::Memory => "orcd-kv-memory-",
            Self::Ledger => "orcd-kv-ledger-",
            Self::PoolRecord => "orcd-kv-record-",
        }
    }

    /// The name in the store.
    pub(super) fn name(self, tag: impl fmt::Display) -> String {
        format!("{}{tag}", self.prefix())
    }

    fn of(name: &str) -> Option<(Self, &str)> {
        let mut all = WEIGHTS.into_iter().chain(POOL);
        all.find_map(|kind| Some((kind, name.strip_prefix(kind.prefix())?)))
    }
}

/// An image or a pool that came back.
#[derive(Debug)]
pub(super) struct Found<R, H> {
    pub(super) tag: String,
    pub(super) record: R,
    pub(super) handle: H,
}

#[derive(Debug, Default)]
pub(super) struct Sorted {
    pub(super) images: Vec<Found<WeightsRecord, WeightsHandle>>,
    pub(super) pools: Vec<Found<PoolRecord, PoolHandle>>,
    /// Names of what is neither: parts of one, or nothing of ours.
    pub(super) rest: Vec<String>,
}

/// Puts descriptors and their records together. What is of no use is closed.
pub(super) fn sort(passed: Vec<Passed>) -> Sorted {
    let mut sorted = Sorted::default();
    let mut by_tag = BTreeMap::<_, Vec<_>>::new();
    for Passed { name, fd } in passed {
        match Kind::of(&name) {
            Some((kind, tag)) => {
                let group = (POOL.contains(&kind), tag.to_owned());
                by_tag.entry(group).or_default().push((kind, fd));
            }
            None => sorted.rest.push(name),
        }
    }
    for ((_, tag), mut parts) in by_tag {
        parts.sort_by_key(|(kind, _)| *kind);
        let (kinds, fds): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        if let Err(error) = sorted.take(&tag, &kinds, fds) {
            tracing::warn!(%error, "memory of an earlier run is not what was stored");
            let names = kinds.into_iter().map(|kind| kind.name(&tag));
            sorted.rest.extend(names);
        }
    }
    sorted
}

impl Sorted {
    fn take(&mut self, tag: &str, kinds: &[Kind], fds: Vec<OwnedFd>) -> io::Result<()> {
        let mut fds = fds.into_iter();
        let mut next = || {
            fds.next()
                .ok_or_else(|| io::Error::other("a part is missing"))
        };
        let tag = tag.to_owned();
        if kinds == WEIGHTS {
            let (image, record) = (next()?, record::read::<WeightsRecord>(next()?)?);
            // One on a GPU is no memfd; only those that map it for writing could change it, and they are gone.
            if record.weights.backend == "cpu" {
                sealed::check(&image, "the image")?;
            }
            let handle = WeightsHandle::new(record.weights.clone(), image);
            self.images.push(Found {
                tag,
                record,
                handle,
            });
        } else if kinds == POOL {
            let (memory, ledger) = (next()?, next()?);
            let record: PoolRecord = record::read(next()?)?;
            let handle = PoolHandle::new(record.pool.clone(), memory, ledger);
            self.pools.push(Found {
                tag,
                record,
                handle,
            });
        } else {
            return Err(io::Error::other(format!("only {kinds:?} of {tag}")));
        }
        Ok(())
    }
}
