//! The only unsafe code of this crate.

use std::os::fd::{FromRawFd as _, IntoRawFd as _, OwnedFd};

use cxx::{Exception, UniquePtr};

impl bridge::DeviceBackend {
    /// The sealed image behind `fd`.
    pub(crate) fn attach(
        &self,
        fd: OwnedFd,
        image_bytes: u64,
    ) -> Result<UniquePtr<bridge::WeightsImage>, Exception> {
        // SAFETY: the number is that of an open descriptor, and its only owner gives it away; the
        // other side closes it, also when it throws.
        unsafe { self.attach_number(fd.into_raw_fd(), image_bytes) }
    }
}

impl bridge::WeightsImage {
    /// A descriptor of the image.
    pub(crate) fn share(&self) -> Result<OwnedFd, Exception> {
        let new = self.share_number()?;
        // SAFETY: `share_number` has opened it for this call and keeps nothing of it.
        Ok(unsafe { OwnedFd::from_raw_fd(new) })
    }
}

impl bridge::RunningEngine {
    /// A descriptor of the weights image.
    pub(crate) fn share_weights(&self) -> Result<OwnedFd, Exception> {
        let new = self.share_weights_number()?;
        // SAFETY: as for the image.
        Ok(unsafe { OwnedFd::from_raw_fd(new) })
    }
}

fn abandoned() -> bool {
    crate::signals::step_is_abandoned()
}

/// `cuda/bridge.h`. An error's message begins with its kind as a digit; `engine.rs` takes it off.
#[allow(unreachable_pub)] // what the macro makes is pub; this module is not
#[cxx::bridge(namespace = "orcd::bridge")]
pub(crate) mod bridge {
    /// Hyperparameters.
    struct Shape {
        n_layers: u32,
        d_model: u32,
        d_ff: u32,
        n_heads: u32,
        n_kv_heads: u32,
        head_dim: u32,
        vocab: u32,
        /// Rotates pairs (2i, 2i + 1) instead of (i, i + n/2).
        interleaved: bool,
        rope_base: f64,
        rms_eps: f32,
    }

    /// A tensor in the image: `TensorDesc` of `engine.h`.
    struct Tensor {
        role: u32,
        layer: u32,
        ty: u32,
        rows: u64,
        cols: u64,
        offset: u64,
        bytes: u64,
    }

    /// `EngineOptions` of `engine.h`.
    struct Options {
        slots: u32,
        context: u32,
        max_batch_tokens: u32,
        threads: u32,
        kv_limit_tokens: u64,
        float_activations: bool,
    }

    extern "Rust" {
        /// Asked between the layers of a step.
        fn abandoned() -> bool;
    }

    /// A chunk of a step, its tokens apart from it.
    struct StepChunk {
        slot: u32,
        start: u32,
        n_tokens: u32,
        /// Whether the fields below mean something.
        draw: bool,
        temperature: f32,
        top_p: f32,
        top_k: u32,
        min_p: f32,
        repetition_penalty: f32,
        seed: u64,
    }

    /// `DeviceInfo` of `engine.h`.
    struct Device {
        name: String,
        compute: String,
        runtime_version: String,
        memory_total: u64,
        memory_free: u64,
    }

    // SAFETY: every function here checks its arguments and throws, slices carry their lengths, and
    // no object is used after it was moved into another.
    unsafe extern "C++" {
        include!("bridge.h");

        type DeviceBackend;
        fn cpu_backend() -> Result<UniquePtr<DeviceBackend>>;
        fn cuda_backend(ordinal: u32) -> Result<UniquePtr<DeviceBackend>>;
        fn name(self: &DeviceBackend) -> &str;
        fn layout_version(self: &DeviceBackend) -> u32;
        fn info(self: &DeviceBackend) -> Result<Device>;
        fn required_bytes(
            self: &DeviceBackend,
            shape: &Shape,
            tensors: &[Tensor],
            image_bytes: u64,
            options: &Options,
        ) -> Result<u64>;
        fn staging(self: &DeviceBackend, bytes: usize) -> Result<UniquePtr<StagingMemory>>;
        fn allocate(self: &DeviceBackend, image_bytes: u64) -> Result<UniquePtr<WeightsImage>>;
        /// Takes the descriptor `fd`.
        #[cxx_name = "attach"]
        unsafe fn attach_number(
            self: &DeviceBackend,
            fd: i32,
            image_bytes: u64,
        ) -> Result<UniquePtr<WeightsImage>>;
        fn engine(
            self: &DeviceBackend,
            shape: &Shape,
            tensors: &[Tensor],
            weights: UniquePtr<WeightsImage>,
            options: &Options,
        ) -> Result<UniquePtr<RunningEngine>>;

        type StagingMemory;
        fn bytes(self: Pin<&mut StagingMemory>) -> &mut [u8];

        type WeightsImage;
        fn write(
            self: Pin<&mut WeightsImage>,
            tensor: &Tensor,
            first_row: u64,
            raw: &[u8],
        ) -> Result<u64>;
        fn wait(self: Pin<&mut WeightsImage>, ticket: u64) -> Result<()>;
        fn read(self: &WeightsImage, tensor: &Tensor, first_row: u64, raw: &mut [u8])
        -> Result<()>;
        fn seal(self: Pin<&mut WeightsImage>) -> Result<()>;
        /// A new descriptor.
        #[cxx_name = "share"]
        fn share_number(self: &WeightsImage) -> Result<i32>;
        fn bytes(self: &WeightsImage) -> u64;

        type RunningEngine;
        fn open(self: Pin<&mut RunningEngine>, slot: u32, max_tokens: u32) -> Result<()>;
        fn close(self: Pin<&mut RunningEngine>, slot: u32) -> Result<()>;
        fn step(
            self: Pin<&mut RunningEngine>,
            chunks: &[StepChunk],
            tokens: &[u32],
            drawn: &mut [u32],
        ) -> Result<()>;
        fn logits(self: &RunningEngine, chunk: u32, to: &mut [f32]) -> Result<()>;
        fn memory_bytes(self: &RunningEngine) -> u64;
        fn resident(self: &RunningEngine) -> bool;
        /// A new descriptor.
        #[cxx_name = "share_weights"]
        fn share_weights_number(self: &RunningEngine) -> Result<i32>;
    }
}

/// `cuda/probe.h`.
#[allow(unreachable_pub)] // as above
#[cxx::bridge(namespace = "orcd::probe")]
pub(crate) mod probe {
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
        fn dequantise(ty: u32, raw: &[u8], out: &mut [f32]);
        fn quantise(x: &[f32], q: &mut [i8], d: &mut [f32], sum: &mut [i32]);
        fn rmsnorm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]);
        fn swiglu(gate: &[f32], up: &[f32], out: &mut [f32]);
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
            q: &mut [f32],
            k: &mut [f32],
            v: &mut [f32],
            out: &mut [f32],
        );
        fn throwing_chunks(threads: u32, chunks: u32, bad: u32) -> Result<u32>;
        #[allow(clippy::too_many_arguments)]
        fn draw(
            logits: &[f32],
            seen: &[u32],
            position: u32,
            temperature: f32,
            top_p: f32,
            top_k: u32,
            min_p: f32,
            repetition_penalty: f32,
            seed: u64,
        ) -> u32;
    }
}
