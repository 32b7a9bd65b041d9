//! The C++ engine as safe Rust: a backend makes weights images, an image and a plan make an engine.
//! None of the types is `Send`: they live and die on the engine thread.

use std::os::fd::OwnedFd;

use cxx::UniquePtr;

use crate::ffi::bridge;
use crate::scheduler::step_engine::{Chunk, EngineError, StepEngine};
use crate::weights_plan::{ModelPlan, PlannedTensor};

/// A device that engines run on.
pub struct Backend {
    inner: UniquePtr<bridge::DeviceBackend>,
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

/// Sizes and switches of an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineOptions {
    /// Sequences that may be open at once.
    pub slots: u32,
    /// Tokens per sequence.
    pub context: u32,
    /// Most tokens in one step, all chunks together.
    pub max_batch_tokens: u32,
    /// CPU threads of a step; 0 is one per core.
    pub threads: u32,
    /// KV positions in all; 0 is `slots * context`.
    pub kv_limit_tokens: u64,
    /// Debug, CPU only: quantised weights times activations that are not quantised.
    pub float_activations: bool,
}

/// The weights image, being written or sealed.
pub struct Weights {
    inner: UniquePtr<bridge::WeightsImage>,
}

/// Host memory that the device copies from at its full speed.
pub struct Staging {
    inner: UniquePtr<bridge::StagingMemory>,
}

/// A write whose source may still be read, see [`Weights::write`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// Sequences in slots, moved on together.
pub struct Engine {
    inner: UniquePtr<bridge::RunningEngine>,
    /// Of the current step; kept for its memory.
    chunks: Vec<bridge::StepChunk>,
    /// Tokens of those chunks, one after the other.
    tokens: Vec<u32>,
    /// Tokens in the vocabulary.
    vocab: usize,
}

/// The kind of a C++ error stands before its message, see `bridge.h`.
fn error_of(exception: cxx::Exception) -> EngineError {
    let what = exception.what();
    let message = || what.get(1..).unwrap_or_default().to_owned();
    match what.as_bytes().first() {
        Some(b'0') => EngineError::Invalid(message()),
        Some(b'1') => EngineError::OutOfMemory(message()),
        Some(b'3') => EngineError::Abandoned,
        _ => EngineError::Device(message()),
    }
}

fn raw_tensor(tensor: &PlannedTensor) -> bridge::Tensor {
    bridge::Tensor {
        role: tensor.role as u32,
        layer: tensor.layer,
        ty: tensor.info.ty.id(),
        rows: tensor.rows,
        cols: tensor.cols,
        offset: tensor.offset,
        bytes: tensor.info.nbytes,
    }
}

fn raw_tensors(plan: &ModelPlan) -> Vec<bridge::Tensor> {
    plan.tensors.iter().map(raw_tensor).collect()
}

fn raw_shape(plan: &ModelPlan) -> bridge::Shape {
    let shape = &plan.shape;
    bridge::Shape {
        n_layers: shape.n_layers,
        d_model: shape.d_model,
        d_ff: shape.d_ff,
        n_heads: shape.n_heads,
        n_kv_heads: shape.n_kv_heads,
        head_dim: shape.head_dim,
        vocab: shape.vocab,
        interleaved: shape.rope_interleaved,
        rope_base: shape.rope_base,
        rms_eps: shape.rms_eps,
    }
}

fn raw_options(options: &EngineOptions) -> bridge::Options {
    bridge::Options {
        slots: options.slots,
        context: options.context,
        max_batch_tokens: options.max_batch_tokens,
        threads: options.threads,
        kv_limit_tokens: options.kv_limit_tokens,
        float_activations: options.float_activations,
    }
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
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
        self.inner.name()
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
            name: info.name,
            compute: some(info.compute),
            runtime_version: some(info.runtime_version),
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
        let (shape, tensors) = (raw_shape(plan), raw_tensors(plan));
        let options = raw_options(options);
        self.inner
            .required_bytes(&shape, &tensors, plan.image_bytes, &options)
            .map_err(error_of)
    }

    /// Host memory to load through.
    ///
    /// # Errors
    /// There is not enough memory that the device can copy from.
    pub fn staging(&self, bytes: usize) -> Result<Staging, EngineError> {
        Ok(Staging {
            inner: self.inner.staging(bytes).map_err(error_of)?,
        })
    }

    /// An empty image to write.
    ///
    /// # Errors
    /// There is not enough memory.
    pub fn allocate(&self, image_bytes: u64) -> Result<Weights, EngineError> {
        Ok(Weights {
            inner: self.inner.allocate(image_bytes).map_err(error_of)?,
        })
    }

    /// The sealed image behind `fd`.
    ///
    /// # Errors
    /// It isn't one, or not of this size.
    pub fn attach(&self, fd: OwnedFd, image_bytes: u64) -> Result<Weights, EngineError> {
        let attached = self.inner.attach(fd, image_bytes);
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
        let (shape, tensors) = (raw_shape(plan), raw_tensors(plan));
        let inner = self
            .inner
            .engine(&shape, &tensors, weights.inner, &raw_options(options))
            .map_err(error_of)?;
        Ok(Engine {
            inner,
            chunks: Vec::new(),
            tokens: Vec::new(),
            // Lossless: there are 64 bits.
            vocab: plan.shape.vocab as usize,
        })
    }
}

impl Staging {
    /// All of it.
    pub fn bytes(&mut self) -> &mut [u8] {
        self.inner.pin_mut().bytes()
    }
}

impl Weights {
    /// Writes whole rows of `tensor` as the file has them, from row `first_row` on. If `raw` lies in
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
        let written = self
            .inner
            .pin_mut()
            .write(&raw_tensor(tensor), first_row, raw);
        written.map(Ticket).map_err(error_of)
    }

    /// Waits until the source of this write and of all before it may be used again.
    ///
    /// # Errors
    /// The device failed.
    pub fn wait(&mut self, ticket: Ticket) -> Result<(), EngineError> {
        self.inner.pin_mut().wait(ticket.0).map_err(error_of)
    }

    /// Reads rows back as the file has them.
    ///
    /// # Errors
    /// Rows that are not there.
    pub fn read(
        &self,
        tensor: &PlannedTensor,
        first_row: u64,
        raw: &mut [u8],
    ) -> Result<(), EngineError> {
        self.inner
            .read(&raw_tensor(tensor), first_row, raw)
            .map_err(error_of)
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
        self.inner.share().map_err(error_of)
    }

    /// Size of the image.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.inner.bytes()
    }
}

impl Engine {
    /// Logits (vocabulary) of the last token of chunk `chunk` of the last step, before any sampling,
    /// copied from the device.
    ///
    /// # Errors
    /// That chunk drew nothing, or the device failed.
    pub fn logits(&self, chunk: usize) -> Result<Vec<f32>, EngineError> {
        let chunk = u32::try_from(chunk).unwrap_or(u32::MAX);
        let mut logits = vec![0.0; self.vocab];
        self.inner.logits(chunk, &mut logits).map_err(error_of)?;
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
        self.inner.share_weights().map_err(error_of)
    }
}

fn step_chunk(chunk: &Chunk<'_>) -> Result<bridge::StepChunk, EngineError> {
    let sample = chunk
        .sample
        .unwrap_or(orcd_shared::sampling::SamplingParams::GREEDY);
    let n_tokens = u32::try_from(chunk.tokens.len())
        .map_err(|_| EngineError::Invalid(format!("{} tokens in a chunk", chunk.tokens.len())))?;
    Ok(bridge::StepChunk {
        slot: chunk.slot,
        start: chunk.start,
        n_tokens,
        draw: chunk.sample.is_some(),
        temperature: sample.temperature,
        top_p: sample.top_p,
        top_k: sample.top_k,
        min_p: sample.min_p,
        repetition_penalty: sample.repetition_penalty,
        seed: sample.seed,
    })
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

    fn step(&mut self, chunks: &[Chunk<'_>], drawn: &mut Vec<u32>) -> Result<(), EngineError> {
        self.chunks.clear();
        self.tokens.clear();
        for chunk in chunks {
            self.chunks.push(step_chunk(chunk)?);
            self.tokens.extend_from_slice(chunk.tokens);
        }
        drawn.clear();
        drawn.resize(chunks.len(), 0);
        self.inner
            .pin_mut()
            .step(&self.chunks, &self.tokens, drawn)
            .map_err(error_of)
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
