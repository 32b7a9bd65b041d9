//! A model from the hub into the store.

use std::fs;
use std::path::Path;

use nix::sys::statvfs::statvfs;

use crate::choose::choose;
use crate::download::fetch;
use crate::error::Error;
use crate::hf_cache;
use crate::hub::Hub;
use crate::listing::{Listing, RemoteFile};
use crate::name::{ModelName, RepoName};
use crate::progress::{Progress, human_bytes};
use crate::record::Record;
use crate::settings::Settings;
use crate::store::{Store, StoredModel, create_folder, sync_folder_of};

/// Longest revision that is asked for, in bytes.
const MAX_REVISION: usize = 200;

/// Pulls what `name` means at `revision` (a branch, tag or commit), and removes what an older commit had of it.
/// Of what is there already nothing is fetched: files of an earlier pull, also one that broke off, and those of
/// Hugging Face's cache.
///
/// # Errors
/// [`Error`]. What was fetched is kept for the next try, unless it is wrong.
pub fn pull(settings: &Settings, name: &ModelName, revision: &str) -> Result<StoredModel, Error> {
    check_revision(revision)?;
    let mut progress = Progress::default();
    let hub = Hub::new(settings)?;
    let listing = hub.listing(&name.repo, revision, &progress)?;
    let chosen =
        choose(&listing, name.quant.as_deref()).map_err(|error| at(error, &name.repo, &listing))?;
    let store = Store::new(settings.models_dir.clone());
    let _lock = store.lock(&name.repo, || {
        progress.note(&format!("waiting for another pull of {}", name.repo));
    })?;
    let target = Target {
        hub: &hub,
        store: &store,
        hf_cache: settings.hf_cache.as_deref(),
        repo: &name.repo,
        commit: &listing.commit,
        earlier: store.records(&name.repo),
    };
    target.take_all(&chosen.files, &mut progress)?;
    let record = Record::new(
        &name.repo,
        chosen.quant,
        listing.commit.clone(),
        chosen.files,
    );
    let stored = store.write(&record)?;
    store.sweep(&name.repo)?;
    Ok(stored)
}

/// A revision goes into an address and into messages.
fn check_revision(revision: &str) -> Result<(), Error> {
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_./".contains(&b);
    let begins_well = revision.starts_with(|c: char| c.is_ascii_alphanumeric());
    let is_sound = begins_well
        && revision.len() <= MAX_REVISION
        && revision.bytes().all(is_allowed)
        && !revision.contains("..");
    is_sound.then_some(()).ok_or_else(|| {
        let shown = revision.escape_default();
        Error::Usage(format!(
            "--revision `{shown}`: give the name of a branch or tag, or a commit, such as main"
        ))
    })
}

fn at(error: Error, repo: &RepoName, listing: &Listing) -> Error {
    let commit = listing.commit.get(..12).unwrap_or_default();
    match error {
        Error::NotFound(message) => Error::NotFound(format!("{repo} at {commit}: {message}")),
        Error::Hub(message) => Error::Hub(format!("{repo} at {commit}: {message}")),
        error => error,
    }
}

/// Where files of one commit go, and where they may come from.
struct Target<'a> {
    hub: &'a Hub,
    store: &'a Store,
    hf_cache: Option<&'a Path>,
    repo: &'a RepoName,
    commit: &'a str,
    /// What was pulled of the repository before.
    earlier: Vec<Record>,
}

impl Target<'_> {
    fn take_all(&self, files: &[RemoteFile], progress: &mut Progress) -> Result<(), Error> {
        let folder = self.store.file_path(self.repo, self.commit, "");
        create_folder(&folder)?;
        let mut missing = Vec::new();
        for file in files {
            if !self.is_there(file, progress)? {
                missing.push(file);
            }
        }
        self.check_room(&missing)?;
        for file in missing {
            let place = self.place(file);
            let part = self.store.part_path(self.repo, &file.sha256);
            fetch(
                self.hub,
                self.repo,
                self.commit,
                file,
                (&part, &place),
                progress,
            )?;
            sync_folder_of(&place)?;
        }
        Ok(())
    }

    fn place(&self, file: &RemoteFile) -> std::path::PathBuf {
        self.store.file_path(self.repo, self.commit, &file.name)
    }

    /// Whether a file is in its place, after it was put there from whatever has it on this machine.
    fn is_there(&self, file: &RemoteFile, progress: &Progress) -> Result<bool, Error> {
        let place = self.place(file);
        if has_bytes(&place, file) {
            return Ok(true);
        }
        // A file that was cut, or a link that leads nowhere.
        if place.symlink_metadata().is_ok() {
            fs::remove_file(&place).map_err(Error::file(&place))?;
        }
        if self.link_earlier(file, &place) {
            return Ok(true);
        }
        let cached = self
            .hf_cache
            .and_then(|cache| hf_cache::find(cache, self.repo, self.commit, file));
        let Some(cached) = cached else {
            return Ok(false);
        };
        progress.note(&format!(
            "{} is in Hugging Face's cache ({})",
            file.name,
            human_bytes(file.bytes)
        ));
        std::os::unix::fs::symlink(&cached, &place).map_err(Error::file(&place))?;
        sync_folder_of(&place)?;
        Ok(true)
    }

    /// Gives the same file of another commit this commit's name too. The sum of that one was checked.
    fn link_earlier(&self, file: &RemoteFile, place: &Path) -> bool {
        let same = self.earlier.iter().flat_map(|record| {
            let files = record
                .files
                .iter()
                .filter(|other| other.sha256 == file.sha256);
            files.map(|other| self.store.file_path(self.repo, &record.commit, &other.name))
        });
        same.into_iter()
            .any(|other| has_bytes(&other, file) && fs::hard_link(&other, place).is_ok())
    }

    /// Whether the file system has room for what is still to be written of `files`.
    fn check_room(&self, files: &[&RemoteFile]) -> Result<(), Error> {
        let folder = self.store.repo_folder(self.repo);
        let written = |file: &RemoteFile| {
            let part = self.store.part_path(self.repo, &file.sha256);
            part.metadata().map_or(0, |part| part.len().min(file.bytes))
        };
        let needed = files.iter().fold(0_u64, |sum, file| {
            sum.saturating_add(file.bytes - written(file))
        });
        // Where it can't be asked, writing will show it.
        let Ok(system) = statvfs(&folder) else {
            return Ok(());
        };
        let free = system
            .blocks_available()
            .saturating_mul(system.fragment_size());
        if needed > free {
            return Err(Error::NoSpace {
                folder,
                needed,
                free,
            });
        }
        Ok(())
    }
}

fn has_bytes(path: &Path, file: &RemoteFile) -> bool {
    path.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.len() == file.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_a_branch_a_tag_or_a_commit() {
        for good in ["main", "v1.0", "refs/pr/1", "0123456789abcdef"] {
            check_revision(good).unwrap();
        }
        for bad in ["", "a b", "..", "a/../b", "-x", "a?b", "a\nb", "ü"] {
            let error = check_revision(bad).unwrap_err();
            assert!(error.to_string().contains("--revision"), "{bad:?}: {error}");
        }
    }
}
