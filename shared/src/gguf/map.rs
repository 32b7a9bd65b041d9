//! The only unsafe code of the crate: mapping a model file.

use std::fs::File;
use std::io;

use memmap2::Mmap;

/// Maps the whole of `file`, read-only.
pub(super) fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: the invariant is that nobody changes or truncates the file while it is mapped. For a
    // model file that is the operator's side of the contract; the code leans on it as little as it
    // can. Only the header is read through the mapping, once, right after it was made. The data is
    // what a loader reads for seconds, by `pread` on `Shard::file`: from a file
    // truncated meanwhile that gives an error, where touching the mapping would raise SIGBUS.
    unsafe { Mmap::map(file) }
}
