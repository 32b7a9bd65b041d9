//! Threads that read pieces of the model's files into staging, for one thread that passes them on.
//! While a piece is in a reader's cache, it is looked at too, and hashed if it was not before.
//!
//! One thread that read and copied brought 4 GB/s to an H100, whose link takes 46. Pieces come in any
//! order: what is made of them may not depend on it.

use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{Scope, available_parallelism};

use orcd_shared::gguf::GgufError;

use super::LoadError;
use super::pieces::{Piece, Rows};
use super::soundness;
use super::source::Source;

/// Each brings some gigabytes per second; with so many the way to a GPU is the narrower place, and more of
/// them stand in the way of the thread that passes pieces on.
const MOST_READERS: usize = 8;
/// The same where pieces have yet to be hashed, which takes a core for 3 to 4 GB/s.
const MOST_HASHING: usize = 16;
/// Buffers of a reader: one is read into while another one is passed on.
const LANES: usize = 2;

/// How many threads read, and into how much memory.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Crew {
    readers: usize,
    lane_bytes: usize,
}

impl Crew {
    /// As many readers as there are cores, and no more than there is work for.
    pub(super) fn of(source: &Source<'_>) -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        let most = if source.is_hashed() {
            MOST_READERS
        } else {
            MOST_HASHING
        };
        let pieces = &source.pieces;
        let longest = pieces.iter().map(|piece| piece.reach).max().unwrap_or(0);
        Self {
            readers: cores.min(most).min(pieces.len()).max(1),
            lane_bytes: longest.max(1),
        }
    }

    /// Size of the staging that [`start`] takes.
    pub(super) fn staging_bytes(&self) -> usize {
        self.lane_bytes.saturating_mul(self.readers * LANES)
    }
}

/// What all readers share.
#[derive(Debug)]
pub(super) struct Work<'a> {
    pub(super) source: &'a Source<'a>,
    /// Number of the next piece to be read.
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

    /// Lets readers end with the pieces that they have begun.
    pub(super) fn stop(&self) {
        self.next.store(self.source.pieces.len(), Ordering::Relaxed);
    }

    /// Whether tensor `index` has nothing but zeros, as far as it was read.
    pub(super) fn is_zero(&self, index: usize) -> bool {
        let nonzero = self.nonzero.get(index);
        nonzero.is_some_and(|nonzero| !nonzero.load(Ordering::Relaxed))
    }
}

/// A piece that was read. Dropped, it gives its buffer back to its reader.
pub(super) struct Filled<'data, 'buffer> {
    pub(super) piece: &'data Piece<'data>,
    lane: &'buffer mut [u8],
    reader: Sender<&'buffer mut [u8]>,
}

impl Filled<'_, '_> {
    /// What the file has of rows that begin in this piece.
    pub(super) fn bytes(&self, rows: &Rows<'_>) -> &[u8] {
        &self.lane[rows.at..rows.at + rows.bytes]
    }
}

impl Drop for Filled<'_, '_> {
    fn drop(&mut self) {
        // A reader that has ended needs no buffer.
        let _ = self.reader.send(std::mem::take(&mut self.lane));
    }
}

/// What a reader says: a piece, or the number of one with what is wrong with it.
pub(super) type Said<'data, 'buffer> = Result<Filled<'data, 'buffer>, (usize, LoadError)>;

/// Starts the readers; what they have read, or why they could not, comes out of the receiver, which
/// ends with the last piece. Dropping it ends the readers.
///
/// # Errors
/// Not one thread could be started.
pub(super) fn start<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    crew: Crew,
    work: &'env Work<'env>,
    staging: &'env mut [u8],
) -> io::Result<Receiver<Said<'env, 'env>>> {
    let (filled, output) = mpsc::channel();
    let mut lanes = staging.chunks_exact_mut(crew.lane_bytes);
    for number in 0..crew.readers {
        let (give, take) = mpsc::channel();
        for lane in lanes.by_ref().take(LANES) {
            // The receiver is right here.
            let _ = give.send(lane);
        }
        let filled = filled.clone();
        let reader = move || {
            // Ends with the pieces, with a fault, or when nobody takes them any more.
            while let Ok(lane) = take.recv() {
                let number = work.next.fetch_add(1, Ordering::Relaxed);
                let Some(piece) = work.source.pieces.get(number) else {
                    return;
                };
                let said = match read(work, number, piece, lane) {
                    Ok(()) => Ok(Filled {
                        piece,
                        lane,
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
    piece: &Piece<'_>,
    lane: &mut [u8],
) -> Result<(), LoadError> {
    // No piece reaches further than a lane: the crew was made for the longest.
    let into = &mut lane[..piece.reach];
    let file = work.source.file(piece);
    (file.read_exact_at(into, piece.offset)).map_err(|error| unreadable(work, piece, error))?;
    work.source.note_hash(number, &into[..piece.bytes]);
    for rows in &piece.rows {
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
                    path: work.source.path(piece.file),
                    tensor: rows.tensor.info.name.clone(),
                    what: match rows.tensor.info.ty.block_len() {
                        1 => "value",
                        _ => "block scale",
                    },
                    value: found.value,
                    offset: piece.offset + (rows.at + found.at) as u64,
                });
            }
        }
    }
    Ok(())
}

fn unreadable(work: &Work<'_>, piece: &Piece<'_>, source: io::Error) -> LoadError {
    match piece.rows.first() {
        Some(rows) => GgufError::ReadTensor {
            path: work.source.path(piece.file),
            tensor: rows.tensor.info.name.clone(),
            offset: piece.offset,
            len: piece.reach as u64,
            source,
        }
        .into(),
        None => LoadError::Unreadable {
            path: work.source.path(piece.file),
            offset: piece.offset,
            bytes: piece.reach,
            source,
        },
    }
}
