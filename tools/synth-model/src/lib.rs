//! Writes GGUF files of a named [`Shape`] with random weights that behave: activations stay near
//! one through every layer, attention is neither flat nor one-hot, logits have a standard deviation
//! of about 2.5. The weights are made directly in the block formats, so no quantizer is needed.
//!
//! The bytes are a function of shape, vocabulary, template and seed alone: the same on any machine
//! and with any number of threads.

mod blocks;
mod builtin;
mod families;
mod features;
mod fill;
mod metadata;
mod plan;
mod rng;
mod separate;
mod shape;
mod split;
mod vocab;
mod writer;

use std::path::{Path, PathBuf};

use orcd_shared::gguf::{GgufError, GgufFile, Metadata, TensorInfo};

pub use features::{Experts, Features, Scales, Stretch};
pub use separate::separate_experts;
pub use shape::{Mix, Shape};
pub use vocab::Vocab;
pub use writer::Written;

/// All bytes of a tensor, as the file has them: for tests on models that were written here.
///
/// # Errors
/// The file cannot be read.
pub fn tensor_data(file: &GgufFile, tensor: &TensorInfo) -> Result<Vec<u8>, GgufError> {
    let mut data = vec![0; usize::try_from(tensor.nbytes).unwrap_or(usize::MAX)];
    file.read_exact_at(tensor, 0, &mut data)?;
    Ok(data)
}

/// What a file gets besides its shape.
#[derive(Clone, Debug)]
pub struct Options {
    /// The vocabulary; `None` for the built-in one of the shape's size.
    pub vocab: Option<Vocab>,
    /// The chat template; `None` for the vocabulary's own, if it has one.
    pub template: Option<String>,
    /// What the weights follow from.
    pub seed: u64,
    /// Threads to use; 0 for one per core.
    pub threads: usize,
    /// Files to spread the tensors over, named as `gguf-split` names them; 1 for a single one.
    pub shards: u32,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            vocab: None,
            template: None,
            seed: 1,
            threads: 0,
            shards: 1,
        }
    }
}

/// Why a file could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SynthError {
    /// A vocabulary of another size than the shape needs.
    #[error("shape {shape} needs a vocabulary of {wanted} tokens, the one given has {found}")]
    VocabSize {
        /// The shape's name.
        shape: String,
        /// Tokens needed.
        wanted: usize,
        /// Tokens found.
        found: usize,
    },
    /// A built-in vocabulary smaller than its 256 bytes, merges and special tokens.
    #[error("the built-in vocabulary needs at least {least} tokens, the shape has {wanted}")]
    VocabTooSmall {
        /// Tokens needed.
        least: usize,
        /// Tokens the shape has.
        wanted: usize,
    },
    /// A vocabulary that could not be read, or a layout that isn't possible.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// More files than tensors, or than a reader takes.
    #[error(
        "{shards} shards are too many: the shape has {tensors} tensors, and {most} is the most"
    )]
    TooManyShards {
        /// Files asked for.
        shards: u32,
        /// Tensors to spread.
        tensors: usize,
        /// Most files of any model.
        most: u32,
    },
    /// The file could not be written.
    #[error("{path}: cannot write: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
}

/// Writes a file of `shape` to `path`, which it replaces when the new one is complete. With several
/// shards, to `path` with their numbers after its stem.
///
/// # Errors
/// A vocabulary of the wrong size, a type whose blocks don't fit the shape's rows, too many shards,
/// and I/O errors.
pub fn write(shape: &Shape, options: &Options, path: &Path) -> Result<Written, SynthError> {
    let (metadata, tensors) = planned(shape, options)?;
    match options.shards {
        0 | 1 => writer::write(&metadata, &tensors, options, path),
        _ => split::write(&metadata, &tensors, options, path),
    }
}

/// Writes a file of `shape` without its weights, which are a hole: a file of any size that takes the room of its
/// header, for tests of what reads no weights. Seed, threads and shards are for nothing.
///
/// # Errors
/// As [`write()`].
pub fn outline(shape: &Shape, options: &Options, path: &Path) -> Result<(), SynthError> {
    let (metadata, tensors) = planned(shape, options)?;
    writer::outline(&metadata, &tensors, path)
}

/// All keys and all tensors.
fn planned(shape: &Shape, options: &Options) -> Result<(Metadata, Vec<plan::Planned>), SynthError> {
    let mut vocab = match &options.vocab {
        Some(vocab) => vocab.clone(),
        None => Vocab::builtin(shape)?,
    };
    vocab.adapt(shape)?;
    let metadata = metadata::metadata(shape, &vocab, options.template.as_deref())?;
    Ok((metadata, plan::plan(shape, &vocab)))
}
