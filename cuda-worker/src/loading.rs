//! From the load request to an engine that serves, with the messages about it. Runs on the engine
//! thread.

use std::fmt::Display;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use orcd_shared::claim::Reserved;
use orcd_shared::error::ErrorCode;
use orcd_shared::gguf::GgufFile;
use orcd_shared::job::JobKey;
use orcd_shared::protocol::message::{Device, LoadRequest, LoadSource, ToSupervisor, WorkerInfo};
use orcd_shared::vocab::{TokenBytes, VocabError};

use crate::constraint::{Compiled, Grammars, Vocabulary};
use crate::descriptors::DescriptorChannel;
use crate::engine::{Backend, Engine, EngineOptions};
use crate::failpoints::{self, Failpoint};
use crate::loader::{self, LoadError, Loaded, Source};
use crate::memory::{self, Limit, Need, Scope, Shortfall};
use crate::pool::ledger::Ledger;
use crate::pool::made::{self as pool, HeldPool, Pool};
use crate::scheduler::Limits;
use crate::scheduler::step_engine::{EngineError, StepEngine as _};
use crate::sizing::PoolContext;
use crate::weights_plan::{self, ModelPlan};
use crate::{arithmetic, log, sizing};

/// Why there is no engine, as the supervisor passes it on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LoadFailure {
    /// `MODEL_LOAD_FAILED`, `INSUFFICIENT_VRAM`, `INSUFFICIENT_MEMORY` or `CUDA_ERROR`.
    pub(crate) code: ErrorCode,
    /// What failed, with which value, and what to do.
    pub(crate) message: String,
}

impl LoadFailure {
    /// Something about the model file or the request.
    fn model(path: &str, error: impl Display) -> Self {
        let mut message = error.to_string();
        if !message.contains(path) {
            message = format!("{path}: {message}");
        }
        Self {
            code: ErrorCode::ModelLoadFailed,
            message,
        }
    }

    /// Something the engine said, in `request`'s terms.
    fn engine(request: &LoadRequest, backend: &Backend, error: &EngineError) -> Self {
        let code = match error {
            EngineError::Invalid(_) | EngineError::Abandoned => ErrorCode::ModelLoadFailed,
            EngineError::OutOfMemory(_) => no_memory(request.device),
            EngineError::Device(_) if request.device == Device::Cpu => ErrorCode::ModelLoadFailed,
            EngineError::Device(_) => ErrorCode::CudaError,
        };
        // Only then: a device that failed is not asked once more.
        let limits = match error {
            EngineError::OutOfMemory(_) => limits(request.device, backend).ok(),
            _ => None,
        };
        let tightest = limits.as_deref().and_then(memory::tightest);
        let free = tightest.map_or_else(String::new, |limit| {
            format!("; {} bytes free by {}", limit.free, limit.name)
        });
        Self {
            code,
            message: format!(
                "{} on {}: {error}{free}",
                request.model_path, request.device
            ),
        }
    }
}

/// What serves.
pub(crate) struct Serving {
    engine: Engine,
    limits: Limits,
    /// What texts are made of, or why that is not known.
    bytes: Result<TokenBytes, VocabError>,
    end_tokens: Vec<u32>,
}

impl Serving {
    /// The engine, its limits, and what compiles constraints: that gives `done` what becomes of each.
    pub(crate) fn with_grammars(
        self,
        done: impl FnMut(JobKey, Compiled) + Send + 'static,
    ) -> (Engine, Limits, io::Result<Grammars>) {
        let Self {
            engine,
            limits,
            bytes,
            end_tokens,
        } = self;
        let vocabulary = move || {
            let bytes = bytes.map_err(|error| error.to_string())?;
            Vocabulary::of(&bytes, &end_tokens, limits.vocab_size)
        };
        (engine, limits, Grammars::start(vocabulary, done))
    }
}

/// Loads what `request` asks for and says so: progress, then Ready. The weights' descriptor goes
/// out before Ready if this process made the image.
///
/// # Errors
/// There is no engine, for the reason given.
pub(crate) fn load(
    request: &LoadRequest,
    mut send: impl FnMut(ToSupervisor),
) -> Result<Serving, LoadFailure> {
    let began = Instant::now();
    failpoints::pass(Failpoint::Load);
    // Before the device is opened, and whatever else may be closed before it.
    let reserved = Reserved::new();
    let channel = DescriptorChannel::on_stdin();
    let retained = request
        .weights
        .as_ref()
        .and_then(|m| Some((m, receive(channel.as_ref())?)));
    let held_pool = request.pool.as_ref().and_then(|manifest| {
        let channel = channel.as_ref();
        Some(HeldPool {
            manifest,
            memory: receive(channel)?,
            ledger: receive(channel)?,
        })
    });

    let path = &request.model_path;
    let file = GgufFile::open(Path::new(path)).map_err(|e| LoadFailure::model(path, e))?;
    let plan = weights_plan::plan(file.header()).map_err(|e| LoadFailure::model(path, e))?;
    let source = Source::of(&file, &plan).map_err(|e| LoadFailure::model(path, e))?;
    let backend = match retained {
        // An image is taken for its file's stamps; nothing needs to be hashed.
        Some(_) => backend(request.device),
        None => source.hash_during(|| backend(request.device)),
    }?;
    let device_ms = began.elapsed().as_millis();
    let engine_failed = |error| LoadFailure::engine(request, &backend, &error);
    let failed = |error| match error {
        LoadError::Engine(error) => LoadFailure::engine(request, &backend, &error),
        other => LoadFailure::model(path, other),
    };
    let expected = request.model_hash;
    // The supervisor takes silence for a hang.
    let mut alive = || send(ToSupervisor::LoadProgress { percent: 0 });
    let retained = retained.map(|h| loader::examine(&backend, &source, h, expected, &mut alive));
    let retained = retained.transpose().map_err(failed)?.flatten();
    let Fitting {
        options,
        page_bytes,
        ..
    } = fitting(
        request,
        &backend,
        &plan,
        retained.is_some(),
        held_pool.is_some(),
    )?;

    let mut told = None;
    let loaded = loader::attach_or_load(&backend, &source, retained, expected, |percent| {
        for percent in sizing::milestones(told, percent) {
            send(ToSupervisor::LoadProgress { percent });
            told = Some(percent);
        }
    });
    let Loaded {
        weights,
        source,
        manifest,
    } = loaded.map_err(failed)?;
    if source == LoadSource::File {
        tell_absent(path, &plan);
    }
    failpoints::pass(Failpoint::Loaded);
    let weights_ms = began.elapsed().as_millis();
    let content = manifest.model.hash;
    let fingerprint = pool::fingerprint(&backend, &plan, content).map_err(engine_failed)?;
    let pool =
        Pool::of(&backend, &plan, &options, fingerprint, held_pool).map_err(engine_failed)?;
    let mut engine = backend
        .engine_on(&plan, weights, pool.memory, &options)
        .map_err(engine_failed)?;
    // An image with another manifest than before, that of a file which was touched, is sent like a
    // new one.
    let known = source == LoadSource::Handle && request.weights.as_ref() == Some(&manifest);
    let shared = known
        || channel
            .as_ref()
            .is_some_and(|channel| hand_over(&engine, channel));
    let pool = match (claimed(pool.ledger, reserved), channel) {
        (Some(ledger), Some(channel)) => {
            engine.outlive(fingerprint, request.run, ledger);
            let held = pool.is_held || hand_over_pool(&engine, &channel);
            held.then_some(pool.manifest)
        }
        _ => None,
    };

    let device = backend.info().map_err(engine_failed)?;
    let load_ms = u32::try_from(began.elapsed().as_millis()).unwrap_or(u32::MAX);
    log::line(format_args!(
        "{} on {}: {} sequences of {} tokens, {} KV pages of {} KiB, ready after {load_ms} ms (device {device_ms}, weights \
         {}) from the {}",
        plan.quant_kind,
        device.name,
        options.slots,
        options.context,
        options.kv_pages,
        page_bytes >> 10,
        weights_ms - device_ms,
        if source == LoadSource::File {
            "file"
        } else {
            "image retained by the supervisor"
        },
    ));
    send(ToSupervisor::Ready(Box::new(WorkerInfo {
        device_name: device.name,
        compute_capability: device.compute,
        runtime_version: device.runtime_version,
        memory_used: engine.memory_bytes(),
        memory_total: device.memory_total,
        resident: engine.resident(),
        context: options.context,
        parallel: options.slots,
        kv_pages: options.kv_pages,
        kv_page_bytes: page_bytes,
        quant_kind: plan.quant_kind,
        load_source: source,
        load_ms,
        model_hash: manifest.model.hash,
        arithmetic: arithmetic::name(),
        weights: shared.then_some(manifest),
        pool,
    })));
    let limits = Limits {
        slots: options.slots,
        context: options.context,
        kv_pages: options.kv_pages,
        vocab_size: plan.shape.vocab,
        max_batch_tokens: options.max_batch_tokens,
        max_gap: sizing::max_gap(request),
    };
    // After Ready: jobs come meanwhile.
    let bytes = TokenBytes::of(&file.header().metadata);
    Ok(Serving {
        engine,
        limits,
        bytes,
        end_tokens: request.end_tokens.clone(),
    })
}

/// What a load would take, found out without taking it.
pub(crate) struct Fit {
    /// The device's own name.
    pub(crate) device: String,
    /// Of the model.
    pub(crate) quant_kind: String,
    /// The engine that would be made.
    pub(crate) options: EngineOptions,
    /// Of its KV pool, bytes.
    pub(crate) pool_bytes: u64,
    /// All that it takes, the pool too, bytes.
    pub(crate) needed: u64,
    /// What bounds it most.
    pub(crate) tightest: Option<Limit>,
}

/// Looks whether what `request` asks for can be loaded: header, plan, device and memory. The weights are not read.
///
/// # Errors
/// As [`load`].
pub(crate) fn examine(request: &LoadRequest) -> Result<Fit, LoadFailure> {
    let path = &request.model_path;
    let file = GgufFile::open(Path::new(path)).map_err(|e| LoadFailure::model(path, e))?;
    let plan = weights_plan::plan(file.header()).map_err(|e| LoadFailure::model(path, e))?;
    Source::of(&file, &plan).map_err(|e| LoadFailure::model(path, e))?;
    let backend = backend(request.device)?;
    let Fitting {
        options,
        page_bytes,
        needed,
        tightest,
    } = fitting(request, &backend, &plan, false, false)?;
    let info = backend.info();
    let info = info.map_err(|error| LoadFailure::engine(request, &backend, &error))?;
    Ok(Fit {
        device: info.name,
        quant_kind: plan.quant_kind,
        options,
        pool_bytes: u64::from(options.kv_pages).saturating_mul(page_bytes),
        needed,
        tightest,
    })
}

/// Never another device than the one asked for.
fn backend(device: Device) -> Result<Backend, LoadFailure> {
    let (made, code) = match device {
        Device::Cpu => (Backend::cpu(), ErrorCode::ModelLoadFailed),
        Device::Cuda(ordinal) => (Backend::cuda(ordinal), ErrorCode::CudaError),
    };
    made.map_err(|error| LoadFailure {
        code,
        message: format!("{device}: {error}"),
    })
}

/// A descriptor that was announced; without it what it stands for is made anew.
fn receive(channel: Option<&DescriptorChannel>) -> Option<OwnedFd> {
    match channel?.receive() {
        Ok(fd) => Some(fd),
        Err(error) => {
            log::line(format_args!(
                "retained memory was announced but did not come: {error}"
            ));
            None
        }
    }
}

/// Device memory beside what an engine asks for: staging while loading, graphs, code.
const UNCOUNTED_BYTES: u64 = 128 << 20;
/// What a further process takes of a device by its mere presence, generously estimated.
const CONTEXT_BYTES: u64 = 512 << 20;
/// How long a worker that replaces a lost one waits for its memory.
const PREDECESSOR_LEAVES: Duration = Duration::from_secs(2);

/// An engine that fits.
struct Fitting {
    options: EngineOptions,
    /// Of its KV memory.
    page_bytes: u64,
    /// Memory that it takes, bytes.
    needed: u64,
    /// The limit that leaves least.
    tightest: Option<Limit>,
}

/// The largest engine that fits the memory there is, before anything is taken. An image or a pool that is
/// `present` is in memory already.
fn fitting(
    request: &LoadRequest,
    backend: &Backend,
    plan: &ModelPlan,
    present: bool,
    pool_present: bool,
) -> Result<Fitting, LoadFailure> {
    let path = &request.model_path;
    let engine_failed = |error| LoadFailure::engine(request, backend, &error);
    let candidates = sizing::candidates(request, plan.context_length)
        .map_err(|message| LoadFailure::model(path, message))?;
    let began = Instant::now();
    let short = loop {
        let limits = limits(request.device, backend).map_err(engine_failed)?;
        let mut short = None;
        for &smallest in &candidates {
            let (need, page_bytes) =
                need(request, backend, plan, present, &smallest).map_err(engine_failed)?;
            let pool = PoolContext {
                page_bytes,
                room: memory::room(&need, &limits),
                slots: smallest.slots,
                context: smallest.context,
            };
            let kv_pages = sizing::pool(request, &pool)
                .map_err(|message| LoadFailure::model(path, message))?;
            let options = EngineOptions {
                kv_pages,
                ..smallest
            };
            let need = Need {
                pool: u64::from(kv_pages).saturating_mul(page_bytes),
                pool_present,
                ..need
            };
            short = memory::shortfall(&need, &limits);
            let serves = candidates.len() == 1 || sizing::serves(kv_pages, options.slots);
            if short.is_none() && serves {
                return Ok(Fitting {
                    options,
                    page_bytes,
                    needed: need.memory(),
                    tightest: memory::tightest(&limits).cloned(),
                });
            }
        }
        // A lost worker's memory comes back some time after its end.
        if !present || began.elapsed() > PREDECESSOR_LEAVES {
            break short;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let device = backend.info().map_err(engine_failed)?.name;
    let lack = short.map_or_else(String::new, |Shortfall { limit, needed }| {
        format!(
            "needs {} MiB, {} MiB free on {} ({device}) by {} ({needed} of {} bytes)",
            needed >> 20,
            limit.free >> 20,
            request.device,
            limit.name,
            limit.free,
        )
    });
    Err(LoadFailure {
        code: no_memory(request.device),
        message: format!(
            "{path} {lack}; try a smaller --kv-memory or --parallel{}",
            match request.device {
                Device::Cpu => ", or raise that limit",
                Device::Cuda(_) => "",
            }
        ),
    })
}

/// What an engine needs without its KV pool, and bytes of a page of that.
fn need(
    request: &LoadRequest,
    backend: &Backend,
    plan: &ModelPlan,
    present: bool,
    options: &EngineOptions,
) -> Result<(Need, u64), EngineError> {
    let with = |kv_pages| {
        let options = EngineOptions {
            kv_pages,
            ..*options
        };
        backend.required_bytes(plan, &options)
    };
    let (one, two) = (with(1)?, with(2)?);
    let page_bytes = two.saturating_sub(one);
    let engines = u64::from(request.engines.max(1));
    let contexts = match request.device {
        Device::Cpu => 0,
        Device::Cuda(_) => UNCOUNTED_BYTES + (engines - 1) * CONTEXT_BYTES,
    };
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    // Weights and pool are there once; everything else is each engine's own.
    let need = Need {
        image: plan.image_bytes,
        present,
        pool: 0,
        pool_present: false,
        own: one.saturating_sub(plan.image_bytes + page_bytes),
        once: contexts,
        engines,
        addresses: sizing::addresses(options.threads, cores),
    };
    Ok((need, page_bytes))
}

/// What a lack of memory is called there.
fn no_memory(device: Device) -> ErrorCode {
    match device {
        Device::Cpu => ErrorCode::InsufficientMemory,
        Device::Cuda(_) => ErrorCode::InsufficientVram,
    }
}

/// What bounds the memory that an engine on `device` can have.
fn limits(device: Device, backend: &Backend) -> Result<Vec<Limit>, EngineError> {
    if device == Device::Cpu {
        return Ok(memory::limits());
    }
    Ok(vec![Limit {
        name: format!("the driver of {device}"),
        scope: Scope::Memory,
        free: backend.info()?.memory_free,
    }])
}

/// Says once which keys the file lacks, and what stands for them.
fn tell_absent(path: &str, plan: &ModelPlan) {
    let taken = plan
        .absent
        .iter()
        .map(|a| format!("{} = {}", a.key, a.taken));
    let taken: Vec<String> = taken.collect();
    if !taken.is_empty() {
        log::line(format_args!(
            "{path} lacks keys that have a default, which is used: {}",
            taken.join(", ")
        ));
    }
}

/// The ledger, once it shows others that this process is there: without that nobody could know whether somebody still writes
/// to the pool.
fn claimed(ledger: Option<Ledger>, reserved: io::Result<Reserved>) -> Option<Ledger> {
    let mut ledger = ledger?;
    match reserved.and_then(|reserved| ledger.claim(reserved)) {
        Ok(()) => Some(ledger),
        Err(error) => {
            log::line(format_args!(
                "the KV pool can't outlive this process: its ledger can't be locked: {error}"
            ));
            None
        }
    }
}

/// Gives the supervisor descriptors of the pool; false if they did not go out, and then Ready must not speak of it.
fn hand_over_pool(engine: &Engine, channel: &DescriptorChannel) -> bool {
    use std::os::fd::AsFd as _;
    let shared = engine.share_pool().map_err(|e| e.to_string());
    let sent = shared.and_then(|descriptors| {
        let mut descriptors = descriptors.iter();
        descriptors
            .try_for_each(|fd| channel.send(fd.as_fd()))
            .map_err(|e| e.to_string())
    });
    if let Err(error) = &sent {
        log::line(format_args!(
            "the KV pool can't outlive this process: {error}"
        ));
    }
    sent.is_ok()
}

/// Gives the supervisor a descriptor of the image; false if it did not go out, and then Ready must
/// not speak of it.
fn hand_over(engine: &Engine, channel: &DescriptorChannel) -> bool {
    use std::os::fd::AsFd as _;
    let sent = engine.share_weights().map_err(|e| e.to_string());
    let sent = sent.and_then(|fd| channel.send(fd.as_fd()).map_err(|e| e.to_string()));
    if let Err(error) = &sent {
        log::line(format_args!(
            "the weights can't outlive this process: {error}"
        ));
    }
    sent.is_ok()
}
