//! Weights from the file, or from the image that an earlier worker left.

mod meter;
mod pieces;
mod readers;

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{Receiver, RecvError, TryRecvError};

use orcd_shared::gguf::{GgufError, GgufFile};
use orcd_shared::protocol::message::LoadSource;
use orcd_shared::weights::{ModelIdentity, WeightsManifest};

use crate::engine::{Backend, Weights};
use crate::scheduler::step_engine::EngineError;
use crate::weights_plan::ModelPlan;
use meter::Meter;
use pieces::Piece;
use readers::{Crew, Filled};

/// Why there are no weights.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// The file's size and time cannot be found out.
    #[error("the model file cannot be examined: {0}")]
    Examine(#[from] io::Error),
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

/// What an image of this file must say of itself.
///
/// # Errors
/// The file cannot be examined.
pub fn manifest(
    backend: &Backend,
    file: &GgufFile,
    plan: &ModelPlan,
) -> Result<WeightsManifest, LoadError> {
    Ok(WeightsManifest {
        model: ModelIdentity::of(file)?,
        layout_version: backend.layout_version(),
        backend: backend.name().to_owned(),
        image_bytes: plan.image_bytes,
    })
}

/// Takes the image that is held, if it is of this very file, backend and layout; otherwise reads the
/// file. `progress` is called with rising percentages, 0 and 100 among them.
///
/// # Errors
/// The file cannot be read, or there is no memory. A held image that doesn't fit is no error.
pub fn attach_or_load(
    backend: &Backend,
    file: &GgufFile,
    plan: &ModelPlan,
    held: Option<(&WeightsManifest, OwnedFd)>,
    mut progress: impl FnMut(u8),
) -> Result<Loaded, LoadError> {
    let manifest = manifest(backend, file, plan)?;
    if let Some((theirs, fd)) = held
        && *theirs == manifest
        && let Ok(weights) = backend.attach(fd, plan.image_bytes)
    {
        [0, 25, 50, 75, 100].into_iter().for_each(progress);
        return Ok(Loaded {
            weights,
            source: LoadSource::Handle,
            manifest,
        });
    }
    let weights = load(backend, file, plan, &mut progress)?;
    Ok(Loaded {
        weights,
        source: LoadSource::File,
        manifest,
    })
}

/// Reads every tensor into a new image and seals it.
///
/// # Errors
/// The file cannot be read, or there is no memory.
pub fn load(
    backend: &Backend,
    file: &GgufFile,
    plan: &ModelPlan,
    mut progress: impl FnMut(u8),
) -> Result<Weights, LoadError> {
    progress(0);
    let mut weights = backend.allocate(plan.image_bytes)?;
    let pieces = pieces::pieces(plan);
    let crew = Crew::for_pieces(&pieces);
    let mut staging = backend.staging(crew.staging_bytes())?;
    let mut meter = Meter::new(pieces.iter().map(Piece::bytes).sum());
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let filled = readers::start(scope, crew, file, &pieces, &next, staging.bytes());
        let filled = filled.map_err(LoadError::Thread)?;
        pass_on(filled, &mut weights, |bytes| {
            meter.advance(bytes).for_each(&mut progress);
        })
    })?;
    weights.seal()?;
    progress(100);
    Ok(weights)
}

/// Writes what was read into the image, and lets buffers go once the device has their bytes. Waits
/// for the device only when there is nothing to write.
fn pass_on(
    filled: Receiver<Result<Filled<'_, '_>, GgufError>>,
    weights: &mut Weights,
    mut done: impl FnMut(u64),
) -> Result<(), LoadError> {
    let mut on_their_way = VecDeque::new();
    loop {
        let piece = match filled.try_recv() {
            Ok(piece) => piece?,
            Err(TryRecvError::Disconnected) => break,
            Err(TryRecvError::Empty) => {
                if let Some((ticket, piece)) = on_their_way.pop_front() {
                    weights.wait(ticket)?;
                    drop(piece);
                    continue;
                }
                match filled.recv() {
                    Ok(piece) => piece?,
                    Err(RecvError) => break,
                }
            }
        };
        let ticket = weights.write(piece.piece.tensor, piece.piece.first_row, piece.bytes())?;
        done(piece.piece.bytes());
        on_their_way.push_back((ticket, piece));
    }
    Ok(())
}
