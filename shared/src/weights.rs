//! Identity of a weights image that outlives the worker that built it.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;

use serde::{Deserialize, Serialize};

use crate::gguf::GgufFile;

/// Says what a weights descriptor stands for. A worker attaches to the image only if every field
/// equals what it would build itself; otherwise it loads from the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightsManifest {
    /// Which file the image was built from.
    pub model: ModelIdentity,
    /// Of the image's layout; it follows from what the backend's packing does.
    pub layout_version: u32,
    /// "cpu" or "cuda".
    pub backend: String,
    /// Size of the image.
    pub image_bytes: u64,
    /// Of some rows, read back from the image: an image in which they are not found is not taken.
    pub sample_checksum: u64,
}

/// A model: what it is, and its files as they were when they were read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelIdentity {
    /// Of every byte of its files.
    pub hash: ContentHash,
    /// One for each file, in their order. While they stay the same the content does, and nobody
    /// reads the files again.
    pub stamps: Vec<FileStamp>,
}

/// The content of a model. For a model of one file it is the file's BLAKE3 hash, as `b3sum` prints
/// it; for a split model it is made of those of its files.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ContentHash(pub [u8; 32]);

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("blake3:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A file at one point in time: whoever writes to it, or puts another one in its place, changes this.
/// So do some that leave the content as it is, `touch` for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStamp {
    /// Of its file system.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
    /// Size.
    pub bytes: u64,
    /// Time of the last writing, nanoseconds since the epoch. It can be set.
    pub modified_ns: i64,
    /// Time of the last change of content, times, name or rights. It can't be set.
    pub changed_ns: i64,
}

impl FileStamp {
    /// The stamp of an open file.
    ///
    /// # Errors
    /// The file can't be examined.
    pub fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    /// The stamps of a model's files, in their order.
    ///
    /// # Errors
    /// One of them can't be examined.
    pub fn of_model(model: &GgufFile) -> io::Result<Vec<Self>> {
        let shards = model.shards().iter();
        shards.map(|shard| Self::of(shard.file())).collect()
    }

    /// Whether nobody has written to the file between this stamp and `later`. Renaming it, or a change
    /// of its rights, is no writing.
    #[must_use]
    pub fn same_content_as(&self, later: &Self) -> bool {
        Self {
            changed_ns: later.changed_ns,
            ..*self
        } == *later
    }
}

/// Until 2262.
fn nanoseconds(seconds: i64, nanoseconds: i64) -> i64 {
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(nanoseconds)
}
