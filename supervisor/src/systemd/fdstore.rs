//! systemd's file-descriptor store: it keeps the descriptor of the weights while no supervisor
//! runs, and passes it to the next one.
//!
//! An image is stored under two names with one tag: its own descriptor, and a sealed memfd with a
//! [`Record`] of what it is. The store keeps no order among descriptors and may hold the images of
//! two loads for a moment; the tag says which belong together.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use orcd_shared::gguf::GgufFile;
use orcd_shared::protocol::message::Device;
use orcd_shared::sealed;
use orcd_shared::weights::{FileStamp, WeightsManifest};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{Message, Notifier, Passed};
use crate::worker::handles::WeightsHandle;

const WEIGHTS: &str = "orcd-weights-";
const RECORD: &str = "orcd-record-";
/// Longest record that is read. Each file of the model takes some 150 bytes, 300 at most.
const MAX_RECORD_BYTES: u64 = 1 << 20;

/// Where an image lies. The device's number alone does not say: it counts what is visible.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageLocation {
    device: String,
    visible_devices: Option<String>,
}

impl ImageLocation {
    /// The place of this process's images.
    #[must_use]
    pub fn of(device: Device) -> Self {
        Self {
            device: device.to_string(),
            visible_devices: std::env::var("CUDA_VISIBLE_DEVICES").ok(),
        }
    }
}

/// What a stored image is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    place: ImageLocation,
    weights: WeightsManifest,
}

/// An image that is in the store.
#[derive(Debug)]
struct Stored {
    tag: String,
    weights: WeightsHandle,
}

/// The store, as far as it is ours: at most one image, that of the weights retained now.
#[derive(Debug)]
pub struct FdStore {
    notifier: Notifier,
    place: ImageLocation,
    stored: Option<Stored>,
}

impl FdStore {
    /// Takes over what was in the store. An image of another model, place or file is removed from it
    /// before anything is loaded: it holds memory that loading may need.
    pub async fn open(
        notifier: Notifier,
        place: ImageLocation,
        passed: Vec<Passed>,
        model: &Path,
    ) -> Self {
        let mut store = Self {
            notifier,
            place,
            stored: None,
        };
        if passed.is_empty() {
            return store;
        }
        let path = model.to_owned();
        let stamps = tokio::task::spawn_blocking(move || stamps(&path)).await;
        let stamps = stamps.ok().flatten();
        let Sorted { images, rest } = sort(passed);
        for name in rest {
            tracing::warn!(name, "a passed descriptor is not used");
            store.remove(&name).await;
        }
        for image in images {
            let weights = &image.record.weights;
            let fits =
                image.record.place == store.place && Some(&weights.model.stamps) == stamps.as_ref();
            if fits && store.stored.is_none() {
                tracing::info!(
                    bytes = weights.image_bytes,
                    "weights of an earlier run are kept"
                );
                store.stored = Some(image.into_stored());
            } else {
                tracing::info!("weights of an earlier run are of another model file or device");
                store.remove_image(&image.tag).await;
            }
        }
        store
    }

    /// The weights that were in the store, for the first worker. It examines them itself.
    #[must_use]
    pub fn weights(&self) -> Option<WeightsHandle> {
        self.stored.as_ref().map(|stored| stored.weights.clone())
    }

    /// Keeps in the store what `retained` shows, until nobody shows anything any more.
    pub async fn keep(mut self, mut retained: watch::Receiver<Option<WeightsHandle>>) -> Self {
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
        if let Some(stored) = self.stored.take() {
            self.remove_image(&stored.tag).await;
        }
    }

    async fn hold(&mut self, now: Option<WeightsHandle>) {
        let same = match (&self.stored, &now) {
            (Some(stored), Some(now)) => stored.weights.is_same(now),
            (None, None) => true,
            _ => false,
        };
        if same {
            return;
        }
        self.clear().await;
        if let Some(weights) = now
            && self.notifier.is_there()
        {
            self.add(weights).await;
        }
    }

    async fn add(&mut self, weights: WeightsHandle) {
        let record = Record {
            place: self.place.clone(),
            weights: weights.manifest.clone(),
        };
        let sealed = match seal(&record) {
            Ok(sealed) => sealed,
            Err(error) => {
                return tracing::warn!(%error, "weights are not kept over a restart of this process");
            }
        };
        let tag = format!("{:016x}", fastrand::u64(..));
        for (kind, fd) in [(RECORD, sealed.as_fd()), (WEIGHTS, weights.as_fd())] {
            let message = Message::default()
                .with("FDSTORE", 1)
                .with("FDNAME", format_args!("{kind}{tag}"))
                // A device's descriptor that polls as closed would be thrown out.
                .with("FDPOLL", 0);
            self.notifier.notify(&message, &[fd]).await;
        }
        self.stored = Some(Stored { tag, weights });
    }

    async fn remove_image(&self, tag: &str) {
        self.remove(&format!("{WEIGHTS}{tag}")).await;
        self.remove(&format!("{RECORD}{tag}")).await;
    }

    async fn remove(&self, name: &str) {
        let message = Message::default()
            .with("FDSTOREREMOVE", 1)
            .with("FDNAME", name);
        self.notifier.notify(&message, &[]).await;
    }
}

/// An image that came back.
#[derive(Debug)]
struct Image {
    tag: String,
    record: Record,
    fd: OwnedFd,
}

impl Image {
    fn into_stored(self) -> Stored {
        Stored {
            tag: self.tag,
            weights: WeightsHandle::new(self.record.weights, self.fd),
        }
    }
}

#[derive(Debug, Default)]
struct Sorted {
    images: Vec<Image>,
    /// Names of what is no image: half of one, or nothing of ours.
    rest: Vec<String>,
}

/// Puts images and their records together.
fn sort(mut passed: Vec<Passed>) -> Sorted {
    let mut sorted = Sorted::default();
    while let Some(next) = passed.pop() {
        let Some(tag) = tag(&next.name) else {
            sorted.rest.push(next.name);
            continue;
        };
        let tag = tag.to_owned();
        let partner = passed
            .iter()
            .position(|other| other.name != next.name && self::tag(&other.name) == Some(&tag));
        let Some(partner) = partner else {
            sorted.rest.push(next.name);
            continue;
        };
        let partner = passed.swap_remove(partner);
        let (weights, record) = match next.name.starts_with(WEIGHTS) {
            true => (next, partner),
            false => (partner, next),
        };
        match read(record.fd).and_then(|record| sound(record, &weights.fd)) {
            Ok(record) => sorted.images.push(Image {
                tag,
                record,
                fd: weights.fd,
            }),
            Err(error) => {
                tracing::warn!(%error, "weights of an earlier run are not what was stored");
                sorted.rest.extend([weights.name, record.name]);
            }
        }
    }
    sorted
}

fn tag(name: &str) -> Option<&str> {
    name.strip_prefix(WEIGHTS)
        .or_else(|| name.strip_prefix(RECORD))
}

fn seal(record: &Record) -> io::Result<File> {
    sealed::create("orcd-record", &serde_json::to_vec(record)?)
}

/// The record, if the image is one that nobody can change. One on a GPU is no memfd; only those that
/// map it for writing could change it, and they are gone.
fn sound(record: Record, image: &OwnedFd) -> io::Result<Record> {
    if record.weights.backend == "cpu" {
        sealed::check(image, "the image")?;
    }
    Ok(record)
}

/// Reads a record. Its descriptor shares its position with all others of the same memfd, so the
/// position is not used.
fn read(fd: OwnedFd) -> io::Result<Record> {
    sealed::check(&fd, "the record")?;
    let file = File::from(fd);
    let length = file.metadata()?.len();
    if length > MAX_RECORD_BYTES {
        return Err(io::Error::other(format!("a record of {length} bytes")));
    }
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// What the model's files look like now; `None` where loading will complain. Hashing them is left to
/// the worker: an image of files that were touched is loaded again.
fn stamps(model: &Path) -> Option<Vec<FileStamp>> {
    FileStamp::of_model(&GgufFile::open(model).ok()?).ok()
}

#[cfg(test)]
mod tests;
