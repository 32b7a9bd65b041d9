//! Llama 2 and 3, Mistral, SmolLM2: biases where the file has them; divisors of the frequencies from Llama 3.1 on.
//! Mixtral is the same with experts, in older files each in tensors of its own.

use super::{Architecture, tensors};
use crate::weights_plan::RopeStyle;

pub(super) const LLAMA: Architecture = Architecture {
    experts: &[&tensors::FFN_NORM, &tensors::EXPERTS],
    separate_experts: &[&tensors::FFN_NORM, &tensors::SEPARATE_EXPERTS],
    ..Architecture::new(
        "llama",
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
