//! Threads that read chunks of the model's files into staging, for one thread that passes them on.
//! While a chunk is in a reader's cache, it is looked at too, and hashed if it was not before.
//!
//! One thread that read and copied brought 4 GB/s to an H100, whose link takes 46. Chunks come in any
//! order: what is made of them may not depend on it.

use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{Scope, available_parallelism};

use orcd_shared::gguf::GgufError;

use super::LoadError;
use super::chunks::{LoadChunk, Rows};
use super::soundness;
use super::source::Source;

/// Each brings some gigabytes per second; with so many the way to a GPU is the narrower place, and more of
/// them stand in the way of the thread that passes chunks on.
const MOST_READERS: usize = 8;
/// The same where chunks have yet to be hashed, which takes a core for 3 to 4 GB/s.
const MOST_HASHING: usize = 16;
/// Buffers of a reader: one is read into while another one is passed on.
const BUFFERS: usize = 2;

/// How many threads read, and into how much memory.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct ReaderPool {
    readers: usize,
    buffer_bytes: usize,
}

impl ReaderPool {
    /// As many readers as there are cores, and no more than there is work for.
    pub(super) fn of(source: &Source<'_>) -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        let most = if source.is_hashed() {
            MOST_READERS
        } else {
            MOST_HASHING
        };
        let chunks = &source.chunks;
        let longest = chunks.iter().map(|chunk| chunk.reach).max().unwrap_or(0);
        Self {
            readers: cores.min(most).min(chunks.len()).max(1),
            buffer_bytes: longest.max(1),
        }
    }

    /// Size of the staging that [`start`] takes.
    pub(super) fn staging_bytes(&self) -> usize {
        self.buffer_bytes.saturating_mul(self.readers * BUFFERS)
    }
}

/// What all readers share.
#[derive(Debug)]
pub(super) struct Work<'a> {
    pub(super) source: &'a Source<'a>,
    /// Number of the next chunk to be read.
    next: AtomicUsize,
    /// By tensor: something in it differs from zero.
    nonzero: Vec<AtomicBool>,
}

impl<'a> Work<'a> {
    /// To read all of `source`.
    pub(super) fn new(source: &'a Source<'a>) -> Self {
        let tensors = source.plan.tensors.iter();
        Self {
            source,
            next: AtomicUsize::new(0),
            nonzero: tensors.map(|_| AtomicBool::new(false)).collect(),
        }
    }

    /// Lets readers end with the chunks that they have begun.
    pub(super) fn stop(&self) {
        self.next.store(self.source.chunks.len(), Ordering::Relaxed);
    }

    /// Whether tensor `index` has nothing but zeros, as far as it was read.
    pub(super) fn is_zero(&self, index: usize) -> bool {
        let nonzero = self.nonzero.get(index);
        nonzero.is_some_and(|nonzero| !nonzero.load(Ordering::Relaxed))
    }
}

/// A chunk that was read. Dropped, it gives its buffer back to its reader.
pub(super) struct Filled<'data, 'buffer> {
    pub(super) chunk: &'data LoadChunk<'data>,
    buffer: &'buffer mut [u8],
    reader: Sender<&'buffer mut [u8]>,
}

impl Filled<'_, '_> {
    /// What the file has of rows that begin in this chunk.
    pub(super) fn bytes(&self, rows: &Rows<'_>) -> &[u8] {
        &self.buffer[rows.at..rows.at + rows.bytes]
    }
}

impl Drop for Filled<'_, '_> {
    fn drop(&mut self) {
        // A reader that has ended needs no buffer.
        let _ = self.reader.send(std::mem::take(&mut self.buffer));
    }
}

/// What a reader says: a chunk, or the number of one with what is wrong with it.
pub(super) type ReadResult<'data, 'buffer> = Result<Filled<'data, 'buffer>, (usize, LoadError)>;

/// Starts the readers; what they have read, or why they could not, comes out of the receiver, which
/// ends with the last chunk. Dropping it ends the readers.
///
/// # Errors
/// Not one thread could be started.
pub(super) fn start<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    pool: ReaderPool,
    work: &'env Work<'env>,
    staging: &'env mut [u8],
) -> io::Result<Receiver<ReadResult<'env, 'env>>> {
    let (filled, output) = mpsc::channel();
    let mut buffers = staging.chunks_exact_mut(pool.buffer_bytes);
    for number in 0..pool.readers {
        let (give, take) = mpsc::channel();
        for buffer in buffers.by_ref().take(BUFFERS) {
            // The receiver is right here.
            let _ = give.send(buffer);
        }
        let filled = filled.clone();
        let reader = move || {
            // Ends with the chunks, with a fault, or when nobody takes them any more.
            while let Ok(buffer) = take.recv() {
                let number = work.next.fetch_add(1, Ordering::Relaxed);
                let Some(chunk) = work.source.chunks.get(number) else {
                    return;
                };
                let said = match read(work, number, chunk, buffer) {
                    Ok(()) => Ok(Filled {
                        chunk,
                        buffer,
                        reader: give.clone(),
                    }),
                    Err(error) => Err((number, error)),
                };
                // Its buffer is lost with a fault: who reads on would wait for one for ever.
                let faulty = said.is_err();
                if filled.send(said).is_err() || faulty {
                    return;
                }
            }
        };
        match std::thread::Builder::new().spawn_scoped(scope, reader) {
            Ok(_) => {}
            // No room for another stack, or no thread left: those that are there read everything.
            Err(_) if number > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(output)
}

fn read(
    work: &Work<'_>,
    number: usize,
    chunk: &LoadChunk<'_>,
    buffer: &mut [u8],
) -> Result<(), LoadError> {
    // No chunk reaches further than a buffer: the pool was made for the longest.
    let into = &mut buffer[..chunk.reach];
    let file = work.source.file(chunk);
    (file.read_exact_at(into, chunk.offset)).map_err(|error| unreadable(work, chunk, error))?;
    work.source.note_hash(number, &into[..chunk.bytes]);
    for rows in &chunk.rows {
        let raw = &into[rows.at..rows.at + rows.bytes];
        match soundness::look(rows.tensor.info.ty, raw) {
            Ok(true) => {
                if let Some(nonzero) = work.nonzero.get(rows.index) {
                    nonzero.store(true, Ordering::Relaxed);
                }
            }
            Ok(false) => {}
            Err(found) => {
                return Err(LoadError::NotFinite {
                    path: work.source.path(chunk.file),
                    tensor: rows.tensor.info.name.clone(),
                    what: match rows.tensor.info.ty.block_len() {
                        1 => "value",
                        _ => "block scale",
                    },
                    value: found.value,
                    offset: chunk.offset + (rows.at + found.at) as u64,
                });
            }
        }
    }
    Ok(())
}

fn unreadable(work: &Work<'_>, chunk: &LoadChunk<'_>, source: io::Error) -> LoadError {
    match chunk.rows.first() {
        Some(rows) => GgufError::ReadTensor {
            path: work.source.path(chunk.file),
            tensor: rows.tensor.info.name.clone(),
            offset: chunk.offset,
            len: chunk.reach as u64,
            source,
        }
        .into(),
        None => LoadError::Unreadable {
            path: work.source.path(chunk.file),
            offset: chunk.offset,
            bytes: chunk.reach,
            source,
        },
    }
}
