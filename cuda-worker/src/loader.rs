//! Weights from the file, or from the image that an earlier worker left.

use std::io;
use std::os::fd::OwnedFd;

use orcd_shared::gguf::{GgufError, GgufFile};
use orcd_shared::protocol::message::LoadSource;
use orcd_shared::weights::{ModelIdentity, WeightsManifest};

use crate::engine::{Backend, Weights};
use crate::scheduler::step_engine::EngineError;
use crate::weights_plan::{ModelPlan, PlannedTensor};

/// Most bytes read from the file at once, unless a row is longer.
const READ_BYTES: u64 = 4 << 20;

/// Why there are no weights.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// The file's size and time cannot be found out.
    #[error("the model file cannot be examined: {0}")]
    Examine(#[from] io::Error),
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
    let mut weights = backend.allocate(plan.image_bytes)?;
    let mut meter = Meter::new(plan.tensors.iter().map(|t| t.info.nbytes).sum());
    let mut buffer = Vec::new();
    progress(0);
    for tensor in &plan.tensors {
        load_tensor(file, tensor, &mut weights, &mut buffer, |bytes| {
            meter.advance(bytes).for_each(&mut progress);
        })?;
    }
    weights.seal()?;
    progress(100);
    Ok(weights)
}

fn load_tensor(
    file: &GgufFile,
    tensor: &PlannedTensor,
    weights: &mut Weights,
    buffer: &mut Vec<u8>,
    mut done: impl FnMut(u64),
) -> Result<(), LoadError> {
    let row_bytes = tensor.info.nbytes / tensor.rows;
    let rows_at_once = (READ_BYTES / row_bytes).max(1);
    let mut row = 0;
    while row < tensor.rows {
        let rows = rows_at_once.min(tensor.rows - row);
        let bytes = usize::try_from(rows * row_bytes).map_err(io::Error::other)?;
        buffer.resize(bytes, 0);
        file.read_exact_at(&tensor.info, row * row_bytes, buffer)?;
        weights.write(tensor, row, buffer)?;
        done(bytes as u64);
        row += rows;
    }
    Ok(())
}

/// Turns bytes into percentages, each told once. 100 is left to the caller: sealing comes first.
struct Meter {
    total: u64,
    done: u64,
    told: u8,
}

impl Meter {
    fn new(total: u64) -> Self {
        Self {
            total: total.max(1),
            done: 0,
            told: 0,
        }
    }

    /// The percentages passed by these bytes.
    fn advance(&mut self, bytes: u64) -> std::ops::RangeInclusive<u8> {
        self.done += bytes;
        // At most 99, so it fits.
        let percent = (u128::from(self.done) * 100 / u128::from(self.total)).min(99) as u8;
        let passed = self.told + 1..=percent;
        self.told = percent;
        passed
    }
}
