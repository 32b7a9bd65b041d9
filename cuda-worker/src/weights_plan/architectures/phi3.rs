//! Phi-3 and Phi-4: q, k and v are one tensor, gate and up another. A window goes for all layers, as the models'
//! own configurations have it (llama.cpp leaves it out). With two sets of divisors, frequencies are those of LongRoPE,
//! without a key that says so.

use super::{Architecture, Honored, tensors};
use crate::weights_plan::RopeStyle;

pub(super) const PHI3: Architecture = Architecture {
    honors: &[Honored::Window { absent: 0 }],
    ..Architecture::new(
        "phi3",
        RopeStyle::Neox,
        &[
            &tensors::ENDS,
            &tensors::FUSED_ATTENTION,
            &tensors::LONG_ROPE,
        ],
        &[&tensors::FUSED_FEED_FORWARD],
    )
};
