//! From a model file's header to what the engine needs: hyperparameters, and a place in the weights
//! image for every tensor. Pure. Whatever the engine would compute wrongly is refused here by name:
//! nothing is guessed, no tensor is skipped. What documents give an absent key is taken and noted.

mod architecture;
mod error;
mod hyperparameters;
mod tensors;

use orcd_shared::gguf::{ALIGNMENT_KEY, Header, TensorInfo};

pub use architecture::Architecture;
pub use error::PlanError;
use hyperparameters::Hyperparameters;

/// Alignment of tensors in the image, bytes.
pub const IMAGE_ALIGN: u64 = 256;

/// Everything the engine is told about a model.
#[derive(Debug, Clone)]
pub struct ModelPlan {
    /// "`Q4_K_M`", from `general.file_type`.
    pub quant_kind: String,
    /// Longest context the model was made for, tokens.
    pub context_length: u32,
    /// Hyperparameters.
    pub shape: ModelShape,
    /// All tensors, in the file's order.
    pub tensors: Vec<PlannedTensor>,
    /// Size of the weights image.
    pub image_bytes: u64,
    /// Keys that the file lacks and that have a documented value.
    pub absent: Vec<AbsentKey>,
}

/// A key that a file does not have, and the value that the documents give it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AbsentKey {
    /// The key in full, such as `llama.rope.freq_base`.
    pub key: String,
    /// The value taken.
    pub taken: String,
}

/// Hyperparameters; `ModelShape` of `engine.h`.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelShape {
    /// Blocks.
    pub n_layers: u32,
    /// Width of the residual stream.
    pub d_model: u32,
    /// Width inside the feed-forward part.
    pub d_ff: u32,
    /// Query heads.
    pub n_heads: u32,
    /// Key and value heads.
    pub n_kv_heads: u32,
    /// Elements of a head.
    pub head_dim: u32,
    /// Tokens in the vocabulary.
    pub vocab: u32,
    /// Pairs (2i, 2i + 1) are rotated, instead of (i, i + n/2).
    pub rope_interleaved: bool,
    /// Base of the rotation frequencies.
    pub rope_base: f64,
    /// Epsilon of `RMSNorm`.
    pub rms_eps: f32,
}

/// A tensor of the file and its place in the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedTensor {
    /// What it is.
    pub role: Role,
    /// Its block; 0 for tensors outside of blocks.
    pub layer: u32,
    /// The tensor in the file.
    pub info: TensorInfo,
    /// Rows: outputs of a product; 1 for a vector.
    pub rows: u64,
    /// Columns: the file's fastest dimension.
    pub cols: u64,
    /// First byte in the image, a multiple of [`IMAGE_ALIGN`].
    pub offset: u64,
}

/// Roles of tensors, numbered as `TensorRole` of `engine.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Role {
    /// (vocab, `d_model`)
    TokenEmbedding = 0,
    /// (`d_model`)
    OutputNorm,
    /// (vocab, `d_model`)
    Output,
    /// (`head_dim` / 2)
    RopeFreqs,
    /// (`d_model`)
    AttnNorm,
    /// (`n_heads` * `head_dim`, `d_model`)
    AttnQ,
    /// (`n_kv_heads` * `head_dim`, `d_model`)
    AttnK,
    /// (`n_kv_heads` * `head_dim`, `d_model`)
    AttnV,
    /// (`n_heads` * `head_dim`)
    AttnQBias,
    /// (`n_kv_heads` * `head_dim`)
    AttnKBias,
    /// (`n_kv_heads` * `head_dim`)
    AttnVBias,
    /// (`d_model`, `n_heads` * `head_dim`)
    AttnOutput,
    /// (`d_model`)
    FfnNorm,
    /// (`d_ff`, `d_model`)
    FfnGate,
    /// (`d_ff`, `d_model`)
    FfnUp,
    /// (`d_model`, `d_ff`)
    FfnDown,
    /// (`d_model`)
    AttnOutputBias,
    /// (`d_ff`)
    FfnGateBias,
    /// (`d_ff`)
    FfnUpBias,
    /// (`d_model`)
    FfnDownBias,
    /// (vocab)
    OutputBias,
}

/// Plans the model of a file's header.
///
/// # Errors
/// An architecture, key, tensor, type or shape that this engine would compute wrongly.
pub fn plan(header: &Header) -> Result<ModelPlan, PlanError> {
    let metadata = &header.metadata;
    let architecture = Architecture::of(metadata)?;
    let vocab = tensors::vocabulary(header)?;
    let Hyperparameters {
        shape,
        context_length,
        mut absent,
    } = hyperparameters::read(metadata, architecture, vocab)?;
    if !metadata.contains(ALIGNMENT_KEY) {
        absent.push(AbsentKey {
            key: ALIGNMENT_KEY.to_owned(),
            taken: header.alignment.to_string(),
        });
    }
    let (tensors, image_bytes) = tensors::place(header, architecture, &shape)?;
    Ok(ModelPlan {
        quant_kind: hyperparameters::quant_kind(header)?,
        context_length,
        shape,
        tensors,
        image_bytes,
        absent,
    })
}
