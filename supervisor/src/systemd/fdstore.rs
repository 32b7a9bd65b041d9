//! systemd's file-descriptor store: it keeps the descriptors of the weights and of the pool of KV memory while no
//! supervisor runs, and passes them to the next one.
//!
//! An image is stored under two names with one tag: its own descriptor, and a sealed memfd with a record of what it is. A
//! pool is stored under three: its memory, its ledger, a record. The store keeps no order among descriptors and may hold
//! those of two loads for a moment; the tag says which belong together.

mod record;
mod sort;

use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use orcd_shared::claim;
use orcd_shared::gguf::GgufFile;
use orcd_shared::weights::FileStamp;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::{Message, Notifier, Passed};
use crate::worker::handles::{Handover, PoolHandle, WeightsHandle};
pub use record::{ImageLocation, PoolSizing};
use record::{PoolRecord, WeightsRecord, seal};
use sort::{Found, Kind, POOL, Sorted, WEIGHTS, sort};

/// How long the last worker of an earlier supervisor may take to be gone. systemd has waited for it already; others, who only
/// pass descriptors on, may not have.
const PREDECESSOR_LEAVES: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What the store of this run is for. What came back and does not agree with it leaves the store.
#[derive(Debug, Clone)]
pub struct StoreTerms {
    /// Where weights and pool lie.
    pub place: ImageLocation,
    /// The model's file.
    pub model: PathBuf,
    /// `None`: no pool is kept over a restart.
    pub pool: Option<PoolTerms>,
}

/// What a pool has to agree with.
#[derive(Debug, Clone)]
pub struct PoolTerms {
    /// What it is sized by.
    pub sizing: PoolSizing,
    /// The worker's program: another one may compute in another way.
    pub program: PathBuf,
}

/// Something that is in the store.
#[derive(Debug)]
struct Stored<H> {
    tag: String,
    handle: H,
}

impl<R, H> From<Found<R, H>> for Stored<H> {
    fn from(found: Found<R, H>) -> Self {
        Self {
            tag: found.tag,
            handle: found.handle,
        }
    }
}

/// The store, as far as it is ours: at most one image and one pool, those retained now.
#[derive(Debug)]
pub struct FdStore {
    notifier: Notifier,
    terms: StoreTerms,
    weights: Option<Stored<WeightsHandle>>,
    pool: Option<Stored<PoolHandle>>,
}

impl FdStore {
    /// Takes over what was in the store. What belongs to another model, place, file or program, or does not fit what is
    /// asked for now, is removed from it and closed before anything is loaded: it holds memory that loading may need.
    pub async fn open(notifier: Notifier, terms: StoreTerms, passed: Vec<Passed>) -> Self {
        let mut store = Self {
            notifier,
            terms,
            weights: None,
            pool: None,
        };
        if passed.is_empty() {
            return store;
        }
        let Sorted {
            images,
            pools,
            rest,
        } = sort(passed);
        let mut removed = !rest.is_empty();
        for name in rest {
            tracing::warn!(name, "a passed descriptor is not used");
            store.remove(&name).await;
        }
        let path = store.terms.model.clone();
        let stamps = off_thread(move || stamps(&path)).await;
        for image in images {
            removed |= !store.take_image(image, stamps.as_deref()).await;
        }
        for pool in pools {
            removed |= !store.take_pool(pool).await;
        }
        if removed {
            store.notifier.barrier().await;
        }
        store
    }

    /// What was in the store, for the first worker. It examines it itself.
    #[must_use]
    pub fn handles(&self) -> Handover {
        let weights = self.weights.as_ref().map(|stored| stored.handle.clone());
        let pool = self.pool.as_ref().map(|stored| stored.handle.clone());
        Handover { weights, pool }
    }

    /// Keeps in the store what `retained` shows, until nobody shows anything any more.
    pub async fn keep(mut self, mut retained: watch::Receiver<Handover>) -> Self {
        loop {
            let now = retained.borrow_and_update().clone();
            self.hold(now).await;
            if retained.changed().await.is_err() {
                return self;
            }
        }
    }

    /// Takes everything of ours out of the store.
    pub async fn clear(&mut self) {
        self.clear_pool().await;
        self.clear_weights().await;
    }

    /// Takes the pool out of the store.
    pub async fn clear_pool(&mut self) {
        if let Some(stored) = self.pool.take() {
            self.remove_all(&POOL, &stored.tag).await;
        }
    }

    async fn clear_weights(&mut self) {
        if let Some(stored) = self.weights.take() {
            self.remove_all(&WEIGHTS, &stored.tag).await;
        }
    }

    /// Whether an image that came back is of use. Hashing the model's files is left to the worker: an image of files that
    /// were touched is loaded again.
    async fn take_image(
        &mut self,
        image: Found<WeightsRecord, WeightsHandle>,
        stamps: Option<&[FileStamp]>,
    ) -> bool {
        let weights = &image.record.weights;
        let fits = image.record.place == self.terms.place
            && Some(&weights.model.stamps[..]) == stamps
            && self.weights.is_none();
        if fits {
            let bytes = weights.image_bytes;
            tracing::info!(bytes, "weights of an earlier run are kept");
            self.weights = Some(image.into());
        } else {
            tracing::info!("weights of an earlier run are of another model file or device");
            self.remove_all(&WEIGHTS, &image.tag).await;
        }
        fits
    }

    /// Whether a pool that came back is of use.
    async fn take_pool(&mut self, pool: Found<PoolRecord, PoolHandle>) -> bool {
        let verdict = match self.judge(&pool.record).await {
            Ok(()) => is_left(&pool.handle).await,
            refused => refused,
        };
        match verdict {
            Ok(()) => {
                let bytes = pool.record.pool.bytes;
                tracing::info!(bytes, "KV memory of an earlier run is kept");
                self.pool = Some(pool.into());
            }
            Err(why) => {
                tracing::info!("KV memory of an earlier run is of no use: {why}");
                self.remove_all(&POOL, &pool.tag).await;
            }
        }
        verdict.is_ok()
    }

    /// What can be known of a pool before there is a worker, which knows the rest.
    async fn judge(&self, record: &PoolRecord) -> Result<(), &'static str> {
        let Some(terms) = &self.terms.pool else {
            return Err("the prefix cache is turned off");
        };
        if self.pool.is_some() {
            return Err("there is another");
        }
        let weights = self.weights.as_ref().map(|stored| &stored.handle.manifest);
        if record.place != self.terms.place
            || weights.map(|weights| weights.model.hash) != Some(record.model)
        {
            return Err("its weights did not come back");
        }
        if record.sizing != terms.sizing {
            return Err("--context, --parallel, --kv-memory or --standby is another");
        }
        if stamp(terms.program.clone()).await != Some(record.program) {
            return Err("the worker's program was replaced");
        }
        Ok(())
    }

    async fn hold(&mut self, now: Handover) {
        let Handover { weights, pool } = now;
        // A pool is worth nothing without the weights, for whoever finds it alone can't know whose it is.
        let pool = pool.filter(|_| weights.is_some() && self.terms.pool.is_some());
        let is_same = match (&self.pool, &pool) {
            (Some(stored), Some(now)) => stored.handle.is_same(now),
            (None, None) => true,
            _ => false,
        };
        if !is_same {
            self.clear_pool().await;
        }
        self.hold_weights(weights).await;
        if let Some(pool) = pool.filter(|_| !is_same && self.notifier.is_there()) {
            self.add_pool(pool).await;
        }
    }

    async fn hold_weights(&mut self, now: Option<WeightsHandle>) {
        let is_same = match (&self.weights, &now) {
            (Some(stored), Some(now)) => stored.handle.is_same(now),
            (None, None) => true,
            _ => false,
        };
        if is_same {
            return;
        }
        self.clear_weights().await;
        let Some(weights) = now.filter(|_| self.notifier.is_there()) else {
            return;
        };
        let record = WeightsRecord {
            place: self.terms.place.clone(),
            weights: weights.manifest.clone(),
        };
        let descriptors = [(Kind::Weights, weights.as_fd())];
        match self.add(&record, Kind::WeightsRecord, &descriptors).await {
            Ok(tag) => {
                let handle = weights;
                self.weights = Some(Stored { tag, handle });
            }
            Err(error) => {
                tracing::warn!(%error, "weights are not kept over a restart of this process");
            }
        }
    }

    async fn add_pool(&mut self, pool: PoolHandle) {
        let (Some(terms), Some(weights)) = (&self.terms.pool, &self.weights) else {
            return;
        };
        let Some(program) = stamp(terms.program.clone()).await else {
            return tracing::warn!("KV memory is not kept over a restart: no file of the worker's");
        };
        let record = PoolRecord {
            place: self.terms.place.clone(),
            sizing: terms.sizing.clone(),
            program,
            model: weights.handle.manifest.model.hash,
            pool: pool.manifest.clone(),
        };
        let descriptors = [(Kind::Memory, pool.memory()), (Kind::Ledger, pool.ledger())];
        match self.add(&record, Kind::PoolRecord, &descriptors).await {
            Ok(tag) => self.pool = Some(Stored { tag, handle: pool }),
            Err(error) => {
                tracing::warn!(%error, "KV memory is not kept over a restart of this process");
            }
        }
    }

    /// Stores descriptors and the record of what they are, under one tag.
    async fn add(
        &self,
        record: &impl Serialize,
        kind: Kind,
        descriptors: &[(Kind, BorrowedFd<'_>)],
    ) -> std::io::Result<String> {
        let sealed = seal(record)?;
        let tag = format!("{:016x}", fastrand::u64(..));
        for (kind, fd) in [(kind, sealed.as_fd())].iter().chain(descriptors) {
            let message = Message::default()
                .with("FDSTORE", 1)
                .with("FDNAME", kind.name(&tag))
                // A device's descriptor that polls as closed would be thrown out.
                .with("FDPOLL", 0);
            self.notifier.notify(&message, &[*fd]).await;
        }
        Ok(tag)
    }

    async fn remove_all(&self, kinds: &[Kind], tag: &str) {
        for kind in kinds {
            self.remove(&kind.name(tag)).await;
        }
    }

    async fn remove(&self, name: &str) {
        let message = Message::default()
            .with("FDSTOREREMOVE", 1)
            .with("FDNAME", name);
        self.notifier.notify(&message, &[]).await;
    }
}

/// Waits for a moment until no worker that had the pool is left: one that is may still be writing to it.
async fn is_left(pool: &PoolHandle) -> Result<(), &'static str> {
    let end = Instant::now() + PREDECESSOR_LEAVES;
    loop {
        match claim::is_free(pool.ledger()) {
            Ok(true) => return Ok(()),
            Ok(false) if Instant::now() < end => sleep(LOOK_AGAIN).await,
            Ok(false) => return Err("a worker that had it is still there"),
            Err(error) => {
                tracing::warn!(%error, "a ledger that can't be examined");
                return Err("its ledger can't be examined");
            }
        }
    }
}

/// What the model's files look like now; `None` where loading will complain.
fn stamps(model: &Path) -> Option<Vec<FileStamp>> {
    FileStamp::of_model(&GgufFile::open(model).ok()?).ok()
}

/// What a program's file looks like now.
async fn stamp(program: PathBuf) -> Option<FileStamp> {
    off_thread(move || FileStamp::of(&std::fs::File::open(program).ok()?).ok()).await
}

/// What `look` finds, apart from the threads that must not wait for a file system.
async fn off_thread<T: Send + 'static>(
    look: impl FnOnce() -> Option<T> + Send + 'static,
) -> Option<T> {
    tokio::task::spawn_blocking(look).await.ok().flatten()
}

#[cfg(test)]
mod tests;
