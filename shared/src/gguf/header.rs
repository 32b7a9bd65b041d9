//! Parsing of everything before the data section, and checks of the data's layout.

use std::collections::HashSet;
use std::ops::Range;

use super::cursor::{Cursor, What};
use super::{
    ALIGNMENT_KEY, DEFAULT_ALIGNMENT, GgufError, MAGIC, MAX_KEY_BYTES, Metadata, OLDEST_VERSION,
    TensorInfo, VERSION, Value,
};

/// Least bytes of a key and its value: key length and one byte, value type, a value of one byte.
const MIN_ENTRY_BYTES: u64 = 8 + 1 + 4 + 1;

/// Everything a file says before its data.
#[derive(Clone, Debug, Default)]
pub struct Header {
    /// Keys and values.
    pub metadata: Metadata,
    /// Tensors, in the order of their descriptions.
    pub tensors: Vec<TensorInfo>,
    /// Alignment of the data section and of every tensor, in bytes; a power of two.
    pub alignment: u64,
    /// First byte of the data section, from the start of the file; of the first file, where there
    /// are several.
    pub data_offset: u64,
}

impl Header {
    /// The tensor called `name`, by a linear search.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.iter().find(|t| t.name == name)
    }

    /// Where in the file the data of `tensor`, one of this header's, lies. For a model in several
    /// files that is true of the first file's tensors only: see [`Shard::file_range`](super::Shard).
    pub fn file_range(&self, tensor: &TensorInfo) -> Range<u64> {
        // `parse` checked this sum against the length of the file.
        let start = self.data_offset.saturating_add(tensor.offset);
        start..start.saturating_add(tensor.nbytes)
    }
}

/// Parses the header of the file whose bytes, all of them, are `bytes`.
///
/// What it accepts is consistent: each tensor's data lies inside the file, aligned and apart from
/// the others'; keys and tensor names are unique; shapes fit their types.
///
/// # Errors
/// The first fault found, by [`GgufError`]'s variants.
pub fn parse(bytes: &[u8]) -> Result<Header, GgufError> {
    let mut c = Cursor::new(bytes);
    let (n_tensors, n_keys) = read_preamble(&mut c)?;
    let metadata = read_metadata(&mut c, n_keys)?;
    let alignment = alignment(&metadata)?;
    let (tensors, starts) = read_tensors(&mut c, n_tensors)?;
    // No overflow: an offset in memory is below 2^63, an alignment below 2^32.
    let data_offset = c.offset().next_multiple_of(alignment);
    let header = Header {
        metadata,
        tensors,
        alignment,
        data_offset,
    };
    check_layout(&header, &starts, bytes.len() as u64)?;
    Ok(header)
}

/// Magic, version, and the counts of tensors and keys.
fn read_preamble(c: &mut Cursor<'_>) -> Result<(u64, u64), GgufError> {
    let magic = c.take(c.remaining().min(4), What::Field("magic"))?;
    if magic != MAGIC {
        return Err(GgufError::BadMagic {
            found: magic.to_vec(),
        });
    }
    let version = c.u32(What::Field("version"))?;
    if !(OLDEST_VERSION..=VERSION).contains(&version) {
        return Err(GgufError::Version { found: version });
    }
    let tensors_offset = c.offset();
    let n_tensors = c.u64(What::Field("tensor count"))?;
    let n_keys = c.count(MIN_ENTRY_BYTES, What::Field("key count"))?;
    let what = What::Field("tensor count");
    c.check_count(n_tensors, TensorInfo::MIN_BYTES, tensors_offset, what)?;
    Ok((n_tensors, n_keys))
}

fn read_metadata(c: &mut Cursor<'_>, n_keys: u64) -> Result<Metadata, GgufError> {
    let mut metadata = Metadata::new();
    for i in 0..n_keys {
        let key = c.name(MAX_KEY_BYTES, What::KeyName(i))?;
        let offset = c.offset();
        let value = Value::read(c, key)?;
        metadata.insert_at(key.to_owned(), value, offset)?;
    }
    Ok(metadata)
}

/// The alignment that `metadata` sets, or the default.
pub(super) fn alignment(metadata: &Metadata) -> Result<u64, GgufError> {
    let Some(found) = metadata.opt_u32(ALIGNMENT_KEY)?.map(u64::from) else {
        return Ok(DEFAULT_ALIGNMENT);
    };
    if found < 8 || !found.is_power_of_two() {
        let offset = metadata.offset(ALIGNMENT_KEY).unwrap_or_default();
        return Err(GgufError::Alignment { offset, found });
    }
    Ok(found)
}

/// The descriptions, and the file offset of each.
fn read_tensors(c: &mut Cursor<'_>, n: u64) -> Result<(Vec<TensorInfo>, Vec<u64>), GgufError> {
    let mut tensors = Vec::new();
    let mut starts = Vec::new();
    let mut names = HashSet::new();
    for i in 0..n {
        let offset = c.offset();
        let tensor = TensorInfo::read(c, i)?;
        if !names.insert(tensor.name.clone()) {
            return Err(GgufError::DuplicateTensor {
                tensor: tensor.name,
                offset,
            });
        }
        tensors.push(tensor);
        starts.push(offset);
    }
    Ok((tensors, starts))
}

/// Each tensor aligned, inside the file, and apart from the others. `starts` are the file offsets
/// of the descriptions.
fn check_layout(header: &Header, starts: &[u64], file_len: u64) -> Result<(), GgufError> {
    for (tensor, &offset) in header.tensors.iter().zip(starts) {
        let found = tensor.offset;
        let Header {
            alignment,
            data_offset,
            ..
        } = *header;
        if found % alignment != 0 {
            let tensor = tensor.name.clone();
            return Err(GgufError::Misaligned {
                tensor,
                offset,
                found,
                alignment,
            });
        }
        let end = data_offset
            .checked_add(found)
            .and_then(|s| s.checked_add(tensor.nbytes));
        if end.is_none_or(|end| end > file_len) {
            let (tensor, nbytes) = (tensor.name.clone(), tensor.nbytes);
            let e = GgufError::OutOfFile {
                tensor,
                offset,
                found,
                nbytes,
                data_offset,
                file_len,
            };
            return Err(e);
        }
    }
    check_apart(&header.tensors)
}

fn check_apart(tensors: &[TensorInfo]) -> Result<(), GgufError> {
    let mut by_offset: Vec<&TensorInfo> = tensors.iter().collect();
    by_offset.sort_by_key(|t| t.offset);
    for pair in by_offset.windows(2) {
        // In bounds: windows of two. No overflow: each end is inside the file.
        let (first, second) = (pair[0], pair[1]);
        let other_end = first.offset + first.nbytes;
        if second.offset < other_end {
            return Err(GgufError::Overlap {
                tensor: second.name.clone(),
                found: second.offset,
                other: first.name.clone(),
                other_end,
            });
        }
    }
    Ok(())
}
