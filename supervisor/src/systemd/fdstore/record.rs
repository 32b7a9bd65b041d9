//! What is stored beside descriptors to say what they are: sealed files in memory.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;

use orcd_shared::kv::PoolManifest;
use orcd_shared::protocol::message::{Device, KvSize};
use orcd_shared::sealed;
use orcd_shared::weights::{ContentHash, FileStamp, WeightsManifest};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Longest record that is read. Each file of the model takes some 150 bytes, 300 at most.
pub(super) const MAX_RECORD_BYTES: u64 = 1 << 20;

/// Where an image or a pool lies. The device's number alone does not say: it counts what is visible.
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

/// What was asked for where a pool was sized. The memory that was free then is not there a second time: it is the pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoolSizing {
    /// `--context`
    pub context: Option<u32>,
    /// `--parallel`
    pub parallel: Option<u32>,
    /// `--kv-memory`
    pub kv: Option<KvSize>,
    /// `--standby`
    pub standby: bool,
}

/// What a stored image is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WeightsRecord {
    pub(super) place: ImageLocation,
    pub(super) weights: WeightsManifest,
}

/// What a stored pool is, and whose.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct PoolRecord {
    pub(super) place: ImageLocation,
    pub(super) sizing: PoolSizing,
    /// Of the worker's program.
    pub(super) program: FileStamp,
    /// Of the weights that are stored too.
    pub(super) model: ContentHash,
    pub(super) pool: PoolManifest,
}

/// A record that nobody can change any more.
pub(super) fn seal(record: &impl Serialize) -> io::Result<File> {
    sealed::create("orcd-record", &serde_json::to_vec(record)?)
}

/// Reads a record. Its descriptor shares its position with all others of the same memfd, so the
/// position is not used.
pub(super) fn read<R: DeserializeOwned>(fd: OwnedFd) -> io::Result<R> {
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
