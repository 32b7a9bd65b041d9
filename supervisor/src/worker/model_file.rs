//! The model file for as long as the service runs. Tokenizer and template were read from it once;
//! a worker that is started later has to get the very same file, whether it was deleted or replaced
//! under its name meanwhile. So it is held open, and named by that when its name no longer fits.
//! Against writing into the file itself nothing helps but to notice it: by its size here, by its
//! content in the worker, which gets the hash of what the service began with.
//!
//! The shards of a split model are found by their names, so a worker needs all of them in their
//! places: one that was deleted or replaced is noticed as one that was written to is.

use std::fs::{File, Metadata};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use orcd_shared::gguf::shards_by_name;

/// A model file that stays reachable.
#[derive(Debug)]
pub struct ModelFile {
    path: String,
    held: Option<File>,
    /// Size of the held file at the beginning.
    bytes: Option<u64>,
    /// The other files of a model in several; not theirs in turn.
    siblings: Vec<ModelFile>,
}

fn bytes_of(file: &File) -> Option<u64> {
    file.metadata().ok().map(|metadata| metadata.size())
}

impl ModelFile {
    /// Holds the file `path`. One that can't be opened is left for the worker to complain about.
    #[must_use]
    pub fn hold(path: String) -> Self {
        let shards = shards_by_name(Path::new(&path));
        let siblings = shards
            .into_iter()
            .filter(|shard| *shard != Path::new(&path));
        Self {
            siblings: siblings
                .map(|shard| Self::hold_one(shard.display().to_string()))
                // A file that is called like a shard may be a whole model.
                .filter(|shard| shard.held.is_some())
                .collect(),
            ..Self::hold_one(path)
        }
    }

    fn hold_one(path: String) -> Self {
        let held = File::open(&path).ok();
        let bytes = held.as_ref().and_then(bytes_of);
        Self {
            path,
            held,
            bytes,
            siblings: Vec::new(),
        }
    }

    /// Whether it can still be loaded, as far as its size says.
    ///
    /// # Errors
    /// For people: the file was written to, so a worker would serve another model under this one's
    /// tokenizer and streams.
    pub fn check(&self) -> Result<(), String> {
        self.check_size()?;
        if self.siblings.is_empty() {
            return Ok(());
        }
        for shard in self.siblings.iter().chain([self]) {
            shard.check_size()?;
            let held = shard.held.as_ref();
            if held.is_some_and(|held| !shard.is_under_its_name(held)) {
                return Err(format!(
                    "{} was deleted or replaced since the service began; put the shard back, or \
                     restart the service",
                    shard.path
                ));
            }
        }
        Ok(())
    }

    fn check_size(&self) -> Result<(), String> {
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
    fn every_shard_of_a_model_must_stay_as_and_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let shard = |no: u32| dir.path().join(format!("m-{no:05}-of-00003.gguf"));
        let write = || (1..=3).for_each(|no| std::fs::write(shard(no), "one").unwrap());
        for damaged in 1..=3 {
            write();
            let model = ModelFile::hold(shard(2).display().to_string());
            assert_eq!(model.check(), Ok(()));
            assert_eq!(model.location(), shard(2).display().to_string());
            std::fs::rename(shard(damaged), dir.path().join("aside")).unwrap();
            for _ in 0..2 {
                let error = model.check().unwrap_err();
                let name = format!("m-{damaged:05}-of-00003.gguf was deleted or replaced");
                assert!(error.contains(&name), "{error}");
                std::fs::write(shard(damaged), "one").unwrap();
            }
            std::fs::rename(dir.path().join("aside"), shard(damaged)).unwrap();
            assert_eq!(model.check(), Ok(()));
            std::fs::write(shard(damaged), "longer").unwrap();
            let error = model.check().unwrap_err();
            let name = format!("m-{damaged:05}-of-00003.gguf was written to");
            assert!(error.contains(&name), "{error}");
        }
    }

    #[test]
    fn a_whole_model_called_like_a_shard_is_one_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m-00001-of-00002.gguf");
        std::fs::write(&path, "one").unwrap();
        let model = ModelFile::hold(path.display().to_string());
        std::fs::remove_file(&path).unwrap();
        assert_eq!(model.check(), Ok(()));
        assert_eq!(std::fs::read_to_string(model.location()).unwrap(), "one");
    }

    #[test]
    fn a_missing_file_keeps_its_name_for_the_message() {
        let model = ModelFile::hold("/no/model".into());
        assert_eq!(model.location(), "/no/model");
        assert_eq!(model.check(), Ok(()), "the worker complains");
    }
}
