//! Every way in which opening, parsing, querying or writing a GGUF file can fail.

use std::io;
use std::path::PathBuf;

use super::{MAX_DIMS, OLDEST_VERSION, VERSION};

/// What is wrong with a GGUF file. Offsets count bytes from the start of the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GgufError {
    /// The file could not be opened, examined or mapped.
    #[error("{path}: cannot {action}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// The path names a directory, socket, device or the like.
    #[error("{path}: not a regular file")]
    NotAFile {
        /// The path given.
        path: PathBuf,
    },
    /// The file has no bytes.
    #[error("{path}: the file is empty")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A tensor's bytes could not be read back, for instance because the file was truncated.
    #[error("{path}: tensor `{tensor}`: cannot read {len} bytes at offset {offset}: {source}")]
    ReadTensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// File offset of the read.
        offset: u64,
        /// Bytes wanted.
        len: u64,
        /// The system's answer.
        source: io::Error,
    },
    /// The file doesn't begin with `GGUF`.
    #[error("not a GGUF file: starts with {} instead of \"GGUF\"", found.escape_ascii())]
    BadMagic {
        /// Up to four bytes from the start of the file.
        found: Vec<u8>,
    },
    /// Another version than those that are read, or the other byte order.
    #[error(
        "GGUF version {found} at offset 4 is not supported, only {OLDEST_VERSION} and {VERSION} are{}",
        version_hint(*found)
    )]
    Version {
        /// The version stated.
        found: u32,
    },
    /// The file ends inside something.
    #[error("{what} at offset {offset}: needs {needed} bytes, {remaining} remain in the file")]
    Truncated {
        /// What was being read.
        what: String,
        /// Where it starts.
        offset: u64,
        /// Its length in bytes.
        needed: u64,
        /// Bytes from `offset` to the end of the file.
        remaining: u64,
    },
    /// A count that cannot be true of a file of this size.
    #[error(
        "{what} at offset {offset}: {count} entries of at least {min_bytes} bytes each, \
         {remaining} bytes remain in the file"
    )]
    Count {
        /// What is counted.
        what: String,
        /// Where the count stands.
        offset: u64,
        /// The count stated.
        count: u64,
        /// Least number of bytes that one entry takes.
        min_bytes: u64,
        /// Bytes after the count.
        remaining: u64,
    },
    /// A key or name that is empty or too long.
    #[error("{what} at offset {offset}: {len} bytes long, allowed are 1 to {max}")]
    NameLength {
        /// Which name.
        what: String,
        /// Where its length stands.
        offset: u64,
        /// The length stated.
        len: u64,
        /// The longest allowed.
        max: u64,
    },
    /// A string that isn't UTF-8.
    #[error("{what} at offset {offset}: not valid UTF-8 from byte {valid} on")]
    Utf8 {
        /// Which string.
        what: String,
        /// Where its bytes start.
        offset: u64,
        /// Number of valid bytes before the fault.
        valid: u64,
    },
    /// A value type number that GGUF doesn't define.
    #[error("key `{key}` at offset {offset}: unknown value type {found}")]
    ValueType {
        /// The key.
        key: String,
        /// Where the type number stands.
        offset: u64,
        /// The type number.
        found: u32,
    },
    /// An array of arrays.
    #[error("key `{key}` at offset {offset}: arrays of arrays are not supported")]
    NestedArray {
        /// The key.
        key: String,
        /// Where the inner type stands.
        offset: u64,
    },
    /// A bool that is neither 0 nor 1.
    #[error("{what} at offset {offset}: {found} is not a bool (0 or 1)")]
    Bool {
        /// Which value.
        what: String,
        /// Where it stands.
        offset: u64,
        /// The byte found.
        found: u8,
    },
    /// The same key twice.
    #[error("key `{key}` at offset {offset}: appears twice")]
    DuplicateKey {
        /// The key.
        key: String,
        /// Where the second one stands (0 outside a file).
        offset: u64,
    },
    /// A key that this use of the file cannot do without.
    #[error("key `{key}` is missing")]
    MissingKey {
        /// The key.
        key: String,
    },
    /// A key whose value has another type than the one asked for.
    #[error("key `{key}` at offset {offset}: expected {expected}, found {found}")]
    WrongType {
        /// The key.
        key: String,
        /// Where the value stands (0 outside a file).
        offset: u64,
        /// The type asked for.
        expected: &'static str,
        /// Type and, where it is short, value found.
        found: String,
    },
    /// `general.alignment` isn't a power of two of at least 8.
    #[error(
        "key `general.alignment` at offset {offset}: {found} is not a power of two of at least 8"
    )]
    Alignment {
        /// Where the value stands.
        offset: u64,
        /// The value.
        found: u64,
    },
    /// The same tensor name twice.
    #[error("tensor `{tensor}` at offset {offset}: appears twice")]
    DuplicateTensor {
        /// The tensor.
        tensor: String,
        /// Where the second one's description starts.
        offset: u64,
    },
    /// No dimensions, or more than four.
    #[error(
        "tensor `{tensor}` at offset {offset}: {found} dimensions, allowed are 1 to {MAX_DIMS}"
    )]
    DimCount {
        /// The tensor.
        tensor: String,
        /// Where the number stands.
        offset: u64,
        /// The number.
        found: u32,
    },
    /// A dimension of 0, or a shape with more elements or bytes than 2^63 - 1.
    #[error("tensor `{tensor}` at offset {offset}: impossible shape {ne:?}")]
    Shape {
        /// The tensor.
        tensor: String,
        /// Where the shape stands.
        offset: u64,
        /// The shape, fastest dimension first.
        ne: Vec<u64>,
    },
    /// Rows that are no whole number of blocks.
    #[error(
        "tensor `{tensor}` at offset {offset}: rows of {ne0} elements are not a multiple of the \
         {block_len} in a block of {ty}"
    )]
    RowLength {
        /// The tensor.
        tensor: String,
        /// Where the shape stands.
        offset: u64,
        /// Elements in a row.
        ne0: u64,
        /// The type's name.
        ty: &'static str,
        /// Elements in one of its blocks.
        block_len: u64,
    },
    /// A tensor type that isn't supported.
    #[error("tensor `{tensor}` at offset {offset}: type {id} ({name}) is not supported")]
    TensorType {
        /// The tensor.
        tensor: String,
        /// Where the type number stands.
        offset: u64,
        /// The type number.
        id: u32,
        /// Its ggml name, or `unknown to ggml`.
        name: &'static str,
    },
    /// A tensor whose data doesn't start on the file's alignment.
    #[error(
        "tensor `{tensor}` at offset {offset}: data offset {found} is not a multiple of the \
         alignment {alignment}"
    )]
    Misaligned {
        /// The tensor.
        tensor: String,
        /// Where its description starts.
        offset: u64,
        /// Data offset, from the start of the data section.
        found: u64,
        /// The file's alignment.
        alignment: u64,
    },
    /// A tensor whose data reaches beyond the end of the file.
    #[error(
        "tensor `{tensor}` at offset {offset}: {nbytes} bytes at data offset {found} (data section \
         at {data_offset}) reach beyond the end of the file at {file_len}"
    )]
    OutOfFile {
        /// The tensor.
        tensor: String,
        /// Where its description starts.
        offset: u64,
        /// Data offset, from the start of the data section.
        found: u64,
        /// Bytes of data.
        nbytes: u64,
        /// File offset of the data section.
        data_offset: u64,
        /// Length of the file.
        file_len: u64,
    },
    /// Two tensors that share bytes.
    #[error(
        "tensor `{tensor}`: data at data offset {found} overlaps tensor `{other}`, which ends at \
         {other_end}"
    )]
    Overlap {
        /// The tensor that starts later.
        tensor: String,
        /// Its data offset.
        found: u64,
        /// The tensor that starts earlier.
        other: String,
        /// End of its data, from the start of the data section.
        other_end: u64,
    },
    /// A fault of one of a model's several files.
    #[error("{path}: {source}")]
    Shard {
        /// That file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<GgufError>,
    },
    /// A shard that is not where the others are.
    #[error(
        "shard {number} of {count} is missing: there is no {path}; put all shards of the model into \
         one folder"
    )]
    MissingShard {
        /// Where it should be.
        path: PathBuf,
        /// Its number, from 1.
        number: u32,
        /// Number of shards.
        count: u32,
    },
    /// A shard whose name doesn't lead to the others.
    #[error(
        "{path}: the file is shard {number} of {count} of a model, but its name does not end in \
         -{number:05}-of-{count:05}.gguf, so the others can't be found; give it its name back"
    )]
    NotAShardName {
        /// The path given.
        path: PathBuf,
        /// Its number by its metadata, from 1.
        number: u32,
        /// Number of shards.
        count: u32,
    },
    /// Shards that don't belong together, or a number that can't be true.
    #[error("key `{key}` is {found}, {reason}")]
    Split {
        /// The key.
        key: String,
        /// Its value.
        found: u64,
        /// What it disagrees with.
        reason: String,
    },
    /// The same tensor in two shards.
    #[error("tensor `{tensor}` is in shard {first} and in shard {second}")]
    TensorInTwoShards {
        /// The tensor.
        tensor: String,
        /// Number of the first one, from 1.
        first: u32,
        /// Number of the second one.
        second: u32,
    },
    /// The output of a [writer](super::write::Writer) could not be written.
    #[error("cannot write GGUF: {source}")]
    Write {
        /// The system's answer.
        #[from]
        source: io::Error,
    },
    /// A [writer](super::write::Writer) was given more or fewer bytes than a tensor has.
    #[error("tensor `{tensor}`: {given} bytes written, it has {nbytes}")]
    WrongDataLength {
        /// The tensor.
        tensor: String,
        /// Bytes given.
        given: u64,
        /// Bytes it has.
        nbytes: u64,
    },
}

/// A file of the other byte order shows its version in the upper bytes.
fn version_hint(found: u32) -> &'static str {
    if found == 1 {
        " (a file of the first days, with counts of 32 bits: convert the model again)"
    } else if (1..=0xff).contains(&found.swap_bytes()) {
        " (this is a big-endian file: take the little-endian one)"
    } else {
        ""
    }
}
