//! The folder of pulled models:
//!
//! ```text
//! locks/OWNER--NAME.lock         held by whoever changes the repository's folder; never removed
//! hf.co/OWNER/NAME/
//!     QUANT.json                 a model that is there: its commit, its files with size and SHA-256
//!     COMMIT/FILE                its files, whole and checked; a link where the file is Hugging Face's
//!     SHA256.part                a file that is not whole yet
//! ```
//!
//! A record is written after its files are in place and removed before they are, so what a record names was
//! there when it was written.

use std::fs::{self, File, TryLockError};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::listing::is_commit;
use crate::name::{DEFAULT_QUANT, ModelName, RepoName, ShortName, has_host, is_part};
use crate::progress::human_bytes;
use crate::record::{self, Record};

/// Where models of the hub lie.
const HUB: &str = "hf.co";
const PART: &str = "part";

/// All models that were pulled.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// A model that was pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredModel {
    /// What is known of it.
    pub record: Record,
    /// Its first file.
    pub path: PathBuf,
    /// Whether all of its files are there with the right sizes.
    pub is_whole: bool,
}

/// What a removal freed, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    /// Of files that are gone.
    pub bytes: u64,
    /// Of files that lie in Hugging Face's cache, where they stay.
    pub left_in_hf_cache: u64,
}

/// Held while a repository's folder is changed; others wait for it or are refused.
#[derive(Debug)]
pub struct RepoLock(#[expect(dead_code, reason = "an open file is the lock")] File);

impl Store {
    /// The models in this folder, which need not be there.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// All models, by their names. What can't be read is passed over.
    #[must_use]
    pub fn models(&self) -> Vec<StoredModel> {
        let names = |folder: &Path| entries(folder).into_iter().filter(|name| is_part(name));
        let hub = self.root.join(HUB);
        let mut models: Vec<_> = names(&hub)
            .flat_map(|owner| {
                names(&hub.join(&owner)).map(move |name| RepoName {
                    owner: owner.clone(),
                    name,
                })
            })
            .flat_map(|repo| self.records(&repo))
            .map(|record| self.stored(record))
            .collect();
        models.sort_by_cached_key(|model| model.record.model_name().to_string());
        models
    }

    /// The model that `text` names: `hf.co/OWNER/NAME:QUANT`, or a part of that if it fits one model alone.
    ///
    /// # Errors
    /// There is none, or several, or `text` can't be a name; the message says what to do.
    pub fn find(&self, text: &str) -> Result<StoredModel, Error> {
        if has_host(text) {
            text.parse::<ModelName>()?;
        }
        let models = self.models();
        let fitting = ShortName::parse(text).map_or(Vec::new(), |name| fitting(&models, &name));
        match fitting[..] {
            [model] => Ok(model.clone()),
            [] => Err(Error::NotFound(not_pulled(text))),
            _ => {
                let names: Vec<_> = fitting
                    .iter()
                    .map(|m| m.record.model_name().to_string())
                    .collect();
                Err(Error::NotFound(format!(
                    "`{text}` may be any of {}; give the whole name",
                    names.join(", ")
                )))
            }
        }
    }

    /// Waits until nobody else changes the repository's folder; `waiting` is called if that takes time.
    ///
    /// # Errors
    /// The lock's file can't be made.
    pub(crate) fn lock(&self, repo: &RepoName, waiting: impl FnOnce()) -> Result<RepoLock, Error> {
        let (path, file) = self.lock_file(repo)?;
        match file.try_lock() {
            Ok(()) => return Ok(RepoLock(file)),
            Err(TryLockError::WouldBlock) => waiting(),
            Err(TryLockError::Error(error)) => return Err(Error::file(&path)(error)),
        }
        file.lock().map_err(Error::file(&path))?;
        Ok(RepoLock(file))
    }

    fn lock_file(&self, repo: &RepoName) -> Result<(PathBuf, File), Error> {
        let folder = self.root.join("locks");
        create_folder(&folder)?;
        let path = folder.join(format!("{}--{}.lock", repo.owner, repo.name));
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path);
        Ok((path.clone(), file.map_err(Error::file(&path))?))
    }

    /// Removes a model: its record, and its files if no other model has them.
    ///
    /// # Errors
    /// Another command is at work on the repository, or something can't be removed.
    pub fn remove(&self, model: &StoredModel) -> Result<Removed, Error> {
        let repo = model.record.repo();
        let (path, file) = self.lock_file(&repo)?;
        let _lock = match file.try_lock() {
            Ok(()) => RepoLock(file),
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Busy(format!(
                    "{repo} is being pulled; end that, or wait for it"
                )));
            }
            Err(TryLockError::Error(error)) => return Err(Error::file(&path)(error)),
        };
        let record = self.record_path(&repo, &model.record.quant);
        fs::remove_file(&record).map_err(Error::file(&record))?;
        let removed = self.sweep(&repo)?;
        let folder = self.repo_folder(&repo);
        // What is not empty stays.
        for folder in [Some(folder.as_path()), folder.parent()]
            .into_iter()
            .flatten()
        {
            let _ = fs::remove_dir(folder);
        }
        Ok(removed)
    }

    /// Removes what no record of the repository names; parts of files too, once there is no record left.
    pub(crate) fn sweep(&self, repo: &RepoName) -> Result<Removed, Error> {
        let records = self.records(repo);
        let is_used = |commit: &str, file: &str| {
            let has = |record: &Record| {
                record.commit == commit && record.files.iter().any(|f| f.name == file)
            };
            records.iter().any(has)
        };
        let folder = self.repo_folder(repo);
        let mut removed = Removed::default();
        for name in entries(&folder) {
            let path = folder.join(&name);
            let is_folder = fs::symlink_metadata(&path).is_ok_and(|m| m.is_dir());
            if is_folder && is_commit(&name) {
                for file in entries(&path).iter().filter(|file| !is_used(&name, file)) {
                    removed.add(&path.join(file))?;
                }
                let _ = fs::remove_dir(&path);
            } else if records.is_empty() && path.extension().is_some_and(|end| end == PART) {
                removed.add(&path)?;
            }
        }
        Ok(removed)
    }

    /// All models of a repository.
    pub(crate) fn records(&self, repo: &RepoName) -> Vec<Record> {
        let folder = self.repo_folder(repo);
        let read = |name: &String| {
            let quant = name.strip_suffix(".json")?;
            let record = Record::parse(&read_bounded(&folder.join(name))?)?;
            // One that was copied elsewhere is none of that place.
            (record.repo() == *repo && record.quant == quant).then_some(record)
        };
        entries(&folder).iter().filter_map(read).collect()
    }

    /// Writes a model's record; its files are in place.
    pub(crate) fn write(&self, record: &Record) -> Result<StoredModel, Error> {
        let path = self.record_path(&record.repo(), &record.quant);
        let new = path.with_extension("json.new");
        let written = File::create(&new).and_then(|mut file| {
            file.write_all(&serde_json::to_vec_pretty(record)?)?;
            file.sync_all()
        });
        written.map_err(Error::file(&new))?;
        fs::rename(&new, &path).map_err(Error::file(&path))?;
        sync_folder_of(&path)?;
        Ok(self.stored(record.clone()))
    }

    /// Where a file of a commit lies.
    pub(crate) fn file_path(&self, repo: &RepoName, commit: &str, file: &str) -> PathBuf {
        self.repo_folder(repo).join(commit).join(file)
    }

    /// Where a file lies that is not whole yet.
    pub(crate) fn part_path(&self, repo: &RepoName, sha256: &str) -> PathBuf {
        self.repo_folder(repo).join(sha256).with_extension(PART)
    }

    pub(crate) fn repo_folder(&self, repo: &RepoName) -> PathBuf {
        self.root.join(HUB).join(&repo.owner).join(&repo.name)
    }

    /// A quantization has dots at most inside, so its file's ending is its own.
    fn record_path(&self, repo: &RepoName, quant: &str) -> PathBuf {
        self.repo_folder(repo).join(format!("{quant}.json"))
    }

    fn stored(&self, record: Record) -> StoredModel {
        let repo = record.repo();
        let place = |file: &str| self.file_path(&repo, &record.commit, file);
        let is_there = |bytes: u64, path: PathBuf| {
            path.metadata()
                .is_ok_and(|m| m.is_file() && m.len() == bytes)
        };
        StoredModel {
            is_whole: record
                .files
                .iter()
                .all(|file| is_there(file.bytes, place(&file.name))),
            path: record
                .files
                .first()
                .map_or_else(PathBuf::new, |file| place(&file.name)),
            record,
        }
    }
}

impl StoredModel {
    /// The file to load.
    ///
    /// # Errors
    /// A file of it is gone.
    pub fn usable(&self) -> Result<&Path, Error> {
        let name = self.record.model_name();
        self.is_whole.then_some(self.path.as_path()).ok_or_else(|| {
            Error::NotFound(format!(
                "files of {name} are gone or cut; `worker-orcd pull {name}` brings them back"
            ))
        })
    }
}

impl Removed {
    fn add(&mut self, path: &Path) -> Result<(), Error> {
        let metadata = fs::symlink_metadata(path).map_err(Error::file(path))?;
        let bytes = if metadata.is_symlink() {
            &mut self.left_in_hf_cache
        } else {
            &mut self.bytes
        };
        // Of a link whose file is gone nothing is left.
        *bytes += path.metadata().map_or(0, |file| file.len());
        fs::remove_file(path).map_err(Error::file(path))
    }
}

/// The models that a name may mean. Without a quantization the default one comes first.
fn fitting<'a>(models: &'a [StoredModel], name: &ShortName) -> Vec<&'a StoredModel> {
    let same = |part: &str, other: &str| part.eq_ignore_ascii_case(other);
    let fits = |model: &&StoredModel| {
        let record = &model.record;
        same(&name.name, &record.name)
            && name
                .owner
                .as_ref()
                .is_none_or(|owner| same(owner, &record.owner))
    };
    let of_repo: Vec<_> = models.iter().filter(fits).collect();
    let with = |quant: &str| -> Vec<_> {
        let fits = |model: &&&StoredModel| same(quant, &model.record.quant);
        of_repo.iter().filter(fits).copied().collect()
    };
    match &name.quant {
        Some(quant) => with(quant),
        None => Some(with(DEFAULT_QUANT))
            .filter(|found| !found.is_empty())
            .unwrap_or(of_repo),
    }
}

fn not_pulled(text: &str) -> String {
    let text = text.escape_default().to_string();
    if has_host(&text) {
        format!(
            "{text} is not pulled; `worker-orcd pull {text}` gets it, `worker-orcd list` shows what is there"
        )
    } else {
        format!(
            "`{text}` is neither a file nor a model that was pulled; `worker-orcd pull hf.co/OWNER/NAME` gets one, \
             `worker-orcd list` shows what is there"
        )
    }
}

/// Names in a folder, in order; none if it can't be read. Those that are not UTF-8 are not ours.
fn entries(folder: &Path) -> Vec<String> {
    let found = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> = found
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

fn read_bounded(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)
        .ok()?
        .take(record::MAX_BYTES)
        .read_to_end(&mut bytes)
        .ok()?;
    Some(bytes)
}

pub(crate) fn create_folder(folder: &Path) -> Result<(), Error> {
    fs::create_dir_all(folder).map_err(Error::file(folder))
}

/// Makes a renamed file's new name last.
pub(crate) fn sync_folder_of(path: &Path) -> Result<(), Error> {
    let folder = path.parent().unwrap_or(path);
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(Error::file(folder))
}

impl std::fmt::Display for Removed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} freed", human_bytes(self.bytes))?;
        if self.left_in_hf_cache > 0 {
            let left = human_bytes(self.left_in_hf_cache);
            write!(f, "; {left} stay in Hugging Face's cache")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
