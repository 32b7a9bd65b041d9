//! Qwen3 with experts in every layer.

use super::{Architecture, tensors};
use crate::weights_plan::RopeStyle;

pub(super) const QWEN3MOE: Architecture = Architecture {
    experts: &[&tensors::FFN_NORM, &tensors::EXPERTS],
    ..Architecture::new(
        "qwen3moe",
        RopeStyle::Neox,
        &[&tensors::ENDS, &tensors::ATTENTION, &tensors::QK_NORMS],
        &[],
    )
};
