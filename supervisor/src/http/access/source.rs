//! Where keys come from: flags, whose keys stay, and files, which are read again when they change.

use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::keys::{Keys, Role};

/// Largest file of keys that is read.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The sources of a service's keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeySource {
    /// Of flags.
    flags: Keys,
    files: Vec<KeyFile>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct KeyFile {
    flag: &'static str,
    path: PathBuf,
    role: Role,
}

/// What tells one state of a file from the next: device, inode, when it was changed and when its inode was, in seconds and
/// nanoseconds, and its size.
pub(super) type FileStamp = (u64, u64, (i64, i64), (i64, i64), u64);

/// Of all files; `None` of one that is not there.
pub(super) type Stamp = Vec<Option<FileStamp>>;

impl KeySource {
    /// Adds a key that `whence` gave.
    ///
    /// # Errors
    /// No request could bring it; the message does not show it.
    pub fn add(&mut self, key: &str, role: Role, whence: &str) -> Result<(), String> {
        add(&mut self.flags, key, role, whence)
    }

    /// Adds the file that `flag` names. What is no regular file, such as a pipe, is read here and now, for it can't be
    /// read again.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn add_file(
        &mut self,
        flag: &'static str,
        path: PathBuf,
        role: Role,
    ) -> Result<(), String> {
        let can_be_read_again = std::fs::metadata(&path).is_ok_and(|is| is.is_file());
        let file = KeyFile { flag, path, role };
        if can_be_read_again {
            self.files.push(file);
        } else {
            self.flags.extend(file.read()?.0);
        }
        Ok(())
    }

    /// Whether there is a file that may change.
    pub(super) fn has_files(&self) -> bool {
        !self.files.is_empty()
    }

    /// All keys as they are now, and warnings about files that others can read.
    ///
    /// # Errors
    /// A file can't be read, has a line that is no key, or no key at all. The message names flag, file and line.
    pub fn read(&self) -> Result<(Keys, Vec<String>), String> {
        let (mut keys, mut warnings) = (self.flags.clone(), Vec::new());
        for file in &self.files {
            let (found, warning) = file.read()?;
            keys.extend(found);
            warnings.extend(warning);
        }
        Ok((keys, warnings))
    }

    /// What the files are by now.
    pub(super) fn stamp(&self) -> Stamp {
        let stamp = |file: &KeyFile| {
            let is = std::fs::metadata(&file.path).ok()?;
            let changed = (is.mtime(), is.mtime_nsec());
            let inode_changed = (is.ctime(), is.ctime_nsec());
            Some((is.dev(), is.ino(), changed, inode_changed, is.size()))
        };
        self.files.iter().map(stamp).collect()
    }
}

fn add(keys: &mut Keys, key: &str, role: Role, whence: &str) -> Result<(), String> {
    if key.is_empty() {
        return Err(format!(
            "{whence}: a key is empty; give at least one character"
        ));
    }
    // What a header can carry, so that there is no key that no request can bring.
    if !key.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!(
            "{whence}: a key has a space or a character that is not ASCII; give letters, digits \
             and signs"
        ));
    }
    keys.add(key, role);
    Ok(())
}

impl KeyFile {
    /// Its keys; and a warning if others can read it.
    fn read(&self) -> Result<(Keys, Option<String>), String> {
        let name = format!("{} {}", self.flag, self.path.display());
        let (text, mode) = read_bounded(&self.path).map_err(|what| format!("{name}: {what}"))?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let mut keys = Keys::default();
        for (number, line) in (1..).zip(text.lines().map(str::trim)) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            add(
                &mut keys,
                line,
                self.role,
                &format!("{name}, line {number}"),
            )?;
        }
        if keys.is_empty() {
            return Err(format!("{name}: there is no key in it; give one a line"));
        }
        let shown = self.path.display();
        let warning = (mode & 0o004 != 0)
            .then(|| format!("{name} can be read by every user of the machine: chmod o-r {shown}"));
        Ok((keys, warning))
    }
}

/// The text of a file and its mode.
fn read_bounded(path: &Path) -> Result<(String, u32), String> {
    let broken = |e: std::io::Error| e.to_string();
    let file = std::fs::File::open(path).map_err(broken)?;
    let mode = file.metadata().map_err(broken)?.permissions().mode();
    let mut text = String::new();
    file.take(MAX_FILE_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(broken)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("it has more than {MAX_FILE_BYTES} bytes"));
    }
    Ok((text, mode))
}
