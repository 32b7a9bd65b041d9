//! Threads that read pieces of the model file into staging, for one thread that passes them on.
//!
//! One thread that read and copied brought 4 GB/s to an H100, whose link takes 46. Pieces come in any
//! order: what is made of them may not depend on it.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{Scope, available_parallelism};

use orcd_shared::gguf::{GgufError, GgufFile};

use super::pieces::Piece;

/// Each brings some gigabytes per second; with eight of them a GPU's link is the narrower place.
const MOST_READERS: usize = 8;
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
    pub(super) fn for_pieces(pieces: &[Piece<'_>]) -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        let longest = pieces.iter().map(Piece::bytes).max().unwrap_or(0);
        Self {
            readers: cores.min(MOST_READERS).min(pieces.len()).max(1),
            lane_bytes: usize::try_from(longest).unwrap_or(usize::MAX).max(1),
        }
    }

    /// Size of the staging that [`start`] takes.
    pub(super) fn staging_bytes(&self) -> usize {
        self.lane_bytes.saturating_mul(self.readers * LANES)
    }
}

/// A piece that was read. Dropped, it gives its buffer back to its reader.
pub(super) struct Filled<'data, 'buffer> {
    pub(super) piece: Piece<'data>,
    lane: &'buffer mut [u8],
    length: usize,
    reader: Sender<&'buffer mut [u8]>,
}

impl Filled<'_, '_> {
    /// What the file has there.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.lane[..self.length]
    }
}

impl Drop for Filled<'_, '_> {
    fn drop(&mut self) {
        // A reader that has ended needs no buffer.
        let _ = self.reader.send(std::mem::take(&mut self.lane));
    }
}

/// Starts the readers; what they have read, or why they could not, comes out of the receiver, which
/// ends with the last piece. Dropping it ends the readers.
///
/// # Errors
/// Not one thread could be started.
pub(super) fn start<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    crew: Crew,
    file: &'env GgufFile,
    pieces: &'env [Piece<'env>],
    next: &'env AtomicUsize,
    staging: &'env mut [u8],
) -> io::Result<Receiver<Result<Filled<'env, 'env>, GgufError>>> {
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
            // Ends with the pieces, or when nobody takes them any more.
            while let Ok(lane) = take.recv() {
                let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) else {
                    return;
                };
                if filled.send(read(file, piece, lane, &give)).is_err() {
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

fn read<'data, 'buffer>(
    file: &GgufFile,
    piece: &Piece<'data>,
    lane: &'buffer mut [u8],
    reader: &Sender<&'buffer mut [u8]>,
) -> Result<Filled<'data, 'buffer>, GgufError> {
    // No piece is longer than a lane: the crew was made for the longest.
    let length = lane
        .len()
        .min(usize::try_from(piece.bytes()).unwrap_or(usize::MAX));
    let filled = Filled {
        piece: *piece,
        lane,
        length,
        reader: reader.clone(),
    };
    let into = &mut filled.lane[..length];
    file.read_exact_at(&piece.tensor.info, piece.offset(), into)?;
    Ok(filled)
}
