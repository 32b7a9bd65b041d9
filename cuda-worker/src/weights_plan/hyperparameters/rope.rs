//! How queries and keys are rotated.

use super::keys::Keys;
use crate::weights_plan::architectures::{Architecture, Honored};
use crate::weights_plan::{PlanError, RopeScaling, RopeSpec};

/// Base of the frequencies where a file names none: what the configurations of Qwen2 and Llama and llama.cpp
/// take. Files made before the key existed are models of this base.
const BASE: f32 = 10_000.0;
/// Turns in the context of the training above and below which YaRN takes a frequency for high or low: those of its
/// paper (arXiv:2309.00071), of transformers and of llama.cpp.
const BETA_FAST: f32 = 32.0;
const BETA_SLOW: f32 = 1.0;

/// What the keys say for all layers.
pub(super) fn read(
    keys: &mut Keys<'_>,
    architecture: &Architecture,
    head_dim: u32,
    context_length: u32,
) -> Result<RopeSpec, PlanError> {
    let base = keys.positive_or("rope.freq_base", BASE)?;
    let mut rope = RopeSpec {
        pairs: pairs(keys, architecture, head_dim)?,
        base: base.into(),
        ..plain(architecture)
    };
    let attn_factor = keys.opt_positive("rope.scaling.attn_factor")?;
    rope.attn_factor = attn_factor.map_or(1.0, f64::from);
    let kind = kind(keys)?;
    if kind == RopeScaling::None {
        return Ok(rope);
    }
    rope.scaling = kind;
    rope.factor = match factor(keys)? {
        Some(factor) => factor.into(),
        None => keys.positive("rope.scaling.factor")?.into(),
    };
    if kind == RopeScaling::Yarn {
        let original = "rope.scaling.original_context_length";
        rope.original_context = if keys.has(original) {
            keys.count(original)?
        } else {
            keys.take(original, context_length)
        };
        let or = |value: Option<f32>, absent| f64::from(value.unwrap_or(absent));
        rope.beta_fast = or(keys.opt_positive("rope.scaling.yarn_beta_fast")?, BETA_FAST);
        rope.beta_slow = or(keys.opt_positive("rope.scaling.yarn_beta_slow")?, BETA_SLOW);
        let log_multiplier = keys.opt_f64("rope.scaling.yarn_log_multiplier")?;
        rope.log_multiplier = log_multiplier.unwrap_or(0.0);
        // What each pair takes of either frequency; 1, all that YaRN gives it, is what every model has.
        if let Some(found) = keys.opt_f64("rope.scaling.yarn_ext_factor")?
            && found != 1.0
        {
            return Err(keys.refused(
                "rope.scaling.yarn_ext_factor",
                found,
                "only 1 is supported".into(),
            ));
        }
    }
    // The model's own `attention_factor`, which stands in for what YaRN computes.
    if let Some(whole) = keys.opt_positive("rope.scaling.yarn_attn_factor")? {
        rope.log_multiplier = 1.0;
        rope.attn_factor *= f64::from(whole);
    }
    Ok(rope)
}

/// Divisors of LongRoPE.
pub(super) const SHORT_DIVISORS: &str = "rope_factors_short.weight";
pub(super) const LONG_DIVISORS: &str = "rope_factors_long.weight";

/// Whether it is LongRoPE, by its key or by the divisors that the file has; then it has both.
pub(super) fn is_long(keys: &Keys<'_>, divisors: [bool; 2]) -> Result<bool, PlanError> {
    let named = keys.metadata.opt_str(&keys.name("rope.scaling.type"))? == Some("longrope");
    if !named && divisors == [false; 2] {
        return Ok(false);
    }
    let names = [SHORT_DIVISORS, LONG_DIVISORS];
    match names.iter().zip(divisors).find(|(_, there)| !there) {
        Some((name, _)) => Err(PlanError::Missing {
            tensor: (*name).to_owned(),
        }),
        None => Ok(true),
    }
}

/// The same with divisors for short and for long sequences, which a file has as tensors.
pub(super) fn long(keys: &Keys<'_>, rope: RopeSpec) -> Result<RopeSpec, PlanError> {
    if rope.scaling != RopeScaling::None {
        let found = format!("{:?}", rope.scaling);
        let reason = "and there are divisors of LongRoPE".to_owned();
        return Err(keys.refused("rope.scaling.type", found, reason));
    }
    Ok(RopeSpec {
        scaling: RopeScaling::LongRope,
        original_context: keys.count("rope.scaling.original_context_length")?,
        ..rope
    })
}

/// One that stretches nothing, without pairs and base.
fn plain(architecture: &Architecture) -> RopeSpec {
    RopeSpec {
        pairs: 0,
        style: architecture.rope_style,
        base: 1.0,
        scaling: RopeScaling::None,
        factor: 1.0,
        original_context: 0,
        beta_fast: 0.0,
        beta_slow: 0.0,
        rounds_bounds: architecture.rounds_bounds,
        attn_factor: 1.0,
        log_multiplier: 0.0,
    }
}

/// The same rotation with another base, and not stretched.
pub(super) fn with_base(rope: RopeSpec, architecture: &Architecture, base: f32) -> RopeSpec {
    RopeSpec {
        pairs: rope.pairs,
        base: base.into(),
        ..plain(architecture)
    }
}

fn pairs(
    keys: &mut Keys<'_>,
    architecture: &Architecture,
    head_dim: u32,
) -> Result<u32, PlanError> {
    const KEY: &str = "rope.dimension_count";
    const SWITCH: &str = "rope.scaling.finetuned";
    let values = if keys.has(KEY) {
        keys.count(KEY)?
    } else {
        keys.take(KEY, head_dim)
    };
    if values > head_dim || !values.is_multiple_of(2) {
        let reason = format!("must be an even number up to the size of a head, {head_dim}");
        return Err(keys.refused(KEY, values, reason));
    }
    let switched = architecture.honors.contains(&Honored::RopeSwitch);
    let rotates = !switched || keys.metadata.opt_bool(&keys.name(SWITCH))? != Some(false);
    Ok(if rotates { values / 2 } else { 0 })
}

/// By its name; a factor without a name is a linear one, by the format's documents.
fn kind(keys: &Keys<'_>) -> Result<RopeScaling, PlanError> {
    const KEY: &str = "rope.scaling.type";
    match keys.metadata.opt_str(&keys.name(KEY))? {
        // That of LongRoPE follows from its tensors.
        Some("none" | "longrope") => Ok(RopeScaling::None),
        Some("linear") => Ok(RopeScaling::Linear),
        Some("yarn") => Ok(RopeScaling::Yarn),
        Some(other) => Err(keys.refused(
            KEY,
            other,
            "none, linear, yarn and longrope are supported".into(),
        )),
        None if factor(keys)?.is_some_and(|factor| factor != 1.0) => Ok(RopeScaling::Linear),
        None => Ok(RopeScaling::None),
    }
}

/// Zero, in old files, is none.
fn factor(keys: &Keys<'_>) -> Result<Option<f32>, PlanError> {
    for key in ["rope.scaling.factor", "rope.scale_linear"] {
        if keys.opt_f64(key)?.is_some_and(|factor| factor != 0.0) {
            return keys.opt_positive(key);
        }
    }
    Ok(None)
}
