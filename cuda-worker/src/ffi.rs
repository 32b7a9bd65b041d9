//! The only unsafe code of this crate.

pub(crate) mod types;

use std::os::fd::{FromRawFd as _, IntoRawFd as _, OwnedFd};

use cxx::{Exception, UniquePtr};

/// The sealed image behind `fd`.
pub(crate) fn attach(
    backend: &bridge::Backend,
    fd: OwnedFd,
    image_bytes: u64,
) -> Result<UniquePtr<bridge::Weights>, Exception> {
    // SAFETY: the number is that of an open descriptor, and its only owner gives it away; the
    // other side closes it, also when it throws.
    unsafe { backend.attach(fd.into_raw_fd(), image_bytes) }
}

/// A descriptor of the image.
pub(crate) fn share(weights: &bridge::Weights) -> Result<OwnedFd, Exception> {
    let new = bridge::share(weights)?;
    // SAFETY: `share` has opened it for this call and keeps nothing of it.
    Ok(unsafe { OwnedFd::from_raw_fd(new) })
}

/// The pool's memory behind `fd`.
pub(crate) fn attach_kv(
    backend: &bridge::Backend,
    fd: OwnedFd,
    bytes: u64,
) -> Result<UniquePtr<bridge::KvMemory>, Exception> {
    // SAFETY: as in `attach`.
    unsafe { backend.attach_kv(fd.into_raw_fd(), bytes) }
}

/// A descriptor of the pool's memory.
pub(crate) fn share_kv(memory: &bridge::KvMemory) -> Result<OwnedFd, Exception> {
    let new = bridge::share_kv(memory)?;
    // SAFETY: `share_kv` has opened it for this call and keeps nothing of it.
    Ok(unsafe { OwnedFd::from_raw_fd(new) })
}

fn abandoned() -> bool {
    crate::signals::step_is_abandoned()
}

/// `cuda/bridge.h` and, where cxx can bind it as it stands, `cuda/include/orcd/engine.h`.
#[allow(unreachable_pub)] // what the macro makes is pub; this module is not
#[cxx::bridge(namespace = "orcd::bridge")]
pub(crate) mod bridge {
    extern "Rust" {
        /// Asked between the layers of a step.
        fn abandoned() -> bool;
    }

    #[namespace = "orcd"]
    extern "C++" {
        include!("bridge.h");

        type ErrorKind = crate::ffi::types::shared::ErrorKind;
        type TensorDesc = crate::ffi::types::shared::TensorDesc;
        type ModelShape = crate::ffi::types::shared::ModelShape;
        type EngineOptions = crate::ffi::types::shared::EngineOptions;
        type Run = crate::ffi::types::shared::Run;
        type PageRows = crate::ffi::types::shared::PageRows;
        type SampleRow = crate::ffi::types::shared::SampleRow;
        type TokenBias = crate::ffi::types::shared::TokenBias;
        type Sampled = crate::ffi::types::shared::Sampled;
        type DeviceInfo = crate::ffi::types::shared::DeviceInfo;
    }

    // SAFETY: every function here checks its arguments and throws, slices carry their lengths, and
    // `engine.rs` keeps an engine's weights for as long as the engine.
    unsafe extern "C++" {
        /// Of the last error on this thread.
        fn error_kind() -> ErrorKind;

        #[namespace = "orcd"]
        type Backend;
        fn cpu_backend() -> Result<UniquePtr<Backend>>;
        fn cuda_backend(ordinal: u32) -> Result<UniquePtr<Backend>>;
        fn name(backend: &Backend) -> &str;
        fn device_name(backend: &Backend) -> Result<String>;
        fn layout_version(self: &Backend) -> u32;
        fn info(self: &Backend) -> Result<DeviceInfo>;
        fn required_bytes(
            backend: &Backend,
            shape: &ModelShape,
            tensors: &[TensorDesc],
            image_bytes: u64,
            options: &EngineOptions,
        ) -> Result<u64>;
        fn staging(backend: &Backend, bytes: usize) -> Result<UniquePtr<Staging>>;
        fn allocate(backend: &Backend, image_bytes: u64) -> Result<UniquePtr<Weights>>;
        /// Takes the descriptor `fd`.
        unsafe fn attach(self: &Backend, fd: i32, image_bytes: u64) -> Result<UniquePtr<Weights>>;
        fn page_layout(self: &Backend, shape: &ModelShape) -> Result<u32>;
        fn kv_bytes(self: &Backend, shape: &ModelShape, options: &EngineOptions) -> Result<u64>;
        fn allocate_kv(backend: &Backend, bytes: u64) -> Result<UniquePtr<KvMemory>>;
        /// Takes the descriptor `fd`.
        unsafe fn attach_kv(self: &Backend, fd: i32, bytes: u64) -> Result<UniquePtr<KvMemory>>;
        fn engine(
            backend: &Backend,
            shape: &ModelShape,
            tensors: &[TensorDesc],
            weights: &Weights,
            memory: &KvMemory,
            options: &EngineOptions,
        ) -> Result<UniquePtr<Engine>>;

        #[namespace = "orcd"]
        type Staging;
        fn bytes(staging: Pin<&mut Staging>) -> &mut [u8];

        #[namespace = "orcd"]
        type Weights;
        fn write(
            weights: Pin<&mut Weights>,
            tensor: &TensorDesc,
            first_row: u64,
            raw: &[u8],
        ) -> Result<u64>;
        fn wait(self: Pin<&mut Weights>, ticket: u64) -> Result<()>;
        fn read(
            weights: &Weights,
            tensor: &TensorDesc,
            first_row: u64,
            raw: &mut [u8],
        ) -> Result<()>;
        fn seal(self: Pin<&mut Weights>) -> Result<()>;
        /// A new descriptor.
        fn share(weights: &Weights) -> Result<i32>;
        #[cxx_name = "bytes"]
        fn image_bytes(self: &Weights) -> u64;

        #[namespace = "orcd"]
        type KvMemory;
        /// A new descriptor.
        fn share_kv(memory: &KvMemory) -> Result<i32>;
        #[cxx_name = "bytes"]
        fn pool_bytes(self: &KvMemory) -> u64;

        #[namespace = "orcd"]
        type Engine;
        fn open(
            engine: Pin<&mut Engine>,
            slot: u32,
            max_tokens: u32,
            tokens: &[u32],
            pages: &[u32],
        ) -> Result<()>;
        fn grow(engine: Pin<&mut Engine>, slot: u32, pages: &[u32]) -> Result<()>;
        fn close(self: Pin<&mut Engine>, slot: u32) -> Result<()>;
        fn release(engine: Pin<&mut Engine>, pages: &[u32]) -> Result<()>;
        fn copy(self: Pin<&mut Engine>, from: u32, to: u32) -> Result<()>;
        fn sum(engine: Pin<&mut Engine>, rows: &[PageRows]) -> Result<()>;
        fn check(engine: Pin<&mut Engine>, rows: &[PageRows], sound: &mut [u8]) -> Result<()>;
        fn settle(self: Pin<&mut Engine>) -> Result<()>;
        fn begin(
            engine: Pin<&mut Engine>,
            tokens: &[u32],
            runs: &[Run],
            samples: &[SampleRow],
            biases: &[TokenBias],
        ) -> Result<()>;
        fn finish(engine: Pin<&mut Engine>, masks: &[u32], sampled: &mut [Sampled]) -> Result<()>;
        fn logits(engine: &Engine, draw: u32, to: &mut [f32]) -> Result<()>;
        fn memory_bytes(self: &Engine) -> u64;
        fn pages(self: &Engine) -> u32;
        fn resident(self: &Engine) -> bool;
    }
}

/// `cuda/probe.h`.
#[allow(unreachable_pub)] // as above
#[cxx::bridge(namespace = "orcd::probe")]
pub(crate) mod probe {
    /// When a piece of scratch is in use.
    #[derive(Debug)]
    enum Use {
        /// During all of a step.
        Always,
        /// In a layer's attention.
        Attention,
        /// In a layer's feed-forward part.
        FeedForward,
        /// After the last layer.
        Logits,
    }

    /// What of a model's shape its scratch follows from.
    #[derive(Debug, Clone, Copy)]
    struct Widths {
        d_model: u32,
        d_ff: u32,
        n_heads: u32,
        n_kv_heads: u32,
        head_dim: u32,
        vocab: u32,
        n_experts: u32,
        n_experts_used: u32,
    }

    /// A piece of scratch.
    #[derive(Debug, Clone, Copy)]
    struct Piece {
        /// When it is in use.
        used: Use,
        /// Its first byte.
        begin: u64,
        /// The byte after its last.
        end: u64,
    }

    #[namespace = "orcd"]
    extern "C++" {
        include!("probe.h");
        type Sampling = crate::ffi::types::shared::Sampling;
    }

    // SAFETY: tests call these, through `probe.rs`, which checks that the slices fit each other.
    unsafe extern "C++" {
        include!("probe.h");

        fn has_form(form: u32) -> bool;
        #[allow(clippy::too_many_arguments)]
        fn product(
            form: u32,
            ty: u32,
            rows: u32,
            cols: u32,
            raw: &[u8],
            x: &[f32],
            add: bool,
            threads: u32,
            y: &mut [f32],
        );
        fn dequantize(ty: u32, raw: &[u8], out: &mut [f32]);
        fn quantize(
            supers: bool,
            x: &[f32],
            q: &mut [i8],
            d: &mut [f32],
            sum: &mut [i32],
            shifts: &mut [u32],
        );
        fn rmsnorm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]);
        fn glu(gelu: bool, gate: &[f32], up: &[f32], out: &mut [f32]);
        fn function(name: &str, x: &[f32], y: &mut [f32]) -> Result<()>;
        fn to_f16(x: &[f32], y: &mut [u16]);
        fn from_f16(h: u16) -> f32;
        #[allow(clippy::too_many_arguments)]
        fn attend(
            form: u32,
            n_heads: u32,
            n_kv_heads: u32,
            head_dim: u32,
            interleaved: bool,
            rope_base: f64,
            freq_factors: &[f32],
            window: u32,
            soft_cap: f32,
            sinks: &[f32],
            first: u32,
            q: &mut [f32],
            k: &mut [f32],
            v: &mut [f32],
            out: &mut [f32],
        );
        fn scratch(
            widths: &Widths,
            rows: u32,
            samples: u32,
            backend: u32,
            pieces: &mut Vec<Piece>,
        ) -> u64;
        fn feed_forward_group(rows: u32, most: u32) -> u32;
        fn place_partials(
            positions: &[u32],
            rows: &[u32],
            room_runs: u64,
            room_rows: u32,
            place: &mut [u32],
        ) -> Vec<u32>;
        fn golden_hash(ty: u32) -> u64;
        fn throwing_chunks(threads: u32, chunks: u32, bad: u32) -> Result<u32>;
        #[allow(clippy::too_many_arguments)]
        fn draw(
            logits: &[f32],
            before: &[u32],
            output_start: u32,
            mask: &[u32],
            biased: &[u32],
            biases: &[f32],
            position: u32,
            sampling: &Sampling,
        ) -> u32;
        fn logprobs(logits: &[f32], token: u32, top: &mut [u32], logprobs: &mut [f32]);
    }
}
