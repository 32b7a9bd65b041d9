//! Memory files that nobody can change any more.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};

/// With these nobody can change a file's bytes any more.
const FINAL: SealFlags = SealFlags::WRITE
    .union(SealFlags::GROW)
    .union(SealFlags::SHRINK);

/// A sealed file with this content, close-on-exec. `name` shows in `/proc` only.
///
/// # Errors
/// There is no memory or no descriptor left.
pub fn create(name: &str, content: &[u8]) -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(memfd_create(name, flags)?);
    file.write_all(content)?;
    fcntl_add_seals(&file, FINAL | SealFlags::SEAL)?;
    Ok(file)
}

/// Refuses a memory file that somebody may still change, and any other file; `what` names it in the
/// message.
///
/// # Errors
/// It is one of those.
pub fn check(fd: impl AsFd, what: &str) -> io::Result<()> {
    match fcntl_get_seals(fd) {
        Ok(seals) if seals.contains(FINAL) => Ok(()),
        Ok(_) => Err(io::Error::other(format!("{what} is not sealed"))),
        Err(error) => Err(io::Error::other(format!("{what} is not a memfd: {error}"))),
    }
}
