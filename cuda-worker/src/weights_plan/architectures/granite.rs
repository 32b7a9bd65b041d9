//! Granite 3 and 4, the dense ones: Llama's layers, and four scales.

use super::{Architecture, Honored, tensors};
use crate::weights_plan::RopeStyle;

pub(super) const GRANITE: Architecture = Architecture {
    honors: &[Honored::Scales, Honored::RopeSwitch],
    ..Architecture::new(
        "granite",
        RopeStyle::Interleaved,
        &[
            &tensors::ENDS,
            &tensors::ATTENTION,
            &tensors::ROPE_FREQS,
            &tensors::OPTIONAL_QKV_BIASES,
            &tensors::ATTENTION_OUTPUT_BIAS,
        ],
        &[&tensors::FEED_FORWARD, &tensors::FEED_FORWARD_BIASES],
    )
};
