//! What goes wrong with models by name.

use std::io;
use std::path::{Path, PathBuf};

use crate::progress::human_bytes;

/// Why a model could not be pulled, found or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name, a flag or a variable can't be right.
    #[error("{0}")]
    Usage(String),
    /// There is no such model, or none that this person may have.
    #[error("{0}")]
    NotFound(String),
    /// Another command is at work on it.
    #[error("{0}")]
    Busy(String),
    /// The hub said something that can't be used.
    #[error("{0}")]
    Hub(String),
    /// The hub was not reached, or gave up in the middle, as often as it was tried.
    #[error("{message}; what was fetched so far is kept, the same command goes on from there")]
    Unreachable {
        /// The last failure.
        message: String,
    },
    /// The bytes are not those of the hub's record.
    #[error("{0}")]
    Corrupt(String),
    /// The file system has too little room.
    #[error(
        "{}: {} more bytes are needed ({}) and {} are free ({}); make room, or give another place \
         with --models-dir DIR",
        folder.display(), needed, human_bytes(*needed), free, human_bytes(*free)
    )]
    NoSpace {
        /// Where the files would go.
        folder: PathBuf,
        /// Bytes that are still to be written.
        needed: u64,
        /// Bytes that are free for this person.
        free: u64,
    },
    /// A file or folder can't be read or written.
    #[error("{}: {source}{}", path.display(), advice(source))]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }

    /// Its name in the line `error: CODE: message`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Usage(_) => "USAGE",
            Self::NotFound(_) => "MODEL_NOT_FOUND",
            Self::Busy(_) => "BUSY",
            Self::Hub(_) => "HUB_ERROR",
            Self::Unreachable { .. } => "HUB_UNREACHABLE",
            Self::Corrupt(_) => "CORRUPT_DOWNLOAD",
            Self::NoSpace { .. } => "NO_SPACE",
            Self::File { source, .. } if is_full(source) => "NO_SPACE",
            Self::File { .. } => "FILE_ERROR",
        }
    }
}

/// Whether a write failed because there is no room.
fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

fn advice(error: &io::Error) -> &'static str {
    if is_full(error) {
        "; what was fetched so far is kept; make room, or give another place with --models-dir DIR"
    } else {
        ""
    }
}
