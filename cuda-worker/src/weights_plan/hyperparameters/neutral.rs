//! Keys that change what a model computes, for architectures that have nothing for them.

use super::keys::Keys;
use crate::weights_plan::PlanError;
use crate::weights_plan::architectures::{Architecture, Honored};

const EXPERTS: &str = "expert_count";

/// Each with the one value under which it changes nothing, and who honors it.
const ALL: [(&str, Neutral, fn(&Honored) -> bool); 10] = [
    (EXPERTS, Neutral::Zero, |_| false),
    ("attention.sliding_window", Neutral::Zero, is_window),
    ("attention.logit_softcapping", Neutral::Zero, |_| false),
    ("attn_logit_softcapping", Neutral::Zero, is_soft_caps),
    ("final_logit_softcapping", Neutral::Zero, is_soft_caps),
    ("attention.clamp_kqv", Neutral::Zero, |_| false),
    ("attention.scale", Neutral::Zero, is_scales),
    ("logit_scale", Neutral::One, is_scales),
    ("embedding_scale", Neutral::One, is_scales),
    ("residual_scale", Neutral::One, is_scales),
];

#[derive(Clone, Copy, PartialEq)]
enum Neutral {
    Zero,
    One,
}

fn is_scales(honored: &Honored) -> bool {
    matches!(honored, Honored::Scales)
}

fn is_soft_caps(honored: &Honored) -> bool {
    matches!(honored, Honored::SoftCaps { .. })
}

fn is_window(honored: &Honored) -> bool {
    matches!(honored, Honored::Window { .. })
}

/// Refuses keys that the architecture does not honor and that say something.
pub(super) fn check(keys: &Keys<'_>, architecture: &Architecture) -> Result<(), PlanError> {
    for (key, neutral, honors) in ALL {
        let has_experts = key == EXPERTS && architecture.has_experts();
        if has_experts || architecture.honors.iter().any(honors) {
            continue;
        }
        let Some(value) = keys.metadata.get(&keys.name(key)) else {
            continue;
        };
        let wanted = if neutral == Neutral::One { 1 } else { 0 };
        let is_neutral = match value.as_integer() {
            Some(integer) => integer == wanted,
            None => keys
                .metadata
                .opt_f32(&keys.name(key))?
                .is_some_and(|v| v == wanted as f32),
        };
        if !is_neutral {
            let reason = format!("only {wanted} is supported for {}", architecture.name);
            return Err(keys.refused(key, value.describe(), reason));
        }
    }
    Ok(())
}
