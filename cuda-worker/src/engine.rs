//! The C++ engine as safe Rust: a backend makes weights images, an image and a plan make an engine.
//! None of the types is `Send`: they live and die on the engine thread.

use std::io;
use std::os::fd::OwnedFd;

use cxx::UniquePtr;
use orcd_shared::kv::PageCounts;
use orcd_shared::protocol::message::Serve;

pub use crate::ffi::types::shared::EngineOptions;
use crate::ffi::types::shared::{ErrorKind, RopeScaling, TensorDesc};
use crate::ffi::{self, bridge};
use crate::pool::ledger::Ledger;
use crate::pool::names::{PageName, full_pages};
use crate::pool::sequences::{Beginning, Owner, Sequences};
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

/// The memory of a pool of KV pages.
pub struct KvMemory {
    inner: UniquePtr<bridge::KvMemory>,
}

/// Sequences in slots, moved on together.
pub struct Engine {
    /// Reads the weights and uses the pool: dropped before them.
    inner: UniquePtr<bridge::Engine>,
    weights: Weights,
    memory: KvMemory,
    /// Whose pages are whose.
    sequences: Sequences,
    /// Of all that a page depends on beside its tokens.
    fingerprint: [u8; 32],
    /// [`LoadRequest::run`](orcd_shared::protocol::message::LoadRequest::run)
    run: u64,
    /// Tokens per sequence.
    context: u32,
    /// Sequences that ask for more positions are rotated in another way.
    long_from: Option<u32>,
    /// A step was given up that the device may still be at.
    unsettled: bool,
    /// Pages that the last step has filled; kept for its memory.
    full: Vec<u32>,
    /// Tokens in the vocabulary.
    vocab: usize,
    /// What came of the last step.
    sampled: Vec<Sampled>,
}

/// Free pages whose memory stays with this process: to take it from the system costs more than to keep it.
const WARM_PAGES: usize = 32;

fn ledger_failed(error: io::Error) -> EngineError {
    EngineError::Device(format!("the ledger of the KV pool: {error}"))
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

    /// Of where values lie in the pages of such a model.
    ///
    /// # Errors
    /// Sizes out of bounds.
    pub fn page_layout(&self, plan: &ModelPlan) -> Result<u32, EngineError> {
        self.inner.page_layout(&plan.shape).map_err(error_of)
    }

    /// Bytes of a pool.
    ///
    /// # Errors
    /// Sizes out of bounds.
    pub fn kv_bytes(&self, plan: &ModelPlan, options: &EngineOptions) -> Result<u64, EngineError> {
        let bytes = self.inner.kv_bytes(&plan.shape, options);
        bytes.map_err(error_of)
    }

    /// Memory for a pool of so many bytes.
    ///
    /// # Errors
    /// There is not enough.
    pub fn allocate_kv(&self, bytes: u64) -> Result<KvMemory, EngineError> {
        let inner = bridge::allocate_kv(&self.inner, bytes).map_err(error_of)?;
        Ok(KvMemory { inner })
    }

    /// The memory of a pool behind `fd`.
    ///
    /// # Errors
    /// It isn't one, or not of this size.
    pub fn attach_kv(&self, fd: OwnedFd, bytes: u64) -> Result<KvMemory, EngineError> {
        let inner = ffi::attach_kv(&self.inner, fd, bytes).map_err(error_of)?;
        Ok(KvMemory { inner })
    }

    /// An engine on a sealed image, with a pool of its own.
    ///
    /// # Errors
    /// As [`Backend::engine_on`].
    pub fn engine(
        &self,
        plan: &ModelPlan,
        weights: Weights,
        options: &EngineOptions,
    ) -> Result<Engine, EngineError> {
        let memory = self.allocate_kv(self.kv_bytes(plan, options)?)?;
        self.engine_on(plan, weights, memory, options)
    }

    /// An engine on a sealed image and the memory of a pool.
    ///
    /// # Errors
    /// Plan, image and pool don't fit, options out of bounds, or too little memory.
    pub fn engine_on(
        &self,
        plan: &ModelPlan,
        weights: Weights,
        memory: KvMemory,
        options: &EngineOptions,
    ) -> Result<Engine, EngineError> {
        let tensors = descs(plan);
        let (image, pool) = (&weights.inner, &memory.inner);
        let inner = bridge::engine(&self.inner, &plan.shape, &tensors, image, pool, options);
        let mut inner = inner.map_err(error_of)?;
        let pages = inner.pages();
        let warm = if options.poison { 0 } else { WARM_PAGES };
        if options.poison {
            let all: Vec<u32> = (0..pages).collect();
            bridge::release(inner.pin_mut(), &all).map_err(error_of)?;
        }
        let rope = &plan.shape.kinds[0].rope;
        Ok(Engine {
            inner,
            weights,
            memory,
            sequences: Sequences::new(pages, options.slots, warm),
            fingerprint: [0; 32],
            run: 0,
            context: options.context,
            long_from: (rope.scaling == RopeScaling::LongRope).then_some(rope.original_context),
            unsettled: false,
            full: Vec::new(),
            // Lossless: there are 64 bits.
            vocab: plan.shape.vocab as usize,
            sampled: Vec::new(),
        })
    }
}

impl KvMemory {
    /// A descriptor of it, for another process.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn share(&self) -> Result<OwnedFd, EngineError> {
        ffi::share_kv(&self.inner).map_err(error_of)
    }

    /// Its size.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.inner.pool_bytes()
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

impl Engine {
    /// What this engine computes is that of all engines with this fingerprint, and of no others; keys of jobs are those of
    /// one run of the supervisor. A ledger is kept of the pool from now on, for another process that may have both.
    pub fn outlive(&mut self, fingerprint: [u8; 32], run: u64, ledger: Ledger) {
        self.fingerprint = fingerprint;
        self.run = run;
        self.sequences.keep_ledger(ledger);
    }

    /// Descriptors of the pool's memory and of its ledger, for the process that keeps them.
    ///
    /// # Errors
    /// No descriptor is left, or no ledger is kept.
    pub fn share_pool(&self) -> Result<[OwnedFd; 2], EngineError> {
        let Some(ledger) = self.sequences.ledger() else {
            return Err(EngineError::Invalid("the pool has no ledger".into()));
        };
        Ok([self.memory.share()?, ledger.share().map_err(ledger_failed)?])
    }

    /// Pages of the pool.
    #[must_use]
    pub fn pages(&self) -> u32 {
        self.inner.pages()
    }

    /// Leaves of a beginning what is what its names say: pages that another worker has computed are looked at.
    fn check(&mut self, beginning: &mut Beginning, tokens: &[u32]) -> Result<(), EngineError> {
        let inherited = beginning.hits.iter().zip(full_pages(tokens)).enumerate();
        let inherited: Vec<_> = (inherited.filter(|(_, (hit, _))| hit.inherited))
            .map(|(at, (hit, tokens))| (at, hit.page, tokens))
            .collect();
        if inherited.is_empty() {
            return Ok(());
        }
        let pages: Vec<u32> = inherited.iter().map(|&(_, page, _)| page).collect();
        let mut sound = vec![0; pages.len()];
        bridge::check(self.inner.pin_mut(), &pages, &mut sound).map_err(error_of)?;
        let (mut sound_to, mut refused) = (None, 0);
        for ((at, page, tokens), sound) in inherited.into_iter().zip(sound) {
            let says = self.sequences.ledger_says(page, tokens);
            if sound != 0 && says.map_err(ledger_failed)? {
                self.sequences.found_sound(page, tokens);
                continue;
            }
            // Those behind it as well: else each would be found by another job.
            self.sequences.refuse(page).map_err(ledger_failed)?;
            sound_to.get_or_insert(at);
            refused += 1;
        }
        if let Some(at) = sound_to {
            crate::log::line(format_args!(
                "KV pages that are not what the ledger says of them: {refused}; they are computed again"
            ));
            beginning.end_at(at);
        }
        Ok(())
    }

    fn begin_sequence(
        &mut self,
        slot: u32,
        max_tokens: u32,
        beginning: &Beginning,
        tokens: &[u32],
    ) -> Result<u32, EngineError> {
        let most = max_tokens.min(self.context).into();
        let opened = self.sequences.open(slot, most, beginning, tokens);
        let opened = opened.map_err(ledger_failed)?;
        let mut inner = self.inner.pin_mut();
        let copied = match opened.copy {
            Some((from, to)) => inner.as_mut().copy(from, to),
            None => Ok(()),
        };
        let tokens = &tokens[..opened.cached];
        let begun =
            copied.and_then(|()| bridge::open(inner, slot, max_tokens, tokens, &opened.pages));
        if let Err(error) = begun {
            let error = error_of(error);
            self.sequences.close(slot).map_err(ledger_failed)?;
            return Err(error);
        }
        Ok(u32::try_from(opened.cached).unwrap_or(u32::MAX))
    }

    /// Whether a sequence is open in `slot`, so that nobody's pages are given to another.
    fn refuse_open(&self, slot: u32) -> Result<(), EngineError> {
        if self.sequences.is_open(slot) {
            return Err(EngineError::Invalid(format!("slot {slot} is open already")));
        }
        Ok(())
    }

    /// Gives each run of a step the pages that it needs.
    fn grow(&mut self, batch: &StepBatch) -> Result<(), EngineError> {
        let lacking = batch.runs().map(|(slot, start, tokens)| {
            let end = u64::from(start) + tokens.len() as u64;
            (slot, self.sequences.lacking(slot, end))
        });
        let lacking: Vec<_> = lacking.filter(|&(_, pages)| pages > 0).collect();
        let wanted: u64 = lacking.iter().map(|&(_, pages)| pages).sum();
        let available = self.sequences.available();
        if wanted > available {
            return Err(EngineError::OutOfMemory(format!(
                "a step needs {wanted} more KV pages, {available} are free"
            )));
        }
        for (slot, pages) in lacking {
            let grown = self.sequences.grow(slot, pages).map_err(ledger_failed)?;
            bridge::grow(self.inner.pin_mut(), slot, &grown).map_err(error_of)?;
        }
        Ok(())
    }

    fn release(&mut self, pages: &[u32]) -> Result<(), EngineError> {
        if pages.is_empty() {
            return Ok(());
        }
        bridge::release(self.inner.pin_mut(), pages).map_err(error_of)
    }

    fn note(&mut self, error: &EngineError) {
        self.unsettled |= *error == EngineError::Abandoned;
    }
}

impl StepEngine for Engine {
    fn open(&mut self, slot: u32, max_tokens: u32) -> Result<(), EngineError> {
        self.refuse_open(slot)?;
        let beginning = Beginning::default();
        self.begin_sequence(slot, max_tokens, &beginning, &[])
            .map(drop)
    }

    fn open_for(
        &mut self,
        slot: u32,
        max_tokens: u32,
        owner: Owner,
        tokens: &[u32],
    ) -> Result<u32, EngineError> {
        self.refuse_open(slot)?;
        let is_long = self.long_from.is_some_and(|from| max_tokens > from);
        let key = (self.run, owner.key);
        let root = PageName::root(&self.fingerprint, is_long, owner.scope, key);
        let mut beginning = self.sequences.look_up(root, owner, tokens);
        self.check(&mut beginning, tokens)?;
        self.begin_sequence(slot, max_tokens, &beginning, tokens)
    }

    fn close(&mut self, slot: u32) -> Result<(), EngineError> {
        if std::mem::take(&mut self.unsettled) {
            self.inner.pin_mut().settle().map_err(error_of)?;
        }
        self.inner.pin_mut().close(slot).map_err(error_of)?;
        let cooled = self.sequences.close(slot).map_err(ledger_failed)?;
        self.release(&cooled)
    }

    fn begin(&mut self, batch: &StepBatch) -> Result<(), EngineError> {
        if !self.sequences.is_mine().map_err(ledger_failed)? {
            let message = "the KV pool belongs to another worker".to_owned();
            return Err(EngineError::Device(message));
        }
        self.grow(batch)?;
        let inner = self.inner.pin_mut();
        let (samples, biases) = (&batch.samples, &batch.biases);
        let begun = bridge::begin(inner, &batch.tokens, &batch.runs, samples, biases);
        begun
            .map_err(error_of)
            .inspect_err(|error| self.note(error))
    }

    fn finish(&mut self, batch: &StepBatch) -> Result<&[Sampled], EngineError> {
        // What is there from the step before is cleared on the other side.
        self.sampled.resize(batch.samples.len(), NOTHING_SAMPLED);
        let inner = self.inner.pin_mut();
        let finished = bridge::finish(inner, &batch.masks, &mut self.sampled);
        finished
            .map_err(error_of)
            .inspect_err(|error| self.note(error))?;
        for (slot, _, tokens) in batch.runs() {
            self.sequences.processed(slot, tokens, &mut self.full);
        }
        if !self.full.is_empty() && self.sequences.ledger().is_some() {
            bridge::sum(self.inner.pin_mut(), &self.full).map_err(error_of)?;
        }
        self.sequences
            .summed(&mut self.full)
            .map_err(ledger_failed)?;
        Ok(&self.sampled)
    }

    fn take_over(&mut self, serve: Serve) -> Result<(), EngineError> {
        self.sequences.take_over(serve).map_err(ledger_failed)
    }

    fn settled(&mut self) -> Result<(), EngineError> {
        self.sequences.settled().map_err(ledger_failed)
    }

    fn rest(&mut self) -> Result<(), EngineError> {
        if !self.sequences.is_summing() {
            return Ok(());
        }
        self.inner.pin_mut().settle().map_err(error_of)?;
        self.sequences.summed(&mut self.full).map_err(ledger_failed)
    }

    fn counts(&self) -> PageCounts {
        self.sequences.counts()
    }

    fn capacity(&self) -> u32 {
        self.sequences.capacity()
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

impl std::fmt::Debug for KvMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KvMemory")
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
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
