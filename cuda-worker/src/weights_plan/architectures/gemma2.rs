//! Gemma 2: norms before and behind each part, soft caps, a window in every other layer.

use super::{Architecture, EmbeddingScale, Honored, Layers, tensors};
use crate::weights_plan::{Activation, RopeStyle};

pub(super) const GEMMA2: Architecture = Architecture {
    activation: Activation::GeGlu,
    layers: Layers::Windows {
        period: 2,
        base: None,
    },
    honors: &[
        Honored::Window { absent: 4096 },
        // Files made before these keys are of the same models.
        Honored::SoftCaps {
            attention: 50.0,
            logits: 30.0,
        },
    ],
    embedding: EmbeddingScale::RootOfWidth,
    // The 27B.
    scaled_by_width: Some(46),
    ..Architecture::new(
        "gemma2",
        RopeStyle::Neox,
        &[&tensors::ENDS, &tensors::ATTENTION, &tensors::POST_NORMS],
        &[&tensors::FEED_FORWARD],
    )
};
