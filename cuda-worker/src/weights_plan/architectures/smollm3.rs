//! SmolLM3: Llama's layers, of which every fourth rotates nothing. No key says so.

use super::{Architecture, Layers, tensors};
use crate::weights_plan::RopeStyle;

pub(super) const SMOLLM3: Architecture = Architecture {
    layers: Layers::Unrotated { period: 4 },
    ..Architecture::new(
        "smollm3",
        RopeStyle::Interleaved,
        &[
            &tensors::ENDS,
            &tensors::ATTENTION,
            &tensors::OPTIONAL_QKV_BIASES,
        ],
        &[&tensors::FEED_FORWARD],
    )
};
