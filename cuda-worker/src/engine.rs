//! The C++ engine as safe Rust: a backend makes weights images, an image and a plan make an engine.
//! None of the types is `Send`: they live and die on the engine thread.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::OwnedFd;

use cxx::UniquePtr;
use orcd_shared::job::JobKey;
use orcd_shared::kv::PageCounts;
use orcd_shared::protocol::message::Serve;

pub use crate::ffi::types::shared::EngineOptions;
use crate::ffi::types::shared::{ErrorKind, PageRows, RopeScaling, TensorDesc};
use crate::ffi::{self, bridge};
use crate::pool::chains::{Chain, chains};
use crate::pool::ledger::Ledger;
use crate::pool::names::{PageName, TOKENS, full_pages};
use crate::pool::sequences::{Beginning, Owner, Sequences};
use crate::scheduler::step_engine::{
    Coming, EngineError, Sampled, StepBatch, StepEngine, TokenLogprob,
};
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
    /// Chains of jobs that are to be opened next.
    expected: HashMap<JobKey, Chain>,
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
    /// What the last step has written of the pool; kept for its memory.
    written: Vec<PageRows>,
    /// Tokens in the vocabulary.
    vocab: usize,
    /// What came of the last step.
    sampled: Vec<Sampled>,
}

/// Free pages whose memory stays with this process: to take it from the system costs more than to keep it.
const WARM_PAGES: usize = 32;

/// The first positions of a page.
fn first_rows(page: u32, count: usize) -> PageRows {
    // Lossless: a page has 64.
    let to = count.min(TOKENS) as u32;
    PageRows { page, from: 0, to }
}

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
            expected: HashMap::new(),
            fingerprint: [0; 32],
            run: 0,
            context: options.context,
            long_from: (rope.scaling == RopeScaling::LongRope).then_some(rope.original_context),
            unsettled: false,
            written: Vec::new(),
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

    /// What a sequence may begin with, all of it sound: pages that another worker has computed are looked at.
    fn beginning(&mut self, chain: &Chain, owner: Owner) -> Result<Beginning, EngineError> {
        loop {
            let beginning = self.sequences.look_up(chain, owner);
            if beginning.is_sound() {
                return Ok(beginning);
            }
            self.look_at(&[(&beginning, chain)])?;
        }
    }

    /// Looks at the pages of beginnings that another worker has computed, at all of them: of those that are not what the
    /// ledger says of them, the ones behind the first would each be found by another job. No page is as it was: it is
    /// found sound, or not found again.
    fn look_at(&mut self, beginnings: &[(&Beginning, &Chain)]) -> Result<(), EngineError> {
        let mut full = BTreeMap::new();
        let mut begun = BTreeMap::new();
        for (beginning, chain) in beginnings {
            let hits = beginning.hits.iter().zip(full_pages(&chain.tokens));
            let inherited = hits.filter(|(hit, _)| hit.inherited);
            full.extend(inherited.map(|(hit, tokens)| (hit.page, tokens)));
            for hit in beginning.begun.iter().filter(|hit| hit.inherited) {
                let tokens: &mut usize = begun.entry(hit.page).or_default();
                *tokens = hit.tokens.max(*tokens);
            }
        }
        let whole = full.keys().map(|&page| first_rows(page, TOKENS));
        let parts = begun
            .iter()
            .map(|(&page, &tokens)| first_rows(page, tokens));
        let rows: Vec<PageRows> = whole.chain(parts).collect();
        let mut sound = vec![0; rows.len()];
        bridge::check(self.inner.pin_mut(), &rows, &mut sound).map_err(error_of)?;
        let full: Vec<_> = full.into_iter().collect();
        let says = self.sequences.ledger_says(&full).map_err(ledger_failed)?;
        let mut refused = Vec::new();
        let (of_full, of_begun) = sound.split_at(full.len());
        for (((page, tokens), sound), says) in full.into_iter().zip(of_full).zip(says) {
            match *sound != 0 && says {
                true => self.sequences.found_sound(page, tokens),
                false => refused.push(page),
            }
        }
        for ((page, tokens), sound) in begun.into_iter().zip(of_begun) {
            match *sound != 0 {
                true => self.sequences.found_begun_sound(page, tokens),
                false => refused.push(page),
            }
        }
        for &page in &refused {
            self.sequences.refuse(page).map_err(ledger_failed)?;
        }
        if !refused.is_empty() {
            crate::log::line(format_args!(
                "KV pages that are not what the ledger says of them: {}; they are computed again",
                refused.len()
            ));
        }
        Ok(())
    }

    fn begin_sequence(
        &mut self,
        slot: u32,
        max_tokens: u32,
        beginning: &Beginning,
        chain: Option<&Chain>,
    ) -> Result<u32, EngineError> {
        let most = max_tokens.min(self.context).into();
        let opened = self.sequences.open(slot, most, beginning, chain);
        let opened = opened.map_err(ledger_failed)?;
        let mut inner = self.inner.pin_mut();
        let copied = match opened.copy {
            Some((from, to)) => inner.as_mut().copy(from, to),
            None => Ok(()),
        };
        let tokens = chain.map_or(&[][..], |chain| &chain.tokens[..opened.cached]);
        let begun =
            copied.and_then(|()| bridge::open(inner, slot, max_tokens, tokens, &opened.pages));
        if let Err(error) = begun {
            let error = error_of(error);
            self.sequences.close(slot).map_err(ledger_failed)?;
            return Err(error);
        }
        Ok(u32::try_from(opened.cached).unwrap_or(u32::MAX))
    }

    /// The beginning of a job's chain.
    fn root(&self, max_tokens: u32, owner: Owner) -> PageName {
        let is_long = self.long_from.is_some_and(|from| max_tokens > from);
        PageName::root(
            &self.fingerprint,
            is_long,
            owner.scope,
            (self.run, owner.key),
        )
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
        self.begin_sequence(slot, max_tokens, &beginning, None)
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
        let root = self.root(max_tokens, owner);
        let expected = self.expected.remove(&owner.key);
        // As it was expected, or it is another one.
        let expected = expected.filter(|chain| chain.root == root && chain.tokens == tokens);
        let chain = expected.unwrap_or_else(|| Chain::of(root, tokens.to_vec()));
        let beginning = self.beginning(&chain, owner)?;
        self.begin_sequence(slot, max_tokens, &beginning, Some(&chain))
    }

    fn expect(&mut self, jobs: &[Coming<'_>]) -> Result<(), EngineError> {
        let parts = jobs
            .iter()
            .map(|job| (self.root(job.max_tokens, job.owner), job.tokens));
        let parts: Vec<_> = parts.collect();
        let chains = chains(&parts);
        let beginnings = (chains.iter().zip(jobs))
            .map(|(chain, job)| (self.sequences.look_up(chain, job.owner), chain));
        let beginnings: Vec<_> = beginnings.filter(|(b, _)| !b.is_sound()).collect();
        if !beginnings.is_empty() {
            let beginnings: Vec<_> = beginnings.iter().map(|(b, chain)| (b, *chain)).collect();
            self.look_at(&beginnings)?;
        }
        let keys = jobs.iter().map(|job| job.owner.key);
        self.expected = keys.zip(chains).collect();
        Ok(())
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
            .inspect_err(|error| self.note(error))?;
        // Now, while a device is at work.
        self.sequences.tell().map_err(ledger_failed)
    }

    fn finish(&mut self, batch: &StepBatch) -> Result<&[Sampled], EngineError> {
        // What is there from the step before is cleared on the other side.
        self.sampled.resize(batch.samples.len(), NOTHING_SAMPLED);
        let inner = self.inner.pin_mut();
        let finished = bridge::finish(inner, &batch.masks, &mut self.sampled);
        finished
            .map_err(error_of)
            .inspect_err(|error| self.note(error))?;
        // Those of the steps before came before this one's end.
        self.sequences.summed();
        self.written.clear();
        for (slot, _, tokens) in batch.runs() {
            self.sequences.processed(slot, tokens, &mut self.written);
        }
        if !self.written.is_empty() {
            bridge::sum(self.inner.pin_mut(), &self.written).map_err(error_of)?;
        }
        Ok(&self.sampled)
    }

    fn take_over(&mut self, serve: Serve) -> Result<(), EngineError> {
        self.sequences.take_over(serve).map_err(ledger_failed)
    }

    fn settled(&mut self) -> Result<(), EngineError> {
        self.sequences.settled().map_err(ledger_failed)
    }

    fn rest(&mut self) -> Result<(), EngineError> {
        if !self.sequences.has_to_tell() {
            return Ok(());
        }
        self.inner.pin_mut().settle().map_err(error_of)?;
        self.sequences.summed();
        self.sequences.tell().map_err(ledger_failed)
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
