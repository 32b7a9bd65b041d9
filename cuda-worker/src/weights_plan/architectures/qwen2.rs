//! Qwen2 and Qwen2.5: q, k and v always have biases.

use super::{Architecture, tensors};
use crate::weights_plan::RopeStyle;

pub(super) const QWEN2: Architecture = Architecture {
    name: "qwen2",
    rope_style: RopeStyle::Neox,
    tensors: &[
        &tensors::DENSE,
        &tensors::QKV_BIASES,
        &tensors::ATTENTION_OUTPUT_BIAS,
        &tensors::OUTPUT_BIAS,
    ],
};
