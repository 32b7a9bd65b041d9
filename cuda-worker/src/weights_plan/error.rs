//! Why a file cannot be run.

use orcd_shared::gguf::GgufError;

/// What is wrong with a model file, for this engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A key is missing or of the wrong type.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// An architecture without code for it.
    #[error("architecture '{found}' is not supported; this engine runs {known}")]
    Architecture {
        /// `general.architecture`.
        found: String,
        /// What it runs.
        known: String,
    },
    /// A key whose value the engine cannot honor.
    #[error("{key} is {found}, {reason}")]
    Key {
        /// The key.
        key: String,
        /// Its value.
        found: String,
        /// What it must be, or why it can't be run.
        reason: String,
    },
    /// A tensor that the architecture needs.
    #[error("tensor {tensor} is missing")]
    Missing {
        /// Its name.
        tensor: String,
    },
    /// A tensor that nothing would use: the model means something else than the engine computes.
    #[error("tensor {tensor} has no place in architecture {architecture}")]
    Unexpected {
        /// Its name.
        tensor: String,
        /// `general.architecture`.
        architecture: &'static str,
    },
    /// A tensor of another shape; fastest dimension first, as in the file.
    #[error("tensor {tensor} has shape {found:?}, expected {expected:?}")]
    Shape {
        /// Its name.
        tensor: String,
        /// As the hyperparameters say.
        expected: Vec<u64>,
        /// As the file has it.
        found: Vec<u64>,
    },
    /// A router that is quantized.
    #[error("tensor {tensor} has type {found}, a router must be of floats")]
    RouterType {
        /// Its name.
        tensor: String,
        /// Type in the file.
        found: &'static str,
    },
    /// Quantized experts whose rows don't fill the groups that rows are packed in.
    #[error("tensor {tensor} has experts of {rows} rows, must be a multiple of {group}")]
    ExpertRows {
        /// Its name.
        tensor: String,
        /// Of each expert.
        rows: u64,
        /// Rows of a group.
        group: u64,
    },
    /// Experts of one matrix in tensors of different types.
    #[error(
        "tensor {tensor} has type {found} and {other} has {expected}, the experts of a layer must have one"
    )]
    ExpertType {
        /// Its name.
        tensor: String,
        /// Its type.
        found: &'static str,
        /// That of the expert that comes first in the file.
        other: String,
        /// Its type.
        expected: &'static str,
    },
    /// A vector that isn't stored as F32.
    #[error("tensor {tensor} has type {found}, only F32 is supported for it")]
    VectorType {
        /// Its name.
        tensor: String,
        /// Type in the file.
        found: &'static str,
    },
}
