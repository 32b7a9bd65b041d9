//! The private directory of one supervisor: its sockets live there, nobody else can enter it.

use std::fs::{DirBuilder, DirEntry, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::unistd::Uid;

/// Beginning of every runtime directory's name.
const PREFIX: &str = "worker-orcd-";

/// A directory that nobody holds may be one that its maker is about to lock, for so long.
const LOCKED_WITHIN: Duration = Duration::from_secs(5);

/// Bytes of a socket's path that every Linux accepts.
const SOCKET_PATH_MAX: usize = 107;

/// Why there is no runtime directory.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeDirError {
    /// It can't be made.
    #[error("runtime directory {path} can't be created: {source}; give a writable --runtime-dir")]
    Create {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Sockets in it would have too long a name.
    #[error(
        "a socket in {path} would have a name of {length} bytes, the limit is {SOCKET_PATH_MAX}; \
         give a shorter --runtime-dir"
    )]
    TooLong {
        /// Which.
        path: PathBuf,
        /// Length of the longest socket path in it.
        length: usize,
    },
}

/// A directory of mode 0700 that is removed with everything in it when dropped. Its owner holds a
/// lock on it, so that what a killed supervisor left can be told from what is in use.
#[derive(Debug)]
pub struct RuntimeDir {
    path: PathBuf,
    _lock: Flock<File>,
}

impl RuntimeDir {
    /// Makes one under `base`, or under `$XDG_RUNTIME_DIR`, or under the temporary directory, and
    /// removes those there that killed supervisors left behind.
    ///
    /// # Errors
    /// [`RuntimeDirError`], with what to do.
    pub fn create(base: Option<&Path>) -> Result<Self, RuntimeDirError> {
        let base = base.map_or_else(default_base, Path::to_path_buf);
        // The random part keeps instances apart, also those of one process (tests).
        let random = fastrand::u32(..);
        let path = base.join(format!("{PREFIX}{}-{random:08x}", std::process::id()));
        let length = socket_path(&path, u32::MAX.into())
            .as_os_str()
            .as_bytes()
            .len();
        if length > SOCKET_PATH_MAX {
            return Err(RuntimeDirError::TooLong { path, length });
        }
        remove_abandoned(&base);
        let failed = |source| RuntimeDirError::Create {
            path: path.clone(),
            source,
        };
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(failed)?;
        let lock = lock(&path).map_err(failed)?;
        Ok(Self { path, _lock: lock })
    }

    /// Where worker number `generation` connects. A name is never used twice, so that a worker
    /// that was given up can't reach the place of its successor.
    #[must_use]
    pub fn socket(&self, generation: u64) -> PathBuf {
        socket_path(&self.path, generation)
    }
}

impl Drop for RuntimeDir {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "runtime directory can't be removed");
        }
    }
}

fn lock(dir: &Path) -> std::io::Result<Flock<File>> {
    Flock::lock(File::open(dir)?, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, errno)| errno.into())
}

/// Removes directories of this user under `base` that no process holds. What can't be looked at or
/// removed stays: it is in nobody's way.
fn remove_abandoned(base: &Path) {
    let Ok(entries) = std::fs::read_dir(base) else {
        return; // the reason comes from making one
    };
    for entry in entries.flatten().filter(is_old_and_own) {
        let path = entry.path();
        // The lock is held until the directory is gone.
        if let Ok(_lock) = lock(&path)
            && std::fs::remove_dir_all(&path).is_ok()
        {
            tracing::info!(path = %path.display(), "removed what a killed supervisor left behind");
        }
    }
}

fn is_old_and_own(entry: &DirEntry) -> bool {
    let named = entry.file_name().as_bytes().starts_with(PREFIX.as_bytes());
    named
        && entry.metadata().is_ok_and(|found| {
            let age = found.modified().ok().and_then(|at| at.elapsed().ok());
            found.is_dir()
                && found.uid() == Uid::effective().as_raw()
                && age.is_some_and(|age| age > LOCKED_WITHIN)
        })
}

fn socket_path(dir: &Path, generation: u64) -> PathBuf {
    dir.join(format!("w{generation}.sock"))
}

fn default_base() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(dir) if !dir.is_empty() && Path::new(&dir).is_dir() => dir.into(),
        _ => std::env::temp_dir(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn directory_is_private_unique_and_removed() {
        let base = tempfile::tempdir().unwrap();
        let one = RuntimeDir::create(Some(base.path())).unwrap();
        let two = RuntimeDir::create(Some(base.path())).unwrap();
        assert_ne!(one.path, two.path);
        let mode = std::fs::metadata(&one.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        std::fs::write(one.socket(1), "").unwrap();
        drop((one, two));
        assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 0);
    }

    #[test]
    fn only_old_directories_that_nobody_holds_are_removed() {
        let base = tempfile::tempdir().unwrap();
        let make = |name: &str, age: Duration| {
            let path = base.path().join(name);
            std::fs::create_dir(&path).unwrap();
            std::fs::write(path.join("w1.sock"), "").unwrap();
            let at = std::time::SystemTime::now() - age;
            File::open(&path).unwrap().set_modified(at).unwrap();
            path
        };
        let old = Duration::from_secs(60);
        let abandoned = make("worker-orcd-1-a", old);
        let held = make("worker-orcd-1-b", old);
        let _lock = lock(&held).unwrap();
        let fresh = make("worker-orcd-1-c", Duration::ZERO);
        let foreign = make("something-else", old);
        let _own = RuntimeDir::create(Some(base.path())).unwrap();
        assert!(!abandoned.exists());
        assert!(held.exists() && fresh.exists() && foreign.exists());
    }

    #[test]
    fn long_and_missing_bases_say_what_to_do() {
        let long = PathBuf::from(format!("/tmp/{}", "x".repeat(90)));
        let error = RuntimeDir::create(Some(&long)).unwrap_err().to_string();
        assert!(
            error.contains("107") && error.contains("--runtime-dir"),
            "{error}"
        );
        let error = RuntimeDir::create(Some(Path::new("/nowhere/at/all"))).unwrap_err();
        assert!(matches!(error, RuntimeDirError::Create { .. }));
    }
}
