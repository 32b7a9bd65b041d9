//! Whether a process that had a pool of KV memory is still there: each worker has a lock on the pool's ledger for as long as
//! anything of it may still write to the pool.
//!
//! Locks belong to an open file, and the descriptors that travel between processes are all of one. So whoever locks opens
//! the ledger once more, through `/proc`.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;

use rustix::fs::{OFlags, fcntl_get_seals};
use rustix::io::{DupFlags, dup3};

/// The lowest descriptor number that is free, for a [`Claim`] to come. To be taken before a device is opened: when a process
/// is killed Linux releases what its descriptors stand for from the highest number to the lowest, so that the lock
/// goes after the device, with which a GPU's last kernels end.
#[derive(Debug)]
pub struct Reserved(OwnedFd);

impl Reserved {
    /// Takes it.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn new() -> io::Result<Self> {
        Ok(Self(File::open("/dev/null")?.into()))
    }

    /// Locks the ledger, beside others who do.
    ///
    /// # Errors
    /// It can't be opened once more, or somebody is just looking whether it [`is_free`].
    pub fn claim(self, ledger: impl AsFd) -> io::Result<Claim> {
        let Self(mut number) = self;
        let again = open_again(ledger)?;
        dup3(&again, &mut number, DupFlags::CLOEXEC)?;
        let file = File::from(number);
        file.try_lock_shared()?;
        Ok(Claim(file))
    }
}

/// The lock; gone when this is dropped or the process has ended.
#[derive(Debug)]
pub struct Claim(
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "it is the open file that matters")
    )]
    File,
);

/// Whether nobody has a [`Claim`] to this ledger.
///
/// # Errors
/// It is no file in memory, or can't be opened once more.
pub fn is_free(ledger: impl AsFd) -> io::Result<bool> {
    // Opening what else it may be could have effects.
    fcntl_get_seals(&ledger)?;
    match open_again(ledger)?.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn open_again(file: impl AsFd) -> io::Result<File> {
    let number = file.as_fd().as_raw_fd();
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(flags)
        .open(format!("/proc/self/fd/{number}"))
}

#[cfg(test)]
mod tests {
    use rustix::fs::{MemfdFlags, memfd_create};

    use super::*;

    fn ledger() -> OwnedFd {
        memfd_create("test", MemfdFlags::CLOEXEC).unwrap()
    }

    #[test]
    fn a_ledger_is_free_when_the_last_claim_is_gone_whoever_else_has_its_descriptor() {
        let ledger = ledger();
        assert!(is_free(&ledger).unwrap());
        let (present, standby) = (Reserved::new().unwrap(), Reserved::new().unwrap());
        let kept = ledger.try_clone().unwrap();
        let present = present.claim(&ledger).unwrap();
        let standby = standby.claim(ledger).unwrap();
        assert!(!is_free(&kept).unwrap());
        drop(present);
        assert!(!is_free(&kept).unwrap());
        drop(standby);
        assert!(is_free(&kept).unwrap());
        assert!(is_free(&kept).unwrap(), "looking leaves nothing");
    }

    #[test]
    fn a_claim_has_the_number_that_was_reserved_for_it() {
        let reserved = Reserved::new().unwrap();
        let number = reserved.0.as_raw_fd();
        let later = File::open("/dev/null").unwrap();
        let claim = reserved.claim(ledger()).unwrap();
        assert_eq!(claim.0.as_raw_fd(), number);
        assert!(number < later.as_raw_fd());
        let flags = rustix::io::fcntl_getfd(&claim.0).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    }

    #[test]
    fn what_is_no_file_in_memory_is_an_error() {
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(is_free(one).is_err());
        assert!(is_free(tempfile::tempfile().unwrap()).is_err());
    }
}
