//! The model file for as long as the service runs. Tokenizer and template were read from it once;
//! a worker that is started later has to get the very same file, whether it was deleted or replaced
//! under its name meanwhile. So it is held open, and named by that when its name no longer fits.
//! Against writing into the file itself nothing helps but to notice it: by its size here, by its
//! content in the worker, which is told the hash of what the service began with.

use std::fs::{File, Metadata};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;

/// A model file that stays reachable.
#[derive(Debug)]
pub struct ModelFile {
    path: String,
    held: Option<File>,
    /// Size of the held file at the beginning.
    bytes: Option<u64>,
}

fn bytes_of(file: &File) -> Option<u64> {
    file.metadata().ok().map(|metadata| metadata.size())
}

impl ModelFile {
    /// Holds the file `path`. One that can't be opened is left for the worker to complain about.
    #[must_use]
    pub fn hold(path: String) -> Self {
        let held = File::open(&path).ok();
        let bytes = held.as_ref().and_then(bytes_of);
        Self { path, held, bytes }
    }

    /// Whether it can still be loaded, as far as its size says.
    ///
    /// # Errors
    /// For people: the file was written to, so a worker would serve another model under this one's
    /// tokenizer and streams.
    pub fn check(&self) -> Result<(), String> {
        let now = self.held.as_ref().and_then(bytes_of);
        if now == self.bytes {
            return Ok(());
        }
        let size = |bytes: Option<u64>| bytes.map_or("no".into(), |bytes| bytes.to_string());
        Err(format!(
            "{} was written to since the service began: it had {} bytes and has {} now; restart the \
             service to load it as it is now",
            self.path,
            size(self.bytes),
            size(now)
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
    fn a_file_of_another_size_is_refused_and_one_that_was_replaced_or_touched_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.gguf");
        std::fs::write(&path, "one").unwrap();
        let model = ModelFile::hold(path.display().to_string());
        std::fs::rename(&path, dir.path().join("aside")).unwrap();
        std::fs::write(&path, "two").unwrap();
        assert_eq!(model.check(), Ok(()));
        let aside = File::options().write(true).open(dir.path().join("aside"));
        aside.unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(model.check(), Ok(()), "the worker looks at the content");
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
