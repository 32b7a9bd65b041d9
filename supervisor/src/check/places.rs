//! Folders and files: what this process may do there, and what a service's own user might not.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use nix::unistd::Uid;
use orcd_shared::error::ErrorCode;

use super::{Report, Verdict};
use crate::config::Config;
use crate::crash_dir::CrashDir;
use crate::run::no_crash_dir;
use crate::worker::runtime_dir::RuntimeDir;

/// Everybody may read it.
const READABLE_BY_ALL: u32 = 0o004;
/// Everybody may go through it.
const PASSABLE_BY_ALL: u32 = 0o001;

/// Looks at them.
pub(super) fn check(config: &Config, report: &mut Report) {
    report.add("folders", runtime_dir(config));
    if let Some(crashes) = &config.crash_dir {
        report.add("folders", crash_dir(crashes));
    }
    // Who is no root reads the file as who they are; a service that root sets up runs as somebody else.
    if Uid::effective().is_root() {
        report.warn("model", closed_to_others(&config.model));
    }
}

fn runtime_dir(config: &Config) -> Verdict {
    match RuntimeDir::create(config.runtime_dir.as_deref()) {
        Ok(_) => Verdict::Fine("a runtime directory can be made".to_owned()),
        Err(error) => {
            let code = ErrorCode::WorkerUnavailable;
            Verdict::failed_start(format!("{code}: {error}"))
        }
    }
}

/// It is tried if it is there; if not, it is left to the start to make it, and its owner.
fn crash_dir(crashes: &CrashDir) -> Verdict {
    let path = &crashes.path;
    let result = match path.symlink_metadata() {
        Ok(_) => crashes.prepare(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => may_be_made(path),
        Err(error) => Err(error),
    };
    match result {
        Ok(()) => Verdict::Fine(format!("crash files can be written to {}", path.display())),
        Err(error) => Verdict::failed_start(no_crash_dir(crashes, &error)),
    }
}

/// Whether this process can make it: the first folder of it that is not there is made, and taken away again. What modes
/// say is not the whole truth.
fn may_be_made(path: &Path) -> io::Result<()> {
    let is_absent = |above: &&Path| above.symlink_metadata().is_err();
    let absent = path.ancestors().take_while(is_absent).last();
    let absent = absent.unwrap_or(path);
    fs::create_dir(absent)?;
    fs::remove_dir(absent)
}

/// What keeps users other than its owner from reading `file`.
fn closed_to_others(file: &Path) -> Option<String> {
    let file = file.canonicalize().ok()?;
    let lacks = |path: &&Path, wanted| {
        let mode = path
            .metadata()
            .map(|metadata| metadata.permissions().mode());
        mode.is_ok_and(|mode| mode & wanted == 0)
    };
    let folders = file.ancestors().skip(1);
    let closed = Some(file.as_path())
        .filter(|path| lacks(path, READABLE_BY_ALL))
        .or_else(|| {
            folders
                .into_iter()
                .find(|path| lacks(path, PASSABLE_BY_ALL))
        })?;
    Some(format!(
        "{} is closed to other users, and root may read what a service's own user may not: a unit needs files of mode \
         0644 and folders of mode 0755",
        closed.display()
    ))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

    use super::*;

    fn set(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_file_or_folder_that_is_closed_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("models");
        let file = folder.join("m.gguf");
        fs::create_dir(&folder).unwrap();
        fs::write(&file, "").unwrap();
        for path in [dir.path(), &folder, &file] {
            set(path, 0o755);
        }
        let closed = || closed_to_others(&file).unwrap_or_default();
        assert_eq!(closed(), "");
        set(&folder, 0o700);
        assert!(closed().contains("/models is closed"), "{}", closed());
        set(&file, 0o600);
        assert!(closed().contains("/m.gguf is closed"), "{}", closed());
    }

    #[test]
    fn a_crash_dir_is_tried_and_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let verdict = |path: &Path| {
            crash_dir(&CrashDir {
                path: path.to_owned(),
                include_prompts: false,
            })
        };
        let fine = |path: &Path| matches!(verdict(path), Verdict::Fine(_));
        let absent = dir.path().join("a/b");
        assert!(fine(dir.path()) && fine(&absent));
        assert!(!absent.exists());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(!fine(&file) && !fine(&file.join("below")));
    }
}
