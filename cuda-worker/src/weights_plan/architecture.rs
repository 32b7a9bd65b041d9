//! The architectures there is code for, and where they differ.

use orcd_shared::gguf::Metadata;

use super::{PlanError, RopeStyle};

/// `general.architecture`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// Qwen2 and Qwen2.5: biases on q, k and v, rotation of halves.
    Qwen2,
    /// Llama 2 and 3, Mistral: biases where the file has them, rotation of neighbours.
    Llama,
}

impl Architecture {
    const ALL: [Self; 2] = [Self::Qwen2, Self::Llama];

    pub(super) fn of(metadata: &Metadata) -> Result<Self, PlanError> {
        let found = metadata.str("general.architecture")?;
        Self::ALL
            .into_iter()
            .find(|a| a.name() == found)
            .ok_or_else(|| PlanError::Architecture {
                found: found.to_owned(),
                known: Self::ALL.map(Self::name).join(", "),
            })
    }

    /// The name in files, also the prefix of its keys.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Qwen2 => "qwen2",
            Self::Llama => "llama",
        }
    }

    /// Whether q, k and v always have biases. Elsewhere they may.
    pub(super) const fn needs_qkv_bias(self) -> bool {
        matches!(self, Self::Qwen2)
    }

    /// Whether the three matrices of the feed-forward part may have biases.
    pub(super) const fn has_ffn_bias(self) -> bool {
        matches!(self, Self::Llama)
    }

    /// Whether the logits may have a bias.
    pub(super) const fn has_output_bias(self) -> bool {
        matches!(self, Self::Qwen2)
    }

    /// Whether a tensor of divisors of the rotation frequencies may be there.
    pub(super) const fn has_rope_freqs(self) -> bool {
        matches!(self, Self::Llama)
    }

    /// Which elements of a head are rotated together.
    pub(super) const fn rope_style(self) -> RopeStyle {
        match self {
            Self::Llama => RopeStyle::Interleaved,
            Self::Qwen2 => RopeStyle::Neox,
        }
    }
}
