//! An open model file: header, mapping and descriptor.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::{GgufError, Header, TensorInfo, map, parse};

/// A GGUF file, open, mapped and with its header parsed.
pub struct GgufFile {
    path: PathBuf,
    file: File,
    map: Mmap,
    header: Header,
}

impl GgufFile {
    /// Opens and maps `path` and parses its header.
    ///
    /// # Errors
    /// [`GgufError::Io`] if it cannot be opened or mapped, [`GgufError::NotAFile`] for a directory
    /// and the like, [`GgufError::Empty`], and what [`parse`] finds.
    pub fn open(path: &Path) -> Result<GgufFile, GgufError> {
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
        let map = map::map(&file).map_err(failed("map"))?;
        let header = parse(&map)?;
        Ok(GgufFile {
            path: path.to_path_buf(),
            file,
            map,
            header,
        })
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
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

    /// The data of `tensor`, mapped: for tools and tests; a loader uses
    /// [`read_exact_at`](Self::read_exact_at).
    ///
    /// # Panics
    /// If `tensor` isn't one of this file's and lies outside of it.
    pub fn tensor_data(&self, tensor: &TensorInfo) -> &[u8] {
        let range = self.header.file_range(tensor);
        // Lossless for the file's own tensors: `parse` found them inside the mapping.
        &self.map[range.start as usize..range.end as usize]
    }

    /// Fills `buf` with the bytes of `tensor` from `offset` (in its data) on.
    ///
    /// # Errors
    /// [`GgufError::ReadTensor`] if that reaches beyond the tensor, or the file was truncated or
    /// cannot be read.
    pub fn read_exact_at(
        &self,
        tensor: &TensorInfo,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<(), GgufError> {
        let len = buf.len() as u64;
        let file_offset = self.header.file_range(tensor).start.saturating_add(offset);
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

impl fmt::Debug for GgufFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GgufFile")
            .field("path", &self.path)
            .field("len", &self.map.len())
            .field("tensors", &self.header.tensors.len())
            .finish_non_exhaustive()
    }
}
