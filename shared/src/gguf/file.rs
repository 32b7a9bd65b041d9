//! An open model: its header, and the file or files that it describes.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::split::{self, Split};
use super::{GgufError, Header, Shard, TensorInfo};

/// A model in GGUF, open, mapped and with its header parsed: one file, or all shards of a split one.
pub struct GgufFile {
    path: PathBuf,
    /// In the order of their numbers; at least one.
    shards: Vec<Shard>,
    /// Of all shards together.
    header: Header,
}

impl GgufFile {
    /// Opens and maps `path` and parses its header. If it is a shard, whichever, all shards of the
    /// model are opened; they lie in one folder.
    ///
    /// # Errors
    /// [`GgufError::Io`] if it cannot be opened or mapped, [`GgufError::NotAFile`] for a directory
    /// and the like, [`GgufError::Empty`], what [`parse`](super::parse) finds, and shards that are
    /// missing or don't belong together.
    pub fn open(path: &Path) -> Result<GgufFile, GgufError> {
        let (shard, header) = Shard::open(path)?;
        let (shards, header) = match Split::of(&header.metadata)? {
            None => (vec![shard], header),
            Some(split) => open_all(path, &split, (shard, header))?,
        };
        Ok(GgufFile {
            path: path.to_path_buf(),
            shards,
            header,
        })
    }

    /// The header: metadata, and the tensors of all shards.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files of the model, in order: mostly one.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// The whole first file, mapped. A file truncated behind the program's back raises SIGBUS here.
    pub fn bytes(&self) -> &[u8] {
        self.first().bytes()
    }

    fn first(&self) -> &Shard {
        // In bounds: there is at least one.
        &self.shards[0]
    }

    /// Fills `buf` with the bytes of `tensor` from `offset` (in its data) on.
    ///
    /// # Errors
    /// [`GgufError::ReadTensor`] if that reaches beyond the tensor, the file was truncated or cannot
    /// be read, or the tensor is not one of this model's.
    pub fn read_exact_at(
        &self,
        tensor: &TensorInfo,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<(), GgufError> {
        let Some(shard) = self.shards.get(tensor.shard as usize) else {
            let message = format!("there is no shard {}", tensor.shard);
            return Err(GgufError::ReadTensor {
                path: self.path.clone(),
                tensor: tensor.name.clone(),
                offset,
                len: buf.len() as u64,
                source: io::Error::new(io::ErrorKind::InvalidInput, message),
            });
        };
        shard.read_exact_at(tensor, offset, buf)
    }
}

/// All shards of the model of which `given`, opened by `path`, says `split`.
fn open_all(
    path: &Path,
    split: &Split,
    given: (Shard, Header),
) -> Result<(Vec<Shard>, Header), GgufError> {
    let paths = split::paths(path, split)?;
    let mut given = Some(given);
    let (mut shards, mut headers) = (Vec::new(), Vec::new());
    for (no, path) in (0..).zip(paths) {
        let (shard, header) = match given.take_if(|_| no == split.no) {
            Some(given) => given,
            None => open_sibling(&path, no, split)?,
        };
        shards.push(shard);
        headers.push(header);
    }
    Ok((shards, split::merge(headers)?))
}

/// Opens the shard `no` and checks that it belongs to the one that says `split`.
fn open_sibling(path: &Path, no: u32, split: &Split) -> Result<(Shard, Header), GgufError> {
    let inside = |source| GgufError::Shard {
        path: path.to_path_buf(),
        source: Box::new(source),
    };
    let (shard, header) = Shard::open(path).map_err(|error| match error {
        GgufError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            GgufError::MissingShard {
                path: path.to_path_buf(),
                number: no + 1,
                count: split.count,
            }
        }
        // These name the path themselves.
        GgufError::Io { .. } | GgufError::NotAFile { .. } | GgufError::Empty { .. } => error,
        other => inside(other),
    })?;
    let found = Split::of(&header.metadata).map_err(inside)?;
    split.check_other(no, found.as_ref()).map_err(inside)?;
    Ok((shard, header))
}

impl fmt::Debug for GgufFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GgufFile")
            .field("path", &self.path)
            .field("shards", &self.shards.len())
            .field("tensors", &self.header.tensors.len())
            .finish_non_exhaustive()
    }
}
