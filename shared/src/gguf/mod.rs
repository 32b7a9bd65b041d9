//! Bounds-checked reader for GGUF model files, and a small writer.
//!
//! A model file is untrusted input. [`parse`] is a pure function over the bytes of a whole file: it
//! never panics, allocates no more than a small multiple of the file's own size, and reports every
//! fault as a [`GgufError`] that names the key or tensor, the file offset and the value found.
//! [`GgufFile`] adds memory maps to it, one for each file of the model; [`mod@write`] makes the files
//! that tests and tools need.

mod cursor;
mod error;
mod file;
mod header;
#[allow(unsafe_code)]
mod map;
mod metadata;
mod shard;
mod split;
mod tensor;
mod value;
pub mod write;

pub use error::GgufError;
pub use file::GgufFile;
pub use header::{Header, parse};
pub use metadata::Metadata;
pub use shard::Shard;
pub use split::{
    MAX_SHARDS, SPLIT_COUNT_KEY, SPLIT_NO_KEY, SPLIT_TENSORS_KEY, shard_path, shards_by_name,
};
pub use tensor::{FILE_TYPES, TensorInfo, TensorType};
pub use value::{Array, Value};

/// The first four bytes of every GGUF file.
pub const MAGIC: [u8; 4] = *b"GGUF";
/// The format version that is written.
pub const VERSION: u32 = 3;
/// The oldest version that is read. It differs from [`VERSION`] only in what version 3 says of
/// big-endian files.
pub const OLDEST_VERSION: u32 = 2;
/// Alignment of the data section and of each tensor, in bytes, where the file sets none.
pub const DEFAULT_ALIGNMENT: u64 = 32;
/// The key that sets another alignment.
pub const ALIGNMENT_KEY: &str = "general.alignment";
/// Longest key accepted, in bytes.
pub const MAX_KEY_BYTES: u64 = 65_535;
/// Longest tensor name accepted, in bytes.
pub const MAX_TENSOR_NAME_BYTES: u64 = 64;
/// Most dimensions a tensor may have.
pub const MAX_DIMS: u32 = 4;
