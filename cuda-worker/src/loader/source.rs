//! What is to be read: the model's files in chunks, and the chunks' hashes as far as they are known.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{Builder, available_parallelism};

use orcd_shared::gguf::{GgufFile, Shard};
use orcd_shared::weights::{ContentHash, FileStamp};

use super::LoadError;
use super::chunks::{self, CHUNK_BYTES, LoadChunk};
use super::content::{self, ChunkHash};
use crate::weights_plan::{ModelPlan, PlannedTensor};

/// Together they hash some 14 GB/s. With twice as many the device's start takes longer by what loading gains.
const MOST_HASHERS: usize = 4;

/// A model's files as they are now, to be loaded as `plan` says.
#[derive(Debug)]
pub struct Source<'a> {
    pub(super) model: &'a GgufFile,
    pub(super) plan: &'a ModelPlan,
    pub(super) chunks: Vec<LoadChunk<'a>>,
    /// Of the files, in their order, before anything of them was read.
    pub(super) stamps: Vec<FileStamp>,
    /// By chunk; set by whoever had it in a cache first.
    hashes: Vec<OnceLock<ChunkHash>>,
}

impl<'a> Source<'a> {
    /// Reads nothing yet.
    ///
    /// # Errors
    /// A file can't be examined.
    pub fn of(model: &'a GgufFile, plan: &'a ModelPlan) -> Result<Self, LoadError> {
        let stamps = FileStamp::of_model(model)?;
        let lengths: Vec<_> = stamps.iter().map(|stamp| stamp.bytes).collect();
        let chunks = chunks::chunks(plan, &lengths, |tensor| start_of(model, tensor));
        let hashes = chunks.iter().map(|_| OnceLock::new()).collect();
        Ok(Self {
            model,
            plan,
            chunks,
            stamps,
            hashes,
        })
    }

    /// Hashes chunks from the first on until `meanwhile` has ended: a device takes longer to start
    /// than most files to hash, and leaves cores idle meanwhile. What is left is hashed while it is loaded;
    /// so is what can't be read now, and then it is told why.
    pub fn hash_during<T>(&self, meanwhile: impl FnOnce() -> T) -> T {
        let (next, over) = (AtomicUsize::new(0), AtomicBool::new(false));
        let cores = available_parallelism().map_or(1, usize::from);
        let hashers = (cores / 2).clamp(1, MOST_HASHERS).min(self.chunks.len());
        std::thread::scope(|scope| {
            for _ in 0..hashers {
                // Without it the others do more, or loading does.
                let _ = Builder::new().spawn_scoped(scope, || self.hash_ahead(&next, &over));
            }
            let done = meanwhile();
            over.store(true, Ordering::Relaxed);
            done
        })
    }

    fn hash_ahead(&self, next: &AtomicUsize, over: &AtomicBool) {
        let mut buffer = vec![0; CHUNK_BYTES as usize];
        while !over.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(chunk) = self.chunks.get(number) else {
                return;
            };
            let bytes = &mut buffer[..chunk.bytes];
            if self.file(chunk).read_exact_at(bytes, chunk.offset).is_ok() {
                self.note_hash(number, bytes);
            }
        }
    }

    /// Hashes chunk `number`, whose bytes these are, unless that was done before.
    pub(super) fn note_hash(&self, number: usize, bytes: &[u8]) {
        if let (Some(chunk), Some(hash)) = (self.chunks.get(number), self.hashes.get(number)) {
            hash.get_or_init(|| content::of_chunk(bytes, chunk.offset, chunk.whole));
        }
    }

    /// Whether every chunk is hashed.
    pub(super) fn is_hashed(&self) -> bool {
        self.hashes.iter().all(|hash| hash.get().is_some())
    }

    /// The file that a chunk is of.
    pub(super) fn file(&self, chunk: &LoadChunk<'_>) -> &File {
        // Chunks were cut from these files.
        self.model.shards()[chunk.file].file()
    }

    /// Where file number `file` lies.
    pub(super) fn path(&self, file: usize) -> PathBuf {
        let shard = self.model.shards().get(file);
        shard.map_or(self.model.path(), Shard::path).to_owned()
    }

    /// Where a tensor's data begins in its file.
    pub(super) fn offset(&self, tensor: &PlannedTensor) -> u64 {
        start_of(self.model, tensor).1
    }

    /// The hash of all content, once every chunk was read.
    pub(super) fn content_hash(&self) -> ContentHash {
        let of = |file: usize| {
            let of_file = (self.chunks.iter().zip(&self.hashes)).filter(|(p, _)| p.file == file);
            content::of_file(
                &of_file
                    .filter_map(|(_, hash)| hash.get().copied())
                    .collect::<Vec<_>>(),
            )
        };
        content::of_model(&(0..self.stamps.len()).map(of).collect::<Vec<_>>())
    }

    /// Nobody has written to the files since this was made.
    pub(super) fn is_steady(&self) -> io::Result<bool> {
        let now = FileStamp::of_model(self.model)?;
        let mut both = self.stamps.iter().zip(&now);
        Ok(both.all(|(before, now)| before.same_content_as(now)))
    }
}

/// Which file has a tensor's data, and where.
fn start_of(file: &GgufFile, tensor: &PlannedTensor) -> (usize, u64) {
    let shard = tensor.info.shard as usize;
    let range = file.shards().get(shard).map(|s| s.file_range(&tensor.info));
    // The plan's tensors are the file's.
    (shard, range.map_or(u64::MAX, |range| range.start))
}
