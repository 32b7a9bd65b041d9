//! Qwen2 and Qwen2.5: q, k and v always have biases.

use super::{Architecture, tensors};
use crate::weights_plan::RopeStyle;

pub(super) const QWEN2: Architecture = Architecture::new(
    "qwen2",
    RopeStyle::Neox,
    &[
        &tensors::ENDS,
        &tensors::ATTENTION,
        &tensors::QKV_BIASES,
        &tensors::ATTENTION_OUTPUT_BIAS,
        &tensors::OUTPUT_BIAS,
    ],
    &[&tensors::FEED_FORWARD],
);
