//! One of a model's files, open: descriptor and mapping.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::{GgufError, Header, TensorInfo, map, parse};

/// A file of a model: the only one, or one of several.
pub struct Shard {
    path: PathBuf,
    file: File,
    map: Mmap,
    /// First byte of its data section.
    data_offset: u64,
}

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shard")
            .field("path", &self.path)
            .field("len", &self.map.len())
            .finish_non_exhaustive()
    }
}

impl Shard {
    /// Opens and maps `path` and parses its header.
    pub(super) fn open(path: &Path) -> Result<(Shard, Header), GgufError> {
        let failed = |action| {
            move |source| GgufError::Io {
                path: path.to_path_buf(),
                action,
                source,
            }
        };
        // Before opening: opening a FIFO would wait for a writer.
        let kind = std::fs::metadata(path).map_err(failed("open"))?;
        if !kind.is_file() {
            return Err(GgufError::NotAFile {
                path: path.to_path_buf(),
            });
        }
        let file = File::open(path).map_err(failed("open"))?;
        if file.metadata().map_err(failed("examine"))?.len() == 0 {
            return Err(GgufError::Empty {
                path: path.to_path_buf(),
            });
        }
        let map = map::map(&file).map_err(failed("map (is ulimit -v too low for it?)"))?;
        let header = parse(&map)?;
        let shard = Shard {
            path: path.to_path_buf(),
            file,
            map,
            data_offset: header.data_offset,
        };
        Ok((shard, header))
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The descriptor, for `pread`.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The whole file, mapped. A file truncated behind the program's back raises SIGBUS here.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Where in this file the data of `tensor`, one of this file's, lies.
    pub fn file_range(&self, tensor: &TensorInfo) -> Range<u64> {
        // `parse` checked this sum against the length of the file.
        let start = self.data_offset.saturating_add(tensor.offset);
        start..start.saturating_add(tensor.nbytes)
    }

    /// Fills `buf` with the bytes of `tensor` from `offset` (in its data) on.
    pub(super) fn read_exact_at(
        &self,
        tensor: &TensorInfo,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<(), GgufError> {
        let len = buf.len() as u64;
        let file_offset = self.file_range(tensor).start.saturating_add(offset);
        let inside = offset
            .checked_add(len)
            .is_some_and(|end| end <= tensor.nbytes);
        let read = if inside {
            self.file.read_exact_at(buf, file_offset)
        } else {
            let message = format!("the tensor has {} bytes", tensor.nbytes);
            Err(io::Error::new(io::ErrorKind::InvalidInput, message))
        };
        read.map_err(|source| GgufError::ReadTensor {
            path: self.path.clone(),
            tensor: tensor.name.clone(),
            offset: file_offset,
            len,
            source,
        })
    }
}
