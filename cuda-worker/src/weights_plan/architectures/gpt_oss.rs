//! gpt-oss: experts with biases in every layer, sinks in attention, a window in every other layer.

use super::{Architecture, Honored, Layers, tensors};
use crate::weights_plan::{Activation, RopeStyle};

pub(super) const GPT_OSS: Architecture = Architecture {
    activation: Activation::ClampedSwiGlu,
    layers: Layers::Windows {
        period: 2,
        base: None,
    },
    honors: &[Honored::Window { absent: 0 }],
    rounds_bounds: false,
    experts: &[
        &tensors::FFN_NORM_BEHIND_ATTENTION,
        &tensors::EXPERTS,
        &tensors::EXPERT_BIASES,
    ],
    ..Architecture::new(
        "gpt-oss",
        RopeStyle::Neox,
        &[
            &tensors::ENDS,
            &tensors::ATTENTION,
            &tensors::SINKS,
            &tensors::QKV_BIASES,
            &tensors::ATTENTION_OUTPUT_BIAS,
        ],
        &[],
    )
};
