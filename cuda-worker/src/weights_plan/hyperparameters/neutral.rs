//! Keys that change what a model computes, for architectures that have nothing for them.

use super::keys::Keys;
use crate::weights_plan::PlanError;
use crate::weights_plan::architectures::{Architecture, Honored};

const EXPERTS: &str = "expert_count";

/// A key, the one value under which it changes nothing, and who honors it.
struct Rule {
    key: &'static str,
    neutral: Neutral,
    is_honored: fn(&Honored) -> bool,
}

const ALL: [Rule; 11] = [
    rule(EXPERTS, Neutral::Zero, |_| false),
    rule("attention.sliding_window", Neutral::Zero, is_window),
    rule("attention.logit_softcapping", Neutral::Zero, |_| false),
    rule("attn_logit_softcapping", Neutral::Zero, is_soft_caps),
    rule("final_logit_softcapping", Neutral::Zero, is_soft_caps),
    rule("attention.clamp_kqv", Neutral::Zero, |_| false),
    rule("attention.scale", Neutral::Zero, is_scales),
    rule("attention.temperature_scale", Neutral::Zero, is_query_scale),
    rule("logit_scale", Neutral::One, is_scales),
    rule("embedding_scale", Neutral::One, is_scales),
    rule("residual_scale", Neutral::One, is_scales),
];

#[derive(Clone, Copy, PartialEq)]
enum Neutral {
    Zero,
    One,
}

const fn rule(key: &'static str, neutral: Neutral, is_honored: fn(&Honored) -> bool) -> Rule {
    Rule {
        key,
        neutral,
        is_honored,
    }
}

fn is_scales(honored: &Honored) -> bool {
    matches!(honored, Honored::Scales)
}

fn is_query_scale(honored: &Honored) -> bool {
    matches!(honored, Honored::QueryScale)
}

fn is_soft_caps(honored: &Honored) -> bool {
    matches!(honored, Honored::SoftCaps { .. })
}

fn is_window(honored: &Honored) -> bool {
    matches!(honored, Honored::Window { .. })
}

/// Refuses keys that the architecture does not honor and that say something.
pub(super) fn check(keys: &Keys<'_>, architecture: &Architecture) -> Result<(), PlanError> {
    for Rule {
        key,
        neutral,
        is_honored,
    } in ALL
    {
        let has_experts = key == EXPERTS && architecture.has_experts();
        if has_experts || architecture.honors.iter().any(is_honored) {
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
