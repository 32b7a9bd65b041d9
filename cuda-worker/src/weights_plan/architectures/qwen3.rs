//! Qwen3: heads of queries and keys are normed, and nothing has a bias.

use super::{Architecture, tensors};
use crate::weights_plan::RopeStyle;

pub(super) const QWEN3: Architecture = Architecture::new(
    "qwen3",
    RopeStyle::Neox,
    &[&tensors::ENDS, &tensors::ATTENTION, &tensors::QK_NORMS],
    &[&tensors::FEED_FORWARD],
);
