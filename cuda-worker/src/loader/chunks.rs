//! The model's files cut into chunks that one reader reads at a time.
//!
//! A chunk is a fixed range of a file, so that a hash can be made of the chunks' own; with it go the
//! rows that begin in it. Where the last of them ends after the chunk, so does what is read.

use crate::weights_plan::{ModelPlan, PlannedTensor};

/// Size of a chunk, a power of two: large enough that calls cost little beside the bytes, small
/// enough that all buffers together are a few megabytes to pin, and that a chunk is still in the
/// processor's cache when it has been read.
pub(super) const CHUNK_BYTES: u64 = 1 << 20;

/// A range of a file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LoadChunk<'a> {
    /// Which file.
    pub(super) file: usize,
    /// Where it begins, from the start of the file; a multiple of [`CHUNK_BYTES`].
    pub(super) offset: u64,
    /// Its length; shorter than [`CHUNK_BYTES`] only at the file's end.
    pub(super) bytes: usize,
    /// There is no other chunk of this file.
    pub(super) whole: bool,
    /// What is read: it, and the rest of its last row.
    pub(super) reach: usize,
    /// The rows that begin in it.
    pub(super) rows: Vec<Rows<'a>>,
}

/// Whole rows of a tensor in the file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rows<'a> {
    pub(super) tensor: &'a PlannedTensor,
    /// Its number in the plan.
    pub(super) index: usize,
    /// The first of them, counted in the whole matrix.
    pub(super) first_row: u64,
    /// Where they begin, from the start of the chunk.
    pub(super) at: usize,
    pub(super) bytes: usize,
}

/// All chunks of all files, in order. `lengths`: of the files, bytes; `start_of`: where a tensor's data
/// begins, as file and offset.
pub(super) fn chunks<'a>(
    plan: &'a ModelPlan,
    lengths: &[u64],
    start_of: impl Fn(&PlannedTensor) -> (usize, u64),
) -> Vec<LoadChunk<'a>> {
    let mut chunks: Vec<_> = (lengths.iter().enumerate())
        .map(|(file, &length)| empty_chunks(file, length))
        .collect();
    for (index, tensor) in plan.tensors.iter().enumerate() {
        let (file, start) = start_of(tensor);
        if let Some(chunks) = chunks.get_mut(file) {
            add_rows(chunks, tensor, index, start);
        }
    }
    chunks.into_iter().flatten().collect()
}

fn empty_chunks<'a>(file: usize, length: u64) -> Vec<LoadChunk<'a>> {
    let starts = (0..length.div_ceil(CHUNK_BYTES)).map(|n| n * CHUNK_BYTES);
    starts
        .map(|offset| {
            let bytes = bounded(length - offset);
            LoadChunk {
                file,
                offset,
                bytes,
                whole: length <= CHUNK_BYTES,
                reach: bytes,
                rows: Vec::new(),
            }
        })
        .collect()
}

/// At most a chunk.
fn bounded(bytes: u64) -> usize {
    bytes.min(CHUNK_BYTES) as usize
}

/// Gives each chunk of a file the rows of `tensor` that begin in it.
fn add_rows<'a>(chunks: &mut [LoadChunk<'a>], tensor: &'a PlannedTensor, index: usize, start: u64) {
    let (row_bytes, all) = (tensor.info.row_bytes(), tensor.info.rows());
    let mut row = 0;
    while row < all {
        let offset = start + row * row_bytes;
        let number = offset / CHUNK_BYTES;
        let end = (number + 1) * CHUNK_BYTES;
        let rows = (end - offset).div_ceil(row_bytes).min(all - row);
        // The header was checked against the file's length.
        let Some(chunk) = usize::try_from(number).ok().and_then(|n| chunks.get_mut(n)) else {
            return;
        };
        let at = bounded(offset - chunk.offset);
        let bytes = usize::try_from(rows * row_bytes).unwrap_or(usize::MAX);
        chunk.reach = chunk.reach.max(at.saturating_add(bytes));
        chunk.rows.push(Rows {
            tensor,
            index,
            first_row: tensor.first_row + row,
            at,
            bytes,
        });
        row += rows;
    }
}

#[cfg(test)]
mod tests {
    use orcd_shared::gguf::{TensorInfo, TensorType};

    use super::*;
    use crate::weights_plan::Role;

    fn tensor(rows: u64, cols: u64) -> PlannedTensor {
        let nbytes = rows * cols * 4;
        PlannedTensor {
            role: Role::Output,
            layer: 0,
            info: TensorInfo {
                name: String::new(),
                ne: vec![cols, rows],
                ty: TensorType::F32,
                offset: 0,
                nbytes,
                shard: 0,
            },
            rows,
            first_row: 0,
            cols,
            offset: 0,
        }
    }

    /// What of a tensor lies in which chunk: number, place, first row, bytes.
    fn cut(tensor: &PlannedTensor, start: u64, length: u64) -> Vec<(u64, usize, u64, usize)> {
        let mut chunks = empty_chunks(0, length);
        add_rows(&mut chunks, tensor, 0, start);
        let all = chunks
            .iter()
            .flat_map(|p| p.rows.iter().map(move |r| (p, r)));
        all.map(|(p, r)| {
            assert!(p.reach >= r.at + r.bytes && p.bytes >= r.at);
            (p.offset / CHUNK_BYTES, r.at, r.first_row, r.bytes)
        })
        .collect()
    }

    #[test]
    fn each_row_belongs_to_the_piece_in_which_it_begins() {
        const M: usize = 1 << 20;
        let row = 400_000;
        let found = cut(&tensor(6, row as u64 / 4), 100, 3 << 20);
        assert_eq!(
            found,
            [(0, 100, 0, 3 * row), (1, 100 + 3 * row - M, 3, 3 * row)]
        );
    }

    #[test]
    fn a_row_longer_than_a_piece_is_one_piece_of_reading() {
        const M: usize = 1 << 20;
        let row = 3 * M;
        let found = cut(&tensor(2, row as u64 / 4), 32, (6 << 20) + 32);
        assert_eq!(found, [(0, 32, 0, row), (3, 32, 1, row)]);
    }

    #[test]
    fn chunks_cover_the_file_without_gaps() {
        let chunks = empty_chunks(0, (2 << 20) + 7);
        let lengths: Vec<_> = chunks.iter().map(|p| (p.offset, p.bytes)).collect();
        assert_eq!(lengths, [(0, 1 << 20), (1 << 20, 1 << 20), (2 << 20, 7)]);
    }
}
