//! The architectures that models may have, as data: one file each.

mod llama;
mod qwen2;
mod tensors;

use orcd_shared::gguf::Metadata;

use super::{ModelShape, PlanError, Role, RopeStyle};

/// All there are.
const ALL: [&Architecture; 2] = [&qwen2::QWEN2, &llama::LLAMA];

/// What a file of one `general.architecture` holds, and how it is computed with where architectures differ.
#[derive(Debug)]
pub(super) struct Architecture {
    /// The name in files, also the prefix of its keys.
    pub(super) name: &'static str,
    /// Which elements of a head are rotated together.
    pub(super) rope_style: RopeStyle,
    /// Groups of the tensors that a file may hold; every other one is refused.
    tensors: &'static [&'static [TensorRule]],
}

/// A tensor that a file may hold.
#[derive(Debug)]
pub(super) struct TensorRule {
    /// Its name; of those in a layer, after `blk.N.`.
    pub(super) name: &'static str,
    pub(super) role: Role,
    pub(super) per_layer: bool,
    /// A file may be without it; what one layer has, all have.
    pub(super) optional: bool,
    /// Its shape, fastest dimension first; one for a vector.
    ne: &'static [Width],
}

/// A dimension of a tensor.
#[derive(Debug, Clone, Copy)]
enum Width {
    Model,
    FeedForward,
    /// All query heads.
    Query,
    /// All key, or value, heads.
    KeyValue,
    HalfHead,
    Vocabulary,
}

impl Architecture {
    /// The one that a file names.
    ///
    /// # Errors
    /// It names none, or another.
    pub(super) fn of(metadata: &Metadata) -> Result<&'static Self, PlanError> {
        let found = metadata.str("general.architecture")?;
        ALL.into_iter()
            .find(|architecture| architecture.name == found)
            .ok_or_else(|| PlanError::Architecture {
                found: found.to_owned(),
                known: ALL.map(|architecture| architecture.name).join(", "),
            })
    }

    /// All tensors that a file may hold.
    pub(super) fn tensors(&self) -> impl Iterator<Item = &'static TensorRule> {
        self.tensors.iter().copied().flatten()
    }
}

impl TensorRule {
    const fn new(name: &'static str, role: Role, ne: &'static [Width]) -> Self {
        Self {
            name,
            role,
            per_layer: false,
            optional: false,
            ne,
        }
    }

    /// One for each layer.
    const fn layer(name: &'static str, role: Role, ne: &'static [Width]) -> Self {
        Self {
            per_layer: true,
            ..Self::new(name, role, ne)
        }
    }

    const fn optional(self) -> Self {
        Self {
            optional: true,
            ..self
        }
    }

    /// Elements of each dimension, fastest first.
    pub(super) fn ne(&self, shape: &ModelShape) -> Vec<u64> {
        let heads = |n: u32| u64::from(n) * u64::from(shape.head_dim);
        let elements = |width: &Width| match width {
            Width::Model => shape.d_model.into(),
            Width::FeedForward => shape.d_ff.into(),
            Width::Query => heads(shape.n_heads),
            Width::KeyValue => heads(shape.n_kv_heads),
            Width::HalfHead => u64::from(shape.head_dim) / 2,
            Width::Vocabulary => shape.vocab.into(),
        };
        self.ne.iter().map(elements).collect()
    }
}
