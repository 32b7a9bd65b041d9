//! The model file for as long as the service runs. Tokenizer and template were read from it once;
//! a worker that is started later has to get the very same file, whether it was deleted or replaced
//! under its name meanwhile. So it is held open, and named by that when its name no longer fits.
//! Against writing into the file itself nothing helps but to notice it.

use std::fs::{File, Metadata};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;

/// A model file that stays reachable.
#[derive(Debug)]
pub struct ModelFile {
    path: String,
    held: Option<File>,
    /// Of the held file at the beginning.
    content: Option<Content>,
}

/// What changes when a file is written to.
#[derive(Debug, PartialEq, Eq)]
struct Content {
    bytes: u64,
    modified: (i64, i64),
}

impl Content {
    fn of(file: &File) -> Option<Self> {
        let metadata = file.metadata().ok()?;
        Some(Self {
            bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }
}

impl ModelFile {
    /// Holds the file `path`. One that can't be opened is left for the worker to complain about.
    #[must_use]
    pub fn hold(path: String) -> Self {
        let held = File::open(&path).ok();
        let content = held.as_ref().and_then(Content::of);
        Self {
            path,
            held,
            content,
        }
    }

    /// Whether it can still be loaded.
    ///
    /// # Errors
    /// For people: the file was written to, so a worker would serve another model under this one's
    /// tokenizer and streams.
    pub fn check(&self) -> Result<(), String> {
        if self.held.as_ref().and_then(Content::of) == self.content {
            return Ok(());
        }
        Err(format!(
            "{} was written to since the service began; restart the service to load it as it is now",
            self.path
        ))
    }

    /// Where a worker finds it: under its name, or among this process's open files.
    #[must_use]
    pub fn location(&self) -> String {
        match &self.held {
            Some(held) if !self.is_under_its_name(held) => {
                format!("/proc/{}/fd/{}", std::process::id(), held.as_raw_fd())
            }
            _ => self.path.clone(),
        }
    }

    fn is_under_its_name(&self, held: &File) -> bool {
        let identity = |file: Metadata| (file.dev(), file.ino());
        match (std::fs::metadata(&self.path), held.metadata()) {
            (Ok(named), Ok(held)) => identity(named) == identity(held),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deleted_and_replaced_files_stay_reachable() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.gguf");
        std::fs::write(&path, "one").unwrap();
        let model = ModelFile::hold(path.display().to_string());
        assert_eq!(model.location(), path.display().to_string());
        std::fs::remove_file(&path).unwrap();
        assert_eq!(std::fs::read_to_string(model.location()).unwrap(), "one");
        std::fs::write(&path, "two").unwrap();
        assert_eq!(std::fs::read_to_string(model.location()).unwrap(), "one");
    }

    #[test]
    fn a_file_that_was_written_to_is_refused_and_one_that_was_replaced_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.gguf");
        std::fs::write(&path, "one").unwrap();
        let model = ModelFile::hold(path.display().to_string());
        std::fs::rename(&path, dir.path().join("aside")).unwrap();
        std::fs::write(&path, "two").unwrap();
        assert_eq!(model.check(), Ok(()));
        std::fs::write(dir.path().join("aside"), "longer").unwrap();
        let error = model.check().unwrap_err();
        assert!(error.contains("model.gguf was written to"), "{error}");
    }

    #[test]
    fn a_missing_file_keeps_its_name_for_the_message() {
        let model = ModelFile::hold("/no/model".into());
        assert_eq!(model.location(), "/no/model");
        assert_eq!(model.check(), Ok(()), "the worker complains");
    }
}
