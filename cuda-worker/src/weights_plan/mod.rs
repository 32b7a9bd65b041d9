//! From a model file's header to what the engine needs: hyperparameters, and a place in the weights
//! image for every tensor. Pure. Whatever the engine would compute wrongly is refused here by name:
//! nothing is guessed, no tensor is skipped. What documents give an absent key is taken and noted.

mod architectures;
mod error;
mod hyperparameters;
mod image;
mod tensors;

use orcd_shared::gguf::{ALIGNMENT_KEY, Header, TensorInfo};

pub use crate::ffi::types::shared::{
    Activation, LayerKind, ModelShape, RopeScaling, RopeSpec, RopeStyle, TensorRole as Role,
};
use crate::ffi::types::shared::{TensorDesc, TensorType};
use architectures::Architecture;
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

/// A tensor of the file and its place in the image: a matrix or a vector of the model, or some rows of a matrix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedTensor {
    /// What it is.
    pub role: Role,
    /// Its block; 0 for tensors outside of blocks.
    pub layer: u32,
    /// The tensor in the file.
    pub info: TensorInfo,
    /// Rows of the whole matrix: outputs of a product; 1 for a vector.
    pub rows: u64,
    /// The row of the matrix that is the tensor's first.
    pub first_row: u64,
    /// Columns: the file's fastest dimension.
    pub cols: u64,
    /// First byte of the whole matrix in the image, a multiple of [`IMAGE_ALIGN`].
    pub offset: u64,
}

impl PlannedTensor {
    /// The whole matrix, as the engine is told.
    pub(crate) fn desc(&self) -> TensorDesc {
        TensorDesc {
            role: self.role,
            layer: self.layer,
            ty: TensorType {
                repr: self.info.ty.id(),
            },
            rows: self.rows,
            cols: self.cols,
            offset: self.offset,
            bytes: self.rows.saturating_mul(self.info.row_bytes()),
        }
    }
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
    } = hyperparameters::read(metadata, architecture, vocab, &|name| {
        header.tensor(name).is_some()
    })?;
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
