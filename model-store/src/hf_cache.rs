//! Hugging Face's own cache, where other programs have put files. Its `blobs/` are named by their SHA-256; a
//! commit's `snapshots/COMMIT/` has them under their names, as links or, on some systems, as files.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::download::Sum;
use crate::listing::RemoteFile;
use crate::name::RepoName;

/// Where `file` lies in the cache, if all its bytes are there and are the right ones.
pub(crate) fn find(
    cache: &Path,
    repo: &RepoName,
    commit: &str,
    file: &RemoteFile,
) -> Option<PathBuf> {
    let folder = cache.join(format!("models--{}--{}", repo.owner, repo.name));
    let places = [
        folder.join("blobs").join(&file.sha256),
        folder.join("snapshots").join(commit).join(&file.name),
    ];
    places.into_iter().find_map(|place| checked(&place, file))
}

fn checked(place: &Path, file: &RemoteFile) -> Option<PathBuf> {
    let place = place.canonicalize().ok()?;
    let metadata = place.metadata().ok()?;
    if !metadata.is_file() || metadata.len() != file.bytes {
        return None;
    }
    let mut sum = Sum::default();
    sum.read(&mut File::open(&place).ok()?, |_| {}).ok()?;
    (sum.hex() == file.sha256).then_some(place)
}
