//! The private directory of one supervisor: its sockets live there, nobody else can enter it.

use std::fs::DirBuilder;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

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

/// A directory of mode 0700 that is removed with everything in it when dropped.
#[derive(Debug)]
pub struct RuntimeDir {
    path: PathBuf,
}

impl RuntimeDir {
    /// Makes one under `base`, or under `$XDG_RUNTIME_DIR`, or under the temporary directory.
    ///
    /// # Errors
    /// [`RuntimeDirError`], with what to do.
    pub fn create(base: Option<&Path>) -> Result<Self, RuntimeDirError> {
        let base = base.map_or_else(default_base, Path::to_path_buf);
        // The random part keeps instances apart, also those of one process (tests).
        let random = uuid::Uuid::new_v4().simple().to_string();
        let path = base.join(format!(
            "worker-orcd-{}-{}",
            std::process::id(),
            &random[..8]
        ));
        let length = socket_path(&path, u32::MAX.into())
            .as_os_str()
            .as_bytes()
            .len();
        if length > SOCKET_PATH_MAX {
            return Err(RuntimeDirError::TooLong { path, length });
        }
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|source| RuntimeDirError::Create {
                path: path.clone(),
                source,
            })?;
        Ok(Self { path })
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
            tracing::warn!(path = %self.path.display(), %error, "runtime directory stays behind");
        }
    }
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
