//! Single operations of the CPU backend, for tests that compare them with their own reference.

use orcd_shared::gguf::TensorType;
use orcd_shared::sampling::SamplingParams;

use crate::ffi::probe as ffi;
use crate::weights_plan::ModelShape;

pub use crate::ffi::probe::{Piece, Use};

/// A form of the matrix product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Form {
    /// Tiles in plain C++.
    Portable = 0,
    /// Tiles with AVX2.
    Avx2 = 1,
    /// Tiles with AVX-512 VNNI.
    Avx512 = 2,
    /// Row by row, written as plainly as the contract.
    Reference = 3,
    /// Activations that are not quantized.
    FloatActivations = 4,
}

impl Form {
    /// Those of [`Form`] that compute with quantized activations, as far as this machine can.
    #[must_use]
    pub fn exact() -> Vec<Self> {
        let all = [Self::Reference, Self::Portable, Self::Avx2, Self::Avx512];
        all.into_iter()
            .filter(|form| ffi::has_form(*form as u32))
            .collect()
    }
}

/// A matrix as the file stores it.
#[derive(Debug, Clone)]
pub struct Matrix {
    /// How.
    pub ty: TensorType,
    /// Outputs.
    pub rows: u32,
    /// Inputs.
    pub cols: u32,
    /// (`rows`, row bytes)
    pub raw: Vec<u8>,
}

impl Matrix {
    fn assert_whole(&self) {
        let row = u64::from(self.cols) / self.ty.block_len() * self.ty.block_bytes();
        assert_eq!(
            u64::from(self.cols) % self.ty.block_len(),
            0,
            "whole blocks"
        );
        assert_eq!(
            self.raw.len() as u64,
            u64::from(self.rows) * row,
            "whole rows"
        );
    }
}

/// y (n, rows) = w · x (n, cols), or y ⊕ w · x.
///
/// # Panics
/// If the sizes don't fit each other.
pub fn product(form: Form, w: &Matrix, x: &[f32], add: bool, threads: u32, y: &mut [f32]) {
    w.assert_whole();
    assert_eq!(x.len() % w.cols as usize, 0, "whole rows of x");
    assert_eq!(
        y.len(),
        x.len() / w.cols as usize * w.rows as usize,
        "a y for each row"
    );
    let Matrix {
        ty,
        rows,
        cols,
        raw,
    } = w;
    ffi::product(form as u32, ty.id(), *rows, *cols, raw, x, add, threads, y);
}

/// All values of a matrix.
///
/// # Panics
/// If its bytes are not whole.
#[must_use]
pub fn dequantize(w: &Matrix) -> Vec<f32> {
    w.assert_whole();
    let mut out = vec![f32::NAN; (w.rows * w.cols) as usize];
    ffi::dequantize(w.ty.id(), &w.raw, &mut out);
    out
}

/// What [`quantize`] gives.
pub struct Quantized {
    /// The integers.
    pub q: Vec<i8>,
    /// A scale for each block.
    pub d: Vec<f32>,
    /// What is kept of the sums of each 32.
    pub sum: Vec<i32>,
    /// A word of shifts for each block of 256.
    pub shifts: Vec<u32>,
}

/// A row as int8 in blocks of `width` (32 or 256).
///
/// # Panics
/// If its length is no multiple of `width`.
#[must_use]
pub fn quantize(width: usize, x: &[f32]) -> Quantized {
    assert_eq!(x.len() % width, 0, "whole blocks");
    let supers = width == 256;
    let mut out = Quantized {
        q: vec![77; x.len()],
        d: vec![f32::NAN; x.len() / width],
        sum: vec![77; x.len() / 32],
        shifts: vec![u32::MAX; if supers { x.len() / 256 } else { 0 }],
    };
    ffi::quantize(
        supers,
        x,
        &mut out.q,
        &mut out.d,
        &mut out.sum,
        &mut out.shifts,
    );
    out
}

/// One row.
///
/// # Panics
/// If the lengths differ.
#[must_use]
pub fn rmsnorm(x: &[f32], weight: &[f32], eps: f32) -> Vec<f32> {
    assert_eq!(x.len(), weight.len(), "a weight for each");
    let mut out = vec![f32::NAN; x.len()];
    ffi::rmsnorm(x, weight, eps, &mut out);
    out
}

/// One row: `gelu` or `SiLU` of `gate`, times `up`.
///
/// # Panics
/// If the lengths differ.
#[must_use]
pub fn glu(gelu: bool, gate: &[f32], up: &[f32]) -> Vec<f32> {
    assert_eq!(gate.len(), up.len(), "an up for each gate");
    let mut out = vec![f32::NAN; gate.len()];
    ffi::glu(gelu, gate, up, &mut out);
    out
}

/// `exp2`, `log`, `sigmoid`, `tanh`, `gelu`, `soft_cap_30`, or `gumbel` of the random words that are the bits of `x`.
///
/// # Panics
/// For any other name.
#[must_use]
pub fn function(name: &str, x: &[f32]) -> Vec<f32> {
    let mut y = vec![f32::NAN; x.len()];
    assert!(ffi::function(name, x, &mut y).is_ok(), "no function {name}");
    y
}

/// Binary16 of each value, as bits.
#[must_use]
pub fn to_f16(x: &[f32]) -> Vec<u16> {
    let mut y = vec![0; x.len()];
    ffi::to_f16(x, &mut y);
    y
}

/// The value of a binary16.
#[must_use]
pub fn from_f16(h: u16) -> f32 {
    ffi::from_f16(h)
}

/// Heads and rotation of an attention.
#[derive(Debug, Clone)]
pub struct Heads {
    /// Query heads.
    pub q: u32,
    /// Key and value heads.
    pub kv: u32,
    /// Elements of a head.
    pub dim: u32,
    /// Pairs (2i, 2i + 1).
    pub interleaved: bool,
    /// Base of the rotation frequencies.
    pub base: f64,
    /// Their divisors; empty for none.
    pub factors: Vec<f32>,
}

/// What a layer's attention has beside its heads.
#[derive(Debug, Clone, Default)]
pub struct AttentionParams {
    /// Keys that a row sees, its own the last of them; 0: all up to its own.
    pub window: u32,
    /// Of the scores; 0: none.
    pub soft_cap: f32,
    /// One for each query head; empty for none.
    pub sinks: Vec<f32>,
}

/// Attention of the rows at positions `first` .. n of one sequence of n tokens; q (n, heads) and k come back rotated.
/// Of rows before `first` the result is NaN.
///
/// # Panics
/// If the sizes don't fit each other.
#[must_use]
pub fn attend(
    form: Form,
    heads: &Heads,
    params: &AttentionParams,
    first: usize,
    q: &mut [f32],
    k: &mut [f32],
    v: &mut [f32],
) -> Vec<f32> {
    let (width, kv_width) = (
        (heads.q * heads.dim) as usize,
        (heads.kv * heads.dim) as usize,
    );
    let n = q.len() / width;
    assert_eq!(q.len(), n * width, "whole rows of q");
    assert_eq!(k.len(), n * kv_width, "as many rows of k");
    assert_eq!(v.len(), k.len(), "as many rows of v");
    assert!(first < n, "a row that attends");
    let (factors, sinks) = (heads.factors.len(), params.sinks.len());
    assert!(
        factors == 0 || factors == heads.dim as usize / 2,
        "a factor for each pair"
    );
    assert!(
        sinks == 0 || sinks == heads.q as usize,
        "a sink for each query head"
    );
    let mut out = vec![f32::NAN; q.len()];
    ffi::attend(
        form as u32,
        heads.q,
        heads.kv,
        heads.dim,
        heads.interleaved,
        heads.base,
        &heads.factors,
        params.window,
        params.soft_cap,
        &params.sinks,
        first as u32,
        q,
        k,
        v,
        &mut out,
    );
    out
}

/// Whose operations have a scratch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum ScratchOf {
    /// The processor.
    Cpu = 0,
    /// A GPU.
    Gpu = 1,
    /// A GPU of Hopper's kind.
    Warpgroups = 2,
}

/// Bytes of scratch of a model for steps of `rows` rows and `samples` samples, and its pieces.
#[must_use]
pub fn scratch(
    shape: &ModelShape,
    rows: u32,
    samples: u32,
    backend: ScratchOf,
) -> (u64, Vec<Piece>) {
    let widths = ffi::Widths {
        d_model: shape.d_model,
        d_ff: shape.d_ff,
        n_heads: shape.n_heads,
        n_kv_heads: shape.n_kv_heads,
        head_dim: shape.head_dim,
        vocab: shape.vocab,
        n_experts: shape.n_experts,
        n_experts_used: shape.n_experts_used,
    };
    let mut pieces = Vec::new();
    let bytes = ffi::scratch(&widths, rows, samples, backend as u32, &mut pieces);
    (bytes, pieces)
}

/// How many of a step's rows a feed-forward part takes at once, at most `most`.
///
/// # Panics
/// If `most` is 0.
#[must_use]
pub fn feed_forward_group(rows: u32, most: u32) -> u32 {
    assert!(most > 0, "room for a row");
    ffi::feed_forward_group(rows, most)
}

/// In which launches `rows` (empty: all) attend one by one, each with room for the partial results of so many runs and for
/// so many rows; and how many runs lie before those of each row of the step.
///
/// # Panics
/// If there is no such row, or no room for one.
#[must_use]
pub fn place_partials(
    positions: &[u32],
    rows: &[u32],
    room_runs: u64,
    room_rows: u32,
) -> (Vec<u32>, Vec<u32>) {
    assert!(room_rows > 0, "room for a row");
    assert!(
        rows.iter().all(|row| (*row as usize) < positions.len()),
        "rows of the step"
    );
    let mut place = vec![u32::MAX; positions.len()];
    let launches = ffi::place_partials(positions, rows, room_runs, room_rows, &mut place);
    (launches, place)
}

/// What the packed sample of a type hashes to: committed beside its layout.
#[must_use]
pub fn golden_hash(ty: TensorType) -> u64 {
    ffi::golden_hash(ty.id())
}

/// What a token is sampled by beside its logits and parameters.
#[derive(Debug, Clone, Copy, Default)]
pub struct Beside<'a> {
    /// The tokens before it.
    pub before: &'a [u32],
    /// How many of them are the prompt.
    pub output_start: u32,
    /// What is added to logits of tokens, ids ascending.
    pub biases: &'a [(u32, f32)],
    /// The tokens that it may be, a bit for each; empty: all.
    pub mask: &'a [u32],
}

/// The token sampled at `position`, with `before` the tokens before it, all of them of the output; one of `mask`
/// alone, unless that is empty.
///
/// # Panics
/// As [`draw_beside`].
#[must_use]
pub fn draw(
    logits: &[f32],
    before: &[u32],
    mask: &[u32],
    position: u32,
    sampling: &SamplingParams,
) -> u32 {
    let beside = Beside {
        before,
        mask,
        ..Beside::default()
    };
    draw_beside(logits, &beside, position, sampling)
}

/// The token sampled at `position`.
///
/// # Panics
/// If a token has no logit, or the mask not as many words as that takes.
#[must_use]
pub fn draw_beside(
    logits: &[f32],
    beside: &Beside<'_>,
    position: u32,
    sampling: &SamplingParams,
) -> u32 {
    let Beside {
        before,
        output_start,
        biases,
        mask,
    } = *beside;
    let (biased, biases): (Vec<u32>, Vec<f32>) = biases.iter().copied().unzip();
    assert!(
        (before.iter().chain(&biased)).all(|token| (*token as usize) < logits.len()),
        "tokens of the vocabulary"
    );
    assert!(
        mask.is_empty() || mask.len() == logits.len().div_ceil(32),
        "a bit for each"
    );
    let sampling = (*sampling).into();
    ffi::draw(
        logits,
        before,
        output_start,
        mask,
        &biased,
        &biases,
        position,
        &sampling,
    )
}

/// The logprob of `token`, and the `n` most likely tokens with theirs.
///
/// # Panics
/// If the token has no logit, or there is no room for so many.
#[must_use]
pub fn logprobs(logits: &[f32], token: u32, n: usize) -> (f32, Vec<(u32, f32)>) {
    assert!((token as usize) < logits.len(), "a token of the vocabulary");
    assert!(n <= logits.len().min(20), "as many as there are");
    let (mut top, mut logprobs) = (vec![0; n], vec![0.0; n + 1]);
    ffi::logprobs(logits, token, &mut top, &mut logprobs);
    let of_top = top.into_iter().zip(logprobs[1..].iter().copied());
    (logprobs[0], of_top.collect())
}

/// Runs `chunks` chunks on a pool of `threads`, those from number `bad` on throwing, then as many
/// sound ones; how many of those ran.
///
/// # Errors
/// What the first chunk threw, and how many ran after it.
pub fn throwing_chunks(threads: u32, chunks: u32, bad: u32) -> Result<u32, String> {
    ffi::throwing_chunks(threads, chunks, bad).map_err(|e| e.what().to_owned())
}
