//! Ministral 3: Llama's layers, and queries that grow with the distance from the beginning.

use super::{Architecture, Honored, tensors};
use crate::weights_plan::RopeStyle;

pub(super) const MISTRAL3: Architecture = Architecture {
    honors: &[Honored::QueryScale],
    ..Architecture::new(
        "mistral3",
        RopeStyle::Interleaved,
        &[&tensors::ENDS, &tensors::ATTENTION, &tensors::ROPE_FREQS],
        &[&tensors::FEED_FORWARD],
    )
};
