//! Crash bundles on disk: one file per crash, for its owner only, the oldest removed beyond a bound.
//! A full disk costs the bundle and nothing else.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use orcd_shared::crash::CrashBundle;

/// Bundles that are kept.
const KEPT: usize = 32;

/// Where bundles go and what may be in them.
#[derive(Debug, Clone)]
pub struct CrashDir {
    /// The directory.
    pub path: PathBuf,
    /// Prompts may be written too.
    pub include_prompts: bool,
}

impl CrashDir {
    /// Makes the directory, for its owner only, if it is not there, and tries whether it can be
    /// written to: a crash would be too late to learn of it.
    ///
    /// # Errors
    /// It can't be made or written to, or is something else.
    pub fn prepare(&self) -> io::Result<()> {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(&self.path)?;
        let trial = format!("crash-trial-{}.draft", std::process::id());
        let trial = self.path.join(trial);
        // What a supervisor left that was killed right here.
        let _ = std::fs::remove_file(&trial);
        create_private(&trial)?;
        std::fs::remove_file(&trial)
    }

    /// Writes a bundle, whole or not at all, and removes the oldest beyond what is kept. Blocks.
    ///
    /// # Errors
    /// The disk is full, or the directory is gone or not writable.
    pub fn write(&self, bundle: &CrashBundle) -> io::Result<PathBuf> {
        // Digits of the time only: sorts by age, and holds nothing that a shell would mind.
        let time: String = bundle
            .crashed_at
            .chars()
            .filter(char::is_ascii_digit)
            .take(17)
            .collect();
        let path = self
            .path
            .join(format!("crash-{time:0<17}-{}.json", bundle.generation));
        let draft = path.with_extension("draft");
        let file = create_private(&draft)?;
        let written = write_all(file, bundle).and_then(|()| std::fs::rename(&draft, &path));
        if let Err(error) = written {
            // What is there of it helps nobody and takes room.
            let _ = std::fs::remove_file(&draft);
            return Err(error);
        }
        self.remove_oldest()?;
        Ok(path)
    }

    fn remove_oldest(&self) -> io::Result<()> {
        let mut bundles: Vec<PathBuf> = std::fs::read_dir(&self.path)?
            .filter_map(|entry| entry.ok().map(|e| e.path()))
            .filter(|path| is_bundle(path))
            .collect();
        bundles.sort();
        let surplus = bundles.len().saturating_sub(KEPT);
        bundles[..surplus].iter().try_for_each(std::fs::remove_file)
    }
}

fn is_bundle(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with("crash-") && name.ends_with(".json"))
}

/// A new file for its owner only. One that is there already is somebody else's, a link perhaps, and is
/// left alone.
fn create_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options
        .write(true)
        .create_new(true)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .mode(0o600)
        .open(path)
}

fn write_all(mut file: File, bundle: &CrashBundle) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(bundle)?;
    text.push(b'\n');
    file.write_all(&text)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn bundle(generation: u64) -> CrashBundle {
        CrashBundle {
            version: "0".into(),
            protocol: 1,
            crashed_at: format!("2026-11-23T10:11:12.{generation:06}Z"),
            generation,
            exit: "signal 11 (SIGSEGV)".into(),
            hung: false,
            model: "/m.gguf".into(),
            model_bytes: 1,
            device: "cpu".into(),
            context: 8,
            parallel: 1,
            kv_pages: None,
            end_tokens: vec![2],
            log: vec![],
            jobs: vec![],
        }
    }

    #[test]
    fn bundles_are_private_and_the_oldest_go() {
        let dir = tempfile::tempdir().unwrap();
        let crashes = CrashDir {
            path: dir.path().join("deep/crashes"),
            include_prompts: false,
        };
        crashes.prepare().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&crashes.path), 0o700);
        let first = crashes.write(&bundle(1)).unwrap();
        assert_eq!(mode(&first), 0o600);
        let back: CrashBundle = serde_json::from_slice(&std::fs::read(&first).unwrap()).unwrap();
        assert_eq!(back, bundle(1));
        std::fs::write(crashes.path.join("notes.txt"), "mine").unwrap();
        for generation in 2..=40 {
            crashes.write(&bundle(generation)).unwrap();
        }
        let names: Vec<_> = std::fs::read_dir(&crashes.path).unwrap().collect();
        assert_eq!(names.len(), KEPT + 1, "and what is somebody else's");
        assert!(!first.exists());
    }

    #[test]
    fn file_or_link_that_somebody_put_in_the_way_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let crashes = CrashDir {
            path: dir.path().join("crashes"),
            include_prompts: false,
        };
        crashes.prepare().unwrap();
        let victim = dir.path().join("victim");
        let path = crashes.write(&bundle(1)).unwrap();
        std::fs::remove_file(&path).unwrap();
        let draft = path.with_extension("draft");
        for exists in [true, false] {
            if exists {
                std::fs::write(&victim, "precious").unwrap();
            } else {
                std::fs::remove_file(&victim).unwrap();
            }
            let _ = std::fs::remove_file(&draft);
            std::os::unix::fs::symlink(&victim, &draft).unwrap();
            let error = crashes.write(&bundle(1)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
            assert_eq!(victim.exists(), exists);
        }
        // The trial's name is known too: what lies there goes, and not what it points to.
        std::fs::write(&victim, "precious").unwrap();
        let trial = format!("crash-trial-{}.draft", std::process::id());
        std::os::unix::fs::symlink(&victim, crashes.path.join(trial)).unwrap();
        crashes.prepare().unwrap();
        assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
    }

    #[test]
    fn directory_that_takes_no_files_is_found_out_at_the_start() {
        let crashes = CrashDir {
            path: "/proc".into(),
            include_prompts: false,
        };
        assert!(crashes.prepare().is_err());
    }

    #[test]
    fn directory_that_is_gone_is_an_error_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let crashes = CrashDir {
            path: dir.path().join("gone"),
            include_prompts: false,
        };
        assert!(crashes.write(&bundle(1)).is_err());
        // A disk without room, as far as it can be had without one of its own.
        let full = CrashDir {
            path: "/dev/full".into(),
            include_prompts: false,
        };
        assert!(full.write(&bundle(1)).is_err());
    }
}
