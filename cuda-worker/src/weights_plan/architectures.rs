//! The architectures that models may have, as data: one file each.

mod gemma2;
mod gemma3;
mod gpt_oss;
mod granite;
mod llama;
mod mistral3;
mod phi3;
mod qwen2;
mod qwen3;
mod qwen3moe;
mod smollm3;
mod tensors;

use orcd_shared::gguf::Metadata;

use super::{Activation, ModelShape, PlanError, Role, RopeStyle};

/// All there are.
const ALL: [&Architecture; 11] = [
    &qwen2::QWEN2,
    &qwen3::QWEN3,
    &qwen3moe::QWEN3MOE,
    &llama::LLAMA,
    &mistral3::MISTRAL3,
    &granite::GRANITE,
    &smollm3::SMOLLM3,
    &phi3::PHI3,
    &gemma2::GEMMA2,
    &gemma3::GEMMA3,
    &gpt_oss::GPT_OSS,
];

/// What a file of one `general.architecture` holds, and how it is computed with where architectures differ.
#[derive(Debug)]
pub(super) struct Architecture {
    /// The name in files, also the prefix of its keys.
    pub(super) name: &'static str,
    /// Which elements of a head are rotated together.
    pub(super) rope_style: RopeStyle,
    /// What gate and up become together.
    pub(super) activation: Activation,
    /// How its layers differ.
    pub(super) layers: Layers,
    /// Keys that it honors, of those that others must have at a value that changes nothing.
    pub(super) honors: &'static [Honored],
    /// What embeddings are multiplied by where no key says it.
    pub(super) embedding: EmbeddingScale,
    /// Number of layers of the one size whose scores are scaled by 1 / sqrt(`d_model` / `n_heads`), whatever the size
    /// of a head is: no key says so.
    pub(super) scaled_by_width: Option<u32>,
    /// Whether YaRN's bounds are whole pairs.
    pub(super) rounds_bounds: bool,
    /// Groups of the tensors that a file may hold; every other one is refused.
    tensors: &'static [&'static [TensorRule]],
    /// Of feed-forward parts without experts; none: there is no such file.
    dense: &'static [&'static [TensorRule]],
    /// Of those with experts; none: there is no such file.
    experts: &'static [&'static [TensorRule]],
    /// Of those in files that have a tensor for each expert; none: there is no such file.
    separate_experts: &'static [&'static [TensorRule]],
}

/// How a file has the feed-forward parts of its layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FeedForwards {
    /// One in each layer.
    Dense,
    /// Experts, all of a layer in one tensor.
    Experts,
    /// Experts, each in tensors of its own.
    SeparateExperts,
}

/// How the layers of a model differ from each other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Layers {
    /// Not.
    Alike,
    /// All but the last of so many, and so on, have the window that a key says. A pattern in the file goes before.
    Windows {
        period: u32,
        /// Layers with a window rotate with a base of their own and without scaling: this one where no key says it.
        base: Option<f32>,
    },
    /// The last of so many, and so on, rotates nothing.
    Unrotated { period: u32 },
}

/// A group of keys that some architectures honor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Honored {
    /// `embedding_scale`, `residual_scale`, `logit_scale`, `attention.scale`.
    Scales,
    /// `attn_logit_softcapping`, `final_logit_softcapping`, and what is taken where a file has none; 0: no cap.
    SoftCaps { attention: f32, logits: f32 },
    /// `attention.sliding_window`, and what is taken where a file has none; 0: no window.
    Window { absent: u32 },
    /// `rope.scaling.finetuned`: false is no rotation at all.
    RopeSwitch,
    /// `attention.temperature_scale`: queries far into the context are scaled up.
    QueryScale,
}

/// What embeddings are multiplied by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EmbeddingScale {
    One,
    /// The square root of their number of values.
    RootOfWidth,
}

/// A tensor that a file may hold.
#[derive(Debug)]
pub(super) struct TensorRule {
    /// Its name; of those in a layer, after `blk.N.`; of those of an expert, before `.E.weight`.
    pub(super) name: &'static str,
    pub(super) role: Role,
    pub(super) per_layer: bool,
    /// One for each expert of a layer, its rows after those of the expert before: `blk.N.NAME.E.weight`.
    pub(super) per_expert: bool,
    /// A file may be without it; what one layer has, all have.
    pub(super) optional: bool,
    /// Of a tensor that holds several by its rows, what these are; `role` is then that of the first.
    pub(super) parts: &'static [(Role, Width)],
    /// Its shape, fastest dimension first; one for a vector.
    ne: &'static [Width],
}

/// A dimension of a tensor.
#[derive(Debug, Clone, Copy)]
pub(super) enum Width {
    Model,
    FeedForward,
    /// Gate and up.
    GateUp,
    /// All query heads.
    Query,
    /// All key, or value, heads.
    KeyValue,
    /// All heads of all three.
    QueryKeyValue,
    Head,
    /// Query heads.
    Heads,
    Experts,
    /// Pairs that are rotated.
    Pairs,
    Vocabulary,
}

impl Width {
    /// Elements.
    pub(super) fn of(self, shape: &ModelShape) -> u64 {
        let heads = |n: u32| u64::from(n) * u64::from(shape.head_dim);
        match self {
            Self::Model => shape.d_model.into(),
            Self::FeedForward => shape.d_ff.into(),
            Self::GateUp => 2 * u64::from(shape.d_ff),
            Self::Query => heads(shape.n_heads),
            Self::KeyValue => heads(shape.n_kv_heads),
            Self::QueryKeyValue => heads(shape.n_heads) + 2 * heads(shape.n_kv_heads),
            Self::Head => shape.head_dim.into(),
            Self::Heads => shape.n_heads.into(),
            Self::Experts => shape.n_experts.into(),
            Self::Pairs => shape.kinds[0].rope.pairs.into(),
            Self::Vocabulary => shape.vocab.into(),
        }
    }
}

impl Architecture {
    /// One whose layers are all alike, gated by `SiLU`, and that honors no key beside those of all.
    const fn new(
        name: &'static str,
        rope_style: RopeStyle,
        tensors: &'static [&'static [TensorRule]],
        dense: &'static [&'static [TensorRule]],
    ) -> Self {
        Self {
            name,
            rope_style,
            activation: Activation::SwiGlu,
            layers: Layers::Alike,
            honors: &[],
            embedding: EmbeddingScale::One,
            scaled_by_width: None,
            rounds_bounds: true,
            tensors,
            dense,
            experts: &[],
            separate_experts: &[],
        }
    }

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
    pub(super) fn tensors(&self, parts: FeedForwards) -> impl Iterator<Item = &'static TensorRule> {
        let of_parts = match parts {
            FeedForwards::Dense => self.dense,
            FeedForwards::Experts => self.experts,
            FeedForwards::SeparateExperts => self.separate_experts,
        };
        self.tensors.iter().chain(of_parts).copied().flatten()
    }

    /// Whether there are files with a tensor for each expert.
    pub(super) fn has_separate_experts(&self) -> bool {
        !self.separate_experts.is_empty()
    }

    /// Whether there are files with experts.
    pub(super) fn has_experts(&self) -> bool {
        !self.experts.is_empty()
    }

    /// Whether there are files without.
    pub(super) fn has_dense(&self) -> bool {
        !self.dense.is_empty()
    }
}

impl TensorRule {
    const fn new(name: &'static str, role: Role, ne: &'static [Width]) -> Self {
        Self {
            name,
            role,
            per_layer: false,
            per_expert: false,
            optional: false,
            parts: &[],
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

    /// One for each expert of each layer.
    const fn expert(name: &'static str, role: Role, ne: &'static [Width]) -> Self {
        Self {
            per_expert: true,
            ..Self::layer(name, role, ne)
        }
    }

    const fn optional(self) -> Self {
        Self {
            optional: true,
            ..self
        }
    }

    /// One for each layer that holds several tensors of the layer by its rows.
    const fn fused(
        name: &'static str,
        parts: &'static [(Role, Width)],
        ne: &'static [Width],
    ) -> Self {
        let (first, _) = parts[0];
        Self {
            parts,
            ..Self::layer(name, first, ne)
        }
    }

    /// Elements of each dimension, fastest first.
    pub(super) fn ne(&self, shape: &ModelShape) -> Vec<u64> {
        self.ne.iter().map(|width| width.of(shape)).collect()
    }
}
