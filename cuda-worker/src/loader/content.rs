//! The content's hash out of those of chunks. BLAKE3 is a tree over the file: chunks of a power of two
//! are its subtrees, hashed by whoever has them at hand, and joining them gives the very hash that
//! `b3sum` gives of the whole file.

use blake3::Hasher;
use blake3::hazmat::{
    ChainingValue, HasherExt as _, Mode, merge_subtrees_non_root, merge_subtrees_root,
};
use orcd_shared::weights::ContentHash;

/// Domain of hashes of split models, which are made of their files' hashes.
const SPLIT: &str = "worker-orcd 2026 hashes of the files of a split model, in order";

/// The hash of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChunkHash {
    /// Of a file that is one chunk: already the file's.
    Whole(ContentHash),
    /// To be joined with others.
    Part(ChainingValue),
}

/// Hashes the chunk at `offset` of a file; `whole`: there is no other.
pub(super) fn of_chunk(bytes: &[u8], offset: u64, whole: bool) -> ChunkHash {
    if whole {
        return ChunkHash::Whole(ContentHash(*blake3::hash(bytes).as_bytes()));
    }
    let mut hasher = Hasher::new();
    hasher.set_input_offset(offset).update(bytes);
    ChunkHash::Part(hasher.finalize_non_root())
}

/// Joins the hashes of a file's chunks, in order.
pub(super) fn of_file(chunks: &[ChunkHash]) -> ContentHash {
    match chunks {
        [] => ContentHash(*blake3::hash(&[]).as_bytes()),
        [ChunkHash::Whole(hash)] => *hash,
        _ => {
            let (left, right) = split(chunks);
            let root = merge_subtrees_root(&join(left), &join(right), Mode::Hash);
            ContentHash(*root.as_bytes())
        }
    }
}

/// The hash of a model of these files, in order.
pub(super) fn of_model(files: &[ContentHash]) -> ContentHash {
    match files {
        [file] => *file,
        _ => {
            let mut hasher = Hasher::new_derive_key(SPLIT);
            files.iter().for_each(|file| {
                hasher.update(&file.0);
            });
            ContentHash(*hasher.finalize().as_bytes())
        }
    }
}

fn join(chunks: &[ChunkHash]) -> ChainingValue {
    match chunks {
        [ChunkHash::Part(value)] => *value,
        [ChunkHash::Whole(_)] => unreachable!("a file of several chunks has no whole ones"),
        _ => {
            let (left, right) = split(chunks);
            merge_subtrees_non_root(&join(left), &join(right), Mode::Hash)
        }
    }
}

/// BLAKE3's tree: on the left the largest power of two that leaves something on the right.
fn split(chunks: &[ChunkHash]) -> (&[ChunkHash], &[ChunkHash]) {
    chunks.split_at(chunks.len().div_ceil(2).next_power_of_two())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_chunks(bytes: &[u8], size: usize) -> ContentHash {
        let hashes: Vec<_> = (bytes.chunks(size).enumerate())
            .map(|(n, chunk)| of_chunk(chunk, (n * size) as u64, bytes.len() <= size))
            .collect();
        of_file(&hashes)
    }

    #[test]
    fn chunks_give_the_hash_of_the_whole() {
        let bytes: Vec<u8> = (0..70_000_u32)
            .map(|i| (i.wrapping_mul(i) >> 5) as u8)
            .collect();
        for length in [
            0, 1, 1024, 1025, 4096, 4097, 8192, 12_288, 40_961, 65_536, 70_000,
        ] {
            let expected = ContentHash(*blake3::hash(&bytes[..length]).as_bytes());
            assert_eq!(in_chunks(&bytes[..length], 4096), expected, "{length}");
        }
    }

    #[test]
    fn split_models_are_told_apart_by_the_order_of_their_files() {
        let [a, b] = [b"a", b"b"].map(|x| in_chunks(x, 4096));
        assert_eq!(of_model(&[a]), a);
        assert_ne!(of_model(&[a, b]), of_model(&[b, a]));
        assert_ne!(of_model(&[a, b]), a);
    }
}
