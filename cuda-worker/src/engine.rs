//! The C++ engine as safe Rust: a backend makes weights images, an image and a plan make an engine.
//! None of the types is `Send`: they live and die on the engine thread.

use std::os::fd::OwnedFd;

use cxx::UniquePtr;

pub use crate::ffi::types::shared::EngineOptions;
use crate::ffi::types::shared::{ErrorKind, TensorDesc};
use crate::ffi::{self, bridge};
use crate::scheduler::step_engine::{EngineError, Sampled, StepBatch, StepEngine, TokenLogprob};
use crate::weights_plan::{ModelPlan, PlannedTensor};

/// A device that engines run on.
pub struct Backend {
    inner: UniquePtr<bridge::Backend>,
}

/// What a device says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// For people: "NVIDIA H100 80GB HBM3", "cpu (2 threads, avx512-vnni)".
    pub name: String,
    /// CUDA compute capability; `None` on the CPU.
    pub compute: Option<String>,
    /// CUDA runtime version; `None` on the CPU.
    pub runtime_version: Option<String>,
    /// Memory in all, bytes.
    pub memory_total: u64,
    /// Memory not taken now, bytes.
    pub memory_free: u64,
}

/// The weights image, being written or sealed.
pub struct Weights {
    inner: UniquePtr<bridge::Weights>,
}

/// Host memory that the device copies from at its full speed.
pub struct Staging {
    inner: UniquePtr<bridge::Staging>,
}

/// A write whose source may still be read, see [`Weights::write`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// Sequences in slots, moved on together.
pub struct Engine {
    /// Reads the weights: dropped before them.
    inner: UniquePtr<bridge::Engine>,
    weights: Weights,
    /// Tokens in the vocabulary.
    vocab: usize,
    /// What came of the last step.
    sampled: Vec<Sampled>,
}

const NOTHING_SAMPLED: Sampled = Sampled {
    token: 0,
    logprob: 0.0,
    top: [TokenLogprob {
        token: 0,
        logprob: 0.0,
    }; 20],
};

fn error_of(exception: cxx::Exception) -> EngineError {
    let message = exception.what().to_owned();
    match bridge::error_kind() {
        ErrorKind::Invalid => EngineError::Invalid(message),
        ErrorKind::OutOfMemory => EngineError::OutOfMemory(message),
        ErrorKind::Abandoned => EngineError::Abandoned,
        _ => EngineError::Device(message),
    }
}

fn descs(plan: &ModelPlan) -> Vec<TensorDesc> {
    let first_parts = plan.tensors.iter().filter(|tensor| tensor.first_row == 0);
    first_parts.map(PlannedTensor::desc).collect()
}

/// "9.0" of 90, nothing of 0.
fn version(tenths: u32) -> Option<String> {
    (tenths > 0).then(|| format!("{}.{}", tenths / 10, tenths % 10))
}

impl Backend {
    /// The processor.
    ///
    /// # Errors
    /// It lacks an instruction that the arithmetic needs.
    pub fn cpu() -> Result<Self, EngineError> {
        Ok(Self {
            inner: bridge::cpu_backend().map_err(error_of)?,
        })
    }

    /// A GPU by its ordinal.
    ///
    /// # Errors
    /// There is none, no driver, or this build has no CUDA.
    pub fn cuda(ordinal: u32) -> Result<Self, EngineError> {
        Ok(Self {
            inner: bridge::cuda_backend(ordinal).map_err(error_of)?,
        })
    }

    /// "cpu" or "cuda".
    #[must_use]
    pub fn name(&self) -> &str {
        bridge::name(&self.inner)
    }

    /// Of the packing of weights images.
    #[must_use]
    pub fn layout_version(&self) -> u32 {
        self.inner.layout_version()
    }

    /// What the device says of itself.
    ///
    /// # Errors
    /// The device is lost.
    pub fn info(&self) -> Result<DeviceInfo, EngineError> {
        let info = self.inner.info().map_err(error_of)?;
        Ok(DeviceInfo {
            name: bridge::device_name(&self.inner).map_err(error_of)?,
            compute: version(info.compute),
            runtime_version: version(info.runtime_version),
            memory_total: info.memory_total,
            memory_free: info.memory_free,
        })
    }

    /// Bytes that weights, KV cache and scratch will take.
    ///
    /// # Errors
    /// Sizes out of bounds.
    pub fn required_bytes(
        &self,
        plan: &ModelPlan,
        options: &EngineOptions,
    ) -> Result<u64, EngineError> {
        let tensors = descs(plan);
        bridge::required_bytes(
            &self.inner,
            &plan.shape,
            &tensors,
            plan.image_bytes,
            options,
        )
        .map_err(error_of)
    }

    /// Host memory to load through.
    ///
    /// # Errors
    /// There is not enough memory that the device can copy from.
    pub fn staging(&self, bytes: usize) -> Result<Staging, EngineError> {
        Ok(Staging {
            inner: bridge::staging(&self.inner, bytes).map_err(error_of)?,
        })
    }

    /// An empty image to write.
    ///
    /// # Errors
    /// There is not enough memory.
    pub fn allocate(&self, image_bytes: u64) -> Result<Weights, EngineError> {
        Ok(Weights {
            inner: bridge::allocate(&self.inner, image_bytes).map_err(error_of)?,
        })
    }

    /// The sealed image behind `fd`.
    ///
    /// # Errors
    /// It isn't one, or not of this size.
    pub fn attach(&self, fd: OwnedFd, image_bytes: u64) -> Result<Weights, EngineError> {
        let attached = ffi::attach(&self.inner, fd, image_bytes);
        Ok(Weights {
            inner: attached.map_err(error_of)?,
        })
    }

    /// An engine on a sealed image.
    ///
    /// # Errors
    /// Plan and image don't fit, options out of bounds, or too little memory.
    pub fn engine(
        &self,
        plan: &ModelPlan,
        weights: Weights,
        options: &EngineOptions,
    ) -> Result<Engine, EngineError> {
        let tensors = descs(plan);
        let inner = bridge::engine(&self.inner, &plan.shape, &tensors, &weights.inner, options);
        Ok(Engine {
            inner: inner.map_err(error_of)?,
            weights,
            // Lossless: there are 64 bits.
            vocab: plan.shape.vocab as usize,
            sampled: Vec::new(),
        })
    }
}

impl Staging {
    /// All of it.
    pub fn bytes(&mut self) -> &mut [u8] {
        bridge::bytes(self.inner.pin_mut())
    }
}

impl Weights {
    /// Writes whole rows of the matrix of `tensor` as the file has them, from its row `first_row` on. If `raw` lies in
    /// [`Staging`], it has to stay as it is until [`Weights::wait`] has returned for the ticket.
    ///
    /// # Errors
    /// Rows that are not there, or an image that is sealed.
    pub fn write(
        &mut self,
        tensor: &PlannedTensor,
        first_row: u64,
        raw: &[u8],
    ) -> Result<Ticket, EngineError> {
        let written = bridge::write(self.inner.pin_mut(), &tensor.desc(), first_row, raw);
        written.map(Ticket).map_err(error_of)
    }

    /// Waits until the source of this write and of all before it may be used again.
    ///
    /// # Errors
    /// The device failed.
    pub fn wait(&mut self, ticket: Ticket) -> Result<(), EngineError> {
        self.inner.pin_mut().wait(ticket.0).map_err(error_of)
    }

    /// Reads rows of the matrix of `tensor` back as the file has them.
    ///
    /// # Errors
    /// Rows that are not there.
    pub fn read(
        &self,
        tensor: &PlannedTensor,
        first_row: u64,
        raw: &mut [u8],
    ) -> Result<(), EngineError> {
        bridge::read(&self.inner, &tensor.desc(), first_row, raw).map_err(error_of)
    }

    /// Ends writing: from now on the image is read-only to every process.
    ///
    /// # Errors
    /// The system refused.
    pub fn seal(&mut self) -> Result<(), EngineError> {
        self.inner.pin_mut().seal().map_err(error_of)
    }

    /// A descriptor of the image, for another process.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn share(&self) -> Result<OwnedFd, EngineError> {
        ffi::share(&self.inner).map_err(error_of)
    }

    /// Size of the image.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.inner.image_bytes()
    }
}

impl Engine {
    /// Opens `to` with the tokens of `from`, for `max_tokens` positions in all. They share the memory of what they
    /// have in common.
    ///
    /// # Errors
    /// `OutOfMemory`, if no page is left for a copy of the last one, leaves everything as it was; `Invalid` if `from` is
    /// not open, `to` is, or `from` is longer than `max_tokens`.
    pub fn fork(&mut self, from: u32, to: u32, max_tokens: u32) -> Result<(), EngineError> {
        let inner = self.inner.pin_mut();
        inner.fork(from, to, max_tokens).map_err(error_of)
    }

    /// Logits (vocabulary) that sample number `sample` of the last step was made of, before anything changed
    /// them, copied from the device.
    ///
    /// # Errors
    /// There was no such sample, or the device failed.
    pub fn logits(&self, sample: usize) -> Result<Vec<f32>, EngineError> {
        let mut logits = vec![0.0; self.vocab];
        let sample = u32::try_from(sample).unwrap_or(u32::MAX);
        bridge::logits(&self.inner, sample, &mut logits).map_err(error_of)?;
        Ok(logits)
    }

    /// Bytes of weights, KV cache and scratch.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.inner.memory_bytes()
    }

    /// A descriptor of the weights image, for the process that keeps it.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn share_weights(&self) -> Result<OwnedFd, EngineError> {
        self.weights.share()
    }
}

impl StepEngine for Engine {
    fn open(&mut self, slot: u32, max_tokens: u32) -> Result<(), EngineError> {
        self.inner
            .pin_mut()
            .open(slot, max_tokens)
            .map_err(error_of)
    }

    fn close(&mut self, slot: u32) -> Result<(), EngineError> {
        self.inner.pin_mut().close(slot).map_err(error_of)
    }

    fn begin(&mut self, batch: &StepBatch) -> Result<(), EngineError> {
        let inner = self.inner.pin_mut();
        let (samples, biases) = (&batch.samples, &batch.biases);
        bridge::begin(inner, &batch.tokens, &batch.runs, samples, biases).map_err(error_of)
    }

    fn finish(&mut self, batch: &StepBatch) -> Result<&[Sampled], EngineError> {
        // What is there from the step before is cleared on the other side.
        self.sampled.resize(batch.samples.len(), NOTHING_SAMPLED);
        let inner = self.inner.pin_mut();
        bridge::finish(inner, &batch.masks, &mut self.sampled).map_err(error_of)?;
        Ok(&self.sampled)
    }

    fn used_pages(&self) -> u32 {
        self.inner.used_pages()
    }

    fn resident(&self) -> bool {
        self.inner.resident()
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("memory_bytes", &self.memory_bytes())
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Staging {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Staging").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Weights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Weights")
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backend")
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}
