//! Identity of a weights image that outlives the worker that built it.

use std::io;
use std::os::unix::fs::MetadataExt as _;

use serde::{Deserialize, Serialize};

use crate::gguf::GgufFile;

/// Says what lies behind a weights descriptor. A worker attaches to the image only if every field
/// equals what it would build itself; otherwise it loads from the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightsManifest {
    /// Which file the image was built from.
    pub model: ModelIdentity,
    /// Raised with every change of the image's layout.
    pub layout_version: u32,
    /// "cpu" or "cuda".
    pub backend: String,
    /// Size of the image.
    pub image_bytes: u64,
}

/// A model's file at one point in time, or its files together. A file replaced under a running
/// service has another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelIdentity {
    /// Size of all files, bytes.
    pub file_bytes: u64,
    /// Time of the last change of any of them, nanoseconds since the epoch.
    pub modified_ns: u128,
    /// Hash of everything before the tensor data: metadata, names, shapes, types, offsets.
    pub header_hash: u64,
}

impl ModelIdentity {
    /// The identity of an open model file.
    ///
    /// # Errors
    /// Its size and time can't be found out.
    pub fn of(file: &GgufFile) -> io::Result<Self> {
        let mut identity = Self {
            file_bytes: 0,
            modified_ns: 0,
            header_hash: 0,
        };
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        for shard in file.shards() {
            let metadata = shard.file().metadata()?;
            let seconds = i128::from(metadata.mtime());
            let modified_ns = seconds * 1_000_000_000 + i128::from(metadata.mtime_nsec());
            // Before 1970 there were no such files.
            let modified_ns = u128::try_from(modified_ns).unwrap_or(0);
            identity.file_bytes = identity.file_bytes.saturating_add(metadata.len());
            identity.modified_ns = identity.modified_ns.max(modified_ns);
            hasher.update(shard.header_bytes());
        }
        identity.header_hash = hasher.digest();
        Ok(identity)
    }
}
