//! Models in several files, as `gguf-split` writes them: `NAME-00001-of-00003.gguf` and its siblings.
//! Each file is a sound GGUF file with some of the tensors; three keys say which shard of how many it
//! is. The metadata that counts is the first shard's.
//!
//! The names of the other shards come from the given name alone: nothing that a file says leads to
//! another path.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::{GgufError, Header, Metadata};

/// Number of the shard, from 0.
pub const SPLIT_NO_KEY: &str = "split.no";
/// Number of shards.
pub const SPLIT_COUNT_KEY: &str = "split.count";
/// Number of tensors of all shards together.
pub const SPLIT_TENSORS_KEY: &str = "split.tensors.count";
/// Most shards of a model. Each is an open file; the largest models published have some dozens.
pub const MAX_SHARDS: u32 = 512;

/// What a file says of its place among the shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Split {
    /// From 0, below `count`.
    pub(super) no: u32,
    /// 2 to [`MAX_SHARDS`].
    pub(super) count: u32,
    /// Tensors of all shards, where the file says so.
    tensors: Option<u64>,
}

impl Split {
    /// `None` for a model in one file.
    pub(super) fn of(metadata: &Metadata) -> Result<Option<Split>, GgufError> {
        let no = metadata.opt_u32(SPLIT_NO_KEY)?.unwrap_or(0);
        let count = metadata.opt_u32(SPLIT_COUNT_KEY)?.unwrap_or(0).max(1);
        if no >= count {
            let reason = format!("there are {count} shards, counted from 0");
            return Err(refused(SPLIT_NO_KEY, no, reason));
        }
        if count > MAX_SHARDS {
            let reason = format!("at most {MAX_SHARDS} are supported");
            return Err(refused(SPLIT_COUNT_KEY, count, reason));
        }
        let tensors = metadata.opt_u64(SPLIT_TENSORS_KEY)?;
        Ok((count > 1).then_some(Split { no, count, tensors }))
    }

    /// Checks that the file called `name` says of itself what its name says.
    fn check_name(&self, name: &ShardName) -> Result<(), GgufError> {
        if self.count != name.count {
            let reason = format!("the file's name says {}", name.count);
            return Err(refused(SPLIT_COUNT_KEY, self.count, reason));
        }
        if self.no + 1 != name.number {
            let reason = format!("the file's name says {}", name.number - 1);
            return Err(refused(SPLIT_NO_KEY, self.no, reason));
        }
        Ok(())
    }

    /// Checks what the shard `no` of the same model, by its name, says of itself.
    pub(super) fn check_other(&self, no: u32, found: Option<&Split>) -> Result<(), GgufError> {
        let Some(found) = found else {
            let reason = format!("another shard says {}", self.count);
            return Err(refused(SPLIT_COUNT_KEY, 1u32, reason));
        };
        if found.count != self.count {
            let reason = format!("another shard says {}", self.count);
            return Err(refused(SPLIT_COUNT_KEY, found.count, reason));
        }
        if found.no != no {
            let reason = format!("the file's name says {no}");
            return Err(refused(SPLIT_NO_KEY, found.no, reason));
        }
        match (self.tensors, found.tensors) {
            (Some(other), Some(found)) if found != other => {
                let reason = format!("another shard says {other}");
                Err(refused(SPLIT_TENSORS_KEY, found, reason))
            }
            _ => Ok(()),
        }
    }
}

fn refused(key: &str, found: impl Into<u64>, reason: String) -> GgufError {
    GgufError::Split {
        key: key.to_owned(),
        found: found.into(),
        reason,
    }
}

/// The name of a shard's file: `STEM-00002-of-00003.gguf`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ShardName {
    stem: OsString,
    /// From 1, at most `count`.
    number: u32,
    count: u32,
}

impl ShardName {
    /// `None` if `path` is not called like a shard.
    pub(super) fn of(path: &Path) -> Option<ShardName> {
        let name = path.file_name()?.as_bytes().strip_suffix(b".gguf")?;
        let (name, count) = take_number(name)?;
        let (name, number) = take_number(name.strip_suffix(b"-of-")?)?;
        let stem = name.strip_suffix(b"-")?;
        ((1..=count).contains(&number)).then(|| ShardName {
            stem: OsStr::from_bytes(stem).to_owned(),
            number,
            count,
        })
    }

    /// The shard `no`, counted from 0, of the model of which `given` is another one.
    pub(super) fn sibling(&self, given: &Path, no: u32) -> PathBuf {
        given.with_file_name(file_name(&self.stem, no, self.count))
    }
}

/// The paths of all shards of the model of which `path` is one by its name; `path` alone if it is not
/// called like a shard, or like one of too many. Looks into no file and at no folder.
pub fn shards_by_name(path: &Path) -> Vec<PathBuf> {
    match ShardName::of(path).filter(|name| name.count <= MAX_SHARDS) {
        Some(name) => (0..name.count).map(|no| name.sibling(path, no)).collect(),
        None => vec![path.to_path_buf()],
    }
}

/// Where the shard `no`, counted from 0, of the `count` shards of a model lies that would be `path`
/// in one file.
pub fn shard_path(path: &Path, no: u32, count: u32) -> PathBuf {
    path.with_file_name(file_name(path.file_stem().unwrap_or_default(), no, count))
}

fn file_name(stem: &OsStr, no: u32, count: u32) -> OsString {
    let mut name = stem.to_owned();
    name.push(format!("-{:05}-of-{count:05}.gguf", no + 1));
    name
}

/// Five digits at the end of `name`, and what stands before them.
fn take_number(name: &[u8]) -> Option<(&[u8], u32)> {
    let (rest, digits) = name.split_at_checked(name.len().checked_sub(5)?)?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some((rest, number))
}

/// The paths of all shards of the model of which the file `given` says `split`.
pub(super) fn paths(given: &Path, split: &Split) -> Result<Vec<PathBuf>, GgufError> {
    let name = ShardName::of(given).ok_or_else(|| GgufError::NotAShardName {
        path: given.to_owned(),
        number: split.no + 1,
        count: split.count,
    })?;
    split.check_name(&name)?;
    Ok((0..split.count).map(|no| name.sibling(given, no)).collect())
}

/// One header of all shards' headers, which come in order: the first one's metadata, and every
/// tensor with the number of its shard.
pub(super) fn merge(headers: Vec<Header>) -> Result<Header, GgufError> {
    let mut headers = headers.into_iter();
    let mut merged = headers.next().unwrap_or_default();
    let expected = merged.metadata.opt_u64(SPLIT_TENSORS_KEY)?;
    for (shard, header) in (1..).zip(headers) {
        let of_this = header.tensors.into_iter().map(|mut tensor| {
            tensor.shard = shard;
            tensor
        });
        merged.tensors.extend(of_this);
    }
    check_unique(&merged)?;
    let found = merged.tensors.len() as u64;
    if let Some(expected) = expected.filter(|&expected| expected != found) {
        let reason = format!("the shards have {found} tensors");
        return Err(refused(SPLIT_TENSORS_KEY, expected, reason));
    }
    // So that sums over all tensors can't overflow: each file may be sparse and of any length.
    let bytes = merged
        .tensors
        .iter()
        .try_fold(0u64, |sum, tensor| sum.checked_add(tensor.nbytes));
    if bytes.is_none_or(|bytes| bytes > i64::MAX as u64) {
        let reason = "their tensors have more than 2^63 bytes together".to_owned();
        return Err(refused(SPLIT_TENSORS_KEY, found, reason));
    }
    Ok(merged)
}

fn check_unique(merged: &Header) -> Result<(), GgufError> {
    let mut seen = HashMap::with_capacity(merged.tensors.len());
    for tensor in &merged.tensors {
        if let Some(first) = seen.insert(tensor.name.as_str(), tensor.shard) {
            return Err(GgufError::TensorInTwoShards {
                tensor: tensor.name.clone(),
                first: first + 1,
                second: tensor.shard + 1,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(path: &str) -> Option<(OsString, u32, u32)> {
        ShardName::of(Path::new(path)).map(|n| (n.stem, n.number, n.count))
    }

    #[test]
    fn shards_are_known_by_their_names() {
        let shard = Some(("a-b".into(), 2, 3));
        assert_eq!(name("/m/a-b-00002-of-00003.gguf"), shard);
        assert_eq!(name("-00001-of-00001.gguf"), Some((OsString::new(), 1, 1)));
        for other in [
            "a.gguf",
            "a-00000-of-00003.gguf",
            "a-00004-of-00003.gguf",
            "a-2-of-3.gguf",
            "a-+0002-of-00003.gguf",
            "a-00002-of-00003.bin",
            "a00002-of-00003.gguf",
            "00002-of-00003.gguf",
            "-of-.gguf",
            ".gguf",
            "/",
            "",
        ] {
            assert_eq!(name(other), None, "{other}");
        }
    }

    #[test]
    fn siblings_lie_beside_the_given_file_whatever_it_is_called() {
        for stem in ["m", "..", ".", "a b", "é", "%2e%2e%2f", "-00001-of-00002"] {
            let given = PathBuf::from(format!("/models/{stem}-00002-of-00003.gguf"));
            let name = ShardName::of(&given).unwrap();
            let sibling = name.sibling(&given, 0);
            assert_eq!(sibling.parent(), given.parent());
            assert_eq!(
                sibling,
                PathBuf::from(format!("/models/{stem}-00001-of-00003.gguf"))
            );
            assert_eq!(name.sibling(&given, 1), given);
        }
    }
}
