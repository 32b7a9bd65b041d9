//! Gemma 3, its text part: as Gemma 2, with norms of heads instead of the soft cap of scores, and a base of
//! rotation of its own in layers with a window.

use super::{Architecture, EmbeddingScale, Honored, Layers, tensors};
use crate::weights_plan::{Activation, RopeStyle};

pub(super) const GEMMA3: Architecture = Architecture {
    activation: Activation::GeGlu,
    layers: Layers::Windows {
        period: 6,
        base: Some(10_000.0),
    },
    honors: &[
        Honored::Window { absent: 0 },
        Honored::SoftCaps {
            attention: 0.0,
            logits: 0.0,
        },
    ],
    embedding: EmbeddingScale::RootOfWidth,
    // The 27B.
    scaled_by_width: Some(62),
    ..Architecture::new(
        "gemma3",
        RopeStyle::Neox,
        &[
            &tensors::ENDS,
            &tensors::ATTENTION,
            &tensors::QK_NORMS,
            &tensors::POST_NORMS,
        ],
        &[&tensors::FEED_FORWARD],
    )
};
