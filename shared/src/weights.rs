//! Identity of a weights image that outlives the worker that built it.

use serde::{Deserialize, Serialize};

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

/// A model file at one point in time. A file replaced under a running service has another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelIdentity {
    /// File size, bytes.
    pub file_bytes: u64,
    /// Time of the last change, nanoseconds since the epoch.
    pub modified_ns: u128,
    /// Hash of everything before the tensor data: metadata, names, shapes, types, offsets.
    pub header_hash: u64,
}
