//! One file from the hub: into `SHA256.part`, from where an earlier try broke off, and out of there once its sum
//! is right.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::attempts::Attempts;
use crate::error::Error;
use crate::hub::{Failure, Hub, wait_or_give_up};
use crate::listing::RemoteFile;
use crate::name::RepoName;
use crate::progress::Progress;

/// Bytes read at once.
const BUFFER_BYTES: usize = 256 << 10;

/// The SHA-256 of what came so far.
#[derive(Default)]
pub(crate) struct Sum {
    hash: Sha256,
    bytes: u64,
}

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// Adds all that `from` has; `seen` hears how much that is so far.
    pub(crate) fn read(&mut self, from: &mut impl Read, seen: impl Fn(u64)) -> std::io::Result<()> {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            match from.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => self.add(&buffer[..n]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            seen(self.bytes);
        }
    }

    pub(crate) fn hex(self) -> String {
        self.hash
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

/// A file of which some bytes are there. Its name says which file it will be, and its length how many.
pub(crate) struct Part {
    path: PathBuf,
    file: File,
    sum: Sum,
}

impl Part {
    /// Opens it with what an earlier try has left.
    fn open(path: &Path, whole: &RemoteFile) -> Result<Self, Error> {
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path);
        let file = file.map_err(Error::file(path))?;
        let mut part = Self {
            path: path.to_owned(),
            file,
            sum: Sum::default(),
        };
        if part.file.metadata().map_err(Error::file(path))?.len() > whole.bytes {
            part.restart()?;
        }
        part.sum
            .read(&mut part.file, |_| {})
            .map_err(Error::file(path))?;
        Ok(part)
    }

    fn bytes(&self) -> u64 {
        self.sum.bytes
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file
            .write_all(bytes)
            .map_err(Error::file(&self.path))?;
        self.sum.add(bytes);
        Ok(())
    }

    /// Drops all bytes.
    fn restart(&mut self) -> Result<(), Error> {
        self.sum = Sum::default();
        let emptied = self
            .file
            .set_len(0)
            .and_then(|()| self.file.seek(SeekFrom::Start(0)));
        emptied.map(drop).map_err(Error::file(&self.path))
    }

    fn delete(self) -> Result<(), Error> {
        std::fs::remove_file(&self.path).map_err(Error::file(&self.path))
    }

    /// Moves it to `place` if its sum is right, and deletes it otherwise.
    fn finish(mut self, whole: &RemoteFile, place: &Path) -> Result<(), Error> {
        let sum = std::mem::take(&mut self.sum).hex();
        if sum != whole.sha256 {
            self.delete()?;
            return Err(Error::Corrupt(format!(
                "{}: the SHA-256 is {sum} and {} by the hub's record; what was fetched is deleted, pull again",
                whole.name, whole.sha256
            )));
        }
        self.file.sync_all().map_err(Error::file(&self.path))?;
        std::fs::rename(&self.path, place).map_err(Error::file(place))
    }
}

/// Fetches `file` of `repo` at `commit` into `part` and moves it to `place`.
///
/// # Errors
/// What came so far is kept in `part`, but for bytes that are not the file's.
pub(crate) fn fetch(
    hub: &Hub,
    repo: &RepoName,
    commit: &str,
    file: &RemoteFile,
    (part, place): (&Path, &Path),
    progress: &mut Progress,
) -> Result<(), Error> {
    let mut part = Part::open(part, file)?;
    progress.begin(&file.name, file.bytes, part.bytes());
    let filled = fill(hub, repo, commit, file, &mut part, progress);
    progress.end();
    filled?;
    if part.bytes() > file.bytes {
        part.delete()?;
        return Err(Error::Corrupt(format!(
            "{}: more than the {} bytes of the hub's record came; what was fetched is deleted, pull again",
            file.name, file.bytes
        )));
    }
    part.finish(file, place)
}

/// Fetches what `part` lacks, trying again as often as bytes come.
fn fill(
    hub: &Hub,
    repo: &RepoName,
    commit: &str,
    file: &RemoteFile,
    part: &mut Part,
    progress: &Progress,
) -> Result<(), Error> {
    let mut attempts = Attempts::default();
    while part.bytes() < file.bytes {
        let before = part.bytes();
        let tried = hub
            .file(repo, commit, file, before)
            .and_then(|body| take(body.response, body.offset, part, file, progress));
        if part.bytes() > before {
            attempts.progressed();
        }
        if let Err(failure) = tried {
            wait_or_give_up(failure, &mut attempts, progress)?;
        }
    }
    Ok(())
}

/// Takes what comes, from byte `offset` on, until the file has all its bytes or more.
fn take(
    mut body: impl Read,
    offset: u64,
    part: &mut Part,
    file: &RemoteFile,
    progress: &Progress,
) -> Result<(), Failure> {
    if offset != part.bytes() {
        part.restart().map_err(Failure::Final)?;
    }
    let mut buffer = vec![0; BUFFER_BYTES];
    while part.bytes() <= file.bytes {
        match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => part.write(&buffer[..n]).map_err(Failure::Final)?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                return Err(Failure::passing(format!(
                    "{} broke off: {error}",
                    file.name
                )));
            }
        }
        progress.at(part.bytes());
    }
    if part.bytes() < file.bytes {
        return Err(Failure::passing(format!(
            "{} broke off after {} of {} bytes",
            file.name,
            part.bytes(),
            file.bytes
        )));
    }
    Ok(())
}
