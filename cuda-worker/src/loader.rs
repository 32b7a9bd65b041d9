//! Weights from the file, or from the image that an earlier worker left.

mod chunks;
mod content;
mod meter;
mod readers;
mod sample;
mod soundness;
mod source;

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvError, TryRecvError};

use orcd_shared::gguf::GgufError;
use orcd_shared::protocol::message::LoadSource;
use orcd_shared::weights::{ContentHash, ModelIdentity, WeightsManifest};

use crate::engine::{Backend, Weights};
use crate::scheduler::step_engine::EngineError;
use crate::weights_plan::ModelPlan;
use meter::Meter;
use readers::{Filled, ReadResult, ReaderPool, Work};
pub use source::Source;

/// Why there are no weights.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// The file cannot be examined.
    #[error("the model file cannot be examined: {0}")]
    Examine(#[from] io::Error),
    /// The file cannot be read outside of its tensors.
    #[error("{}: {bytes} bytes at byte {offset} cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Where, from the start of the file.
        offset: u64,
        /// How many were wanted.
        bytes: usize,
        /// Why not.
        source: io::Error,
    },
    /// A value that makes a tensor useless.
    #[error(
        "{}: tensor {tensor} has a {what} of {value} at byte {offset} of the file: the file is \
         damaged, or its conversion was; get it again and compare its checksum",
        path.display()
    )]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// Its name.
        tensor: String,
        /// "value" or "block scale".
        what: &'static str,
        /// "NaN", "inf" or "-inf".
        value: &'static str,
        /// Where, from the start of the file.
        offset: u64,
    },
    /// A matrix without content.
    #[error(
        "{}: tensor {tensor}, {bytes} bytes from byte {offset} of the file, is zero throughout: its \
         download did not come to its end, or its conversion failed; get it again and compare its \
         checksum",
        path.display()
    )]
    Zero {
        /// The file.
        path: PathBuf,
        /// Its name.
        tensor: String,
        /// Where it begins, from the start of the file.
        offset: u64,
        /// Its size.
        bytes: u64,
    },
    /// Another model than the one that the service began with.
    #[error(
        "the file was written to since the service began: it held {expected} and holds {found} now; \
         restart the service to load it as it is now"
    )]
    Changed {
        /// What the service began with.
        expected: ContentHash,
        /// What the file holds.
        found: ContentHash,
    },
    /// The file did not stand still.
    #[error("the file was written to while it was read; load it when it is whole")]
    Unsteady,
    /// There is no thread to read with.
    #[error("no thread can be started to read the model file: {0}")]
    Thread(io::Error),
    /// The backend has no memory for the image, or failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// A sealed image and where it came from.
#[derive(Debug)]
pub struct Loaded {
    /// The image.
    pub weights: Weights,
    /// File or handle.
    pub source: LoadSource,
    /// Identity of the image, for the next worker.
    pub manifest: WeightsManifest,
}

/// An image that an earlier worker left, and that may be taken: it is of the file's content, and of
/// this backend's layout.
#[derive(Debug)]
pub struct RetainedWeights {
    fd: OwnedFd,
    /// With the file's stamps as they are now.
    manifest: WeightsManifest,
}

/// Decides whether the image of `fd`, which is what `manifest` says, may be taken. A file whose
/// stamp has changed is read and hashed, no more: it may only have been touched, and there may be no
/// memory for two images. `expected`: what the service began with. `alive` is called now and then
/// while the file is read.
///
/// # Errors
/// The file cannot be read, or holds another model than `expected`.
pub fn examine(
    backend: &Backend,
    source: &Source<'_>,
    (manifest, fd): (&WeightsManifest, OwnedFd),
    expected: Option<ContentHash>,
    alive: impl FnMut(),
) -> Result<Option<RetainedWeights>, LoadError> {
    let of_this_layout = manifest.layout_version == layout_version(backend, source.plan)
        && manifest.backend == backend.name()
        && manifest.image_bytes == source.plan.image_bytes;
    if !of_this_layout {
        return Ok(None);
    }
    if source.stamps != manifest.model.stamps {
        let found = hash(source, alive)?;
        check_expected(expected, found)?;
        if found != manifest.model.hash {
            return Ok(None);
        }
    }
    let mut manifest = manifest.clone();
    manifest.model.stamps.clone_from(&source.stamps);
    Ok(Some(RetainedWeights { fd, manifest }))
}

/// Takes the image that is retained, if it is what its manifest says; otherwise reads the file.
/// `expected`: what the service began with. `progress` is called with rising percentages, 0 and 100
/// among them.
///
/// # Errors
/// The file cannot be read, or holds another model, or one that can't be right, or there is no memory.
/// A retained image that doesn't fit is no error.
pub fn attach_or_load(
    backend: &Backend,
    source: &Source<'_>,
    retained: Option<RetainedWeights>,
    expected: Option<ContentHash>,
    mut progress: impl FnMut(u8),
) -> Result<Loaded, LoadError> {
    let plan = source.plan;
    if let Some(RetainedWeights { fd, manifest }) = retained
        && expected.is_none_or(|expected| expected == manifest.model.hash)
        && let Ok(weights) = backend.attach(fd, plan.image_bytes)
        && sample::checksum(&weights, plan) == Ok(manifest.sample_checksum)
    {
        [0, 25, 50, 75, 100].into_iter().for_each(progress);
        return Ok(Loaded {
            weights,
            source: LoadSource::Handle,
            manifest,
        });
    }
    let (weights, model) = load(backend, source, &mut progress)?;
    check_expected(expected, model.hash)?;
    let manifest = WeightsManifest {
        model,
        layout_version: layout_version(backend, plan),
        backend: backend.name().to_owned(),
        image_bytes: plan.image_bytes,
        sample_checksum: sample::checksum(&weights, plan)?,
    };
    Ok(Loaded {
        weights,
        source: LoadSource::File,
        manifest,
    })
}

/// The version of an image's layout: how this backend packs each type, and where the plan puts each
/// tensor.
fn layout_version(backend: &Backend, plan: &ModelPlan) -> u32 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&backend.layout_version().to_le_bytes());
    for tensor in &plan.tensors {
        let name = tensor.info.name.as_bytes();
        let numbers = [
            name.len() as u64,
            tensor.offset,
            tensor.rows,
            tensor.first_row,
            tensor.cols,
            tensor.info.ty.id().into(),
        ];
        hasher.update(name);
        for number in numbers {
            hasher.update(&number.to_le_bytes());
        }
    }
    let mut version = [0; 4];
    version.copy_from_slice(&hasher.finalize().as_bytes()[..4]);
    u32::from_le_bytes(version)
}

fn check_expected(expected: Option<ContentHash>, found: ContentHash) -> Result<(), LoadError> {
    match expected {
        Some(expected) if expected != found => Err(LoadError::Changed { expected, found }),
        _ => Ok(()),
    }
}

/// Reads every tensor into a new image and seals it. Says what the file was meanwhile.
///
/// # Errors
/// The file cannot be read, or can't be right, or there is no memory.
pub fn load(
    backend: &Backend,
    source: &Source<'_>,
    mut progress: impl FnMut(u8),
) -> Result<(Weights, ModelIdentity), LoadError> {
    progress(0);
    let mut weights = backend.allocate(source.plan.image_bytes)?;
    let work = Work::new(source);
    let pool = ReaderPool::of(source);
    let mut staging = backend.staging(pool.staging_bytes())?;
    let mut meter = Meter::new(source.stamps.iter().map(|stamp| stamp.bytes).sum());
    std::thread::scope(|scope| {
        let filled = readers::start(scope, pool, &work, staging.bytes());
        let filled = filled.map_err(LoadError::Thread)?;
        pass_on(filled, &work, Some(&mut weights), |bytes| {
            meter.advance(bytes).for_each(&mut progress);
        })
    })?;
    check_matrices(&work)?;
    if !source.is_steady()? {
        return Err(LoadError::Unsteady);
    }
    weights.seal()?;
    progress(100);
    let model = ModelIdentity {
        hash: source.content_hash(),
        stamps: source.stamps.clone(),
    };
    Ok((weights, model))
}

/// The hash of the file's content, read for its sake alone. `alive` is called a hundred times meanwhile.
///
/// # Errors
/// The file cannot be read.
pub fn hash(source: &Source<'_>, mut alive: impl FnMut()) -> Result<ContentHash, LoadError> {
    let work = Work::new(source);
    let mut meter = Meter::new(source.chunks.iter().map(|chunk| chunk.bytes as u64).sum());
    let pool = ReaderPool::of(source);
    let mut staging = vec![0; pool.staging_bytes()];
    std::thread::scope(|scope| {
        let filled = readers::start(scope, pool, &work, &mut staging);
        let filled = filled.map_err(LoadError::Thread)?;
        pass_on(filled, &work, None, |bytes| {
            meter.advance(bytes).for_each(|_| alive())
        })
    })?;
    Ok(source.content_hash())
}

/// A matrix has something beside zeros.
fn check_matrices(work: &Work<'_>) -> Result<(), LoadError> {
    let source = work.source;
    for (index, tensor) in source.plan.tensors.iter().enumerate() {
        if tensor.rows > 1 && tensor.cols > 1 && work.is_zero(index) {
            return Err(LoadError::Zero {
                path: source.path(tensor.info.shard as usize),
                tensor: tensor.info.name.clone(),
                offset: source.offset(tensor),
                bytes: tensor.info.nbytes,
            });
        }
    }
    Ok(())
}

/// Writes what was read into the image, if there is one, and lets buffers go once the device has their
/// bytes. Waits for the device only when there is nothing to write.
///
/// Of several faults in the file it is always the first that is told: chunks are begun in order, and
/// those that were begun are waited for.
fn pass_on(
    filled: Receiver<ReadResult<'_, '_>>,
    work: &Work<'_>,
    mut weights: Option<&mut Weights>,
    mut done: impl FnMut(u64),
) -> Result<(), LoadError> {
    let mut on_their_way = VecDeque::new();
    loop {
        let said = match filled.try_recv() {
            Ok(said) => said,
            // Readers end only with the last chunk, or with an error that was returned.
            Err(TryRecvError::Disconnected) => return Ok(()),
            Err(TryRecvError::Empty) => {
                if let Some((ticket, chunk)) = on_their_way.pop_front() {
                    if let (Some(weights), Some(ticket)) = (&mut weights, ticket) {
                        weights.wait(ticket)?;
                    }
                    drop(chunk);
                    continue;
                }
                match filled.recv() {
                    Ok(said) => said,
                    Err(RecvError) => return Ok(()),
                }
            }
        };
        let chunk = match said {
            Ok(chunk) => chunk,
            Err(first) => {
                work.stop();
                drop(on_their_way);
                return Err(first_fault(filled, first));
            }
        };
        let mut ticket = None;
        if let Some(weights) = &mut weights {
            for rows in &chunk.chunk.rows {
                ticket = Some(weights.write(rows.tensor, rows.first_row, chunk.bytes(rows))?);
            }
        }
        done(chunk.chunk.bytes as u64);
        on_their_way.push_back((ticket, chunk));
    }
}

/// The fault of the first chunk that has one.
fn first_fault(filled: Receiver<ReadResult<'_, '_>>, first: (usize, LoadError)) -> LoadError {
    let others = filled
        .iter()
        .filter_map(|said: Result<Filled<'_, '_>, _>| said.err());
    let first = others.fold(first, |a, b| if b.0 < a.0 { b } else { a });
    first.1
}
