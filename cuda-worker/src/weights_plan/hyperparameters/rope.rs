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
    let of_all = keys.opt_positive("rope.scaling.attn_factor")?;
    let of_yarn = keys.opt_positive("rope.scaling.yarn_attn_factor")?;
    rope.attn_factor = f64::from(of_all.unwrap_or(1.0)) * f64::from(of_yarn.unwrap_or(1.0));
    Ok(rope)
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
        rounds_bounds: true,
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
        Some("none") => Ok(RopeScaling::None),
        Some("linear") => Ok(RopeScaling::Linear),
        Some("yarn") => Ok(RopeScaling::Yarn),
        Some(other) => Err(keys.refused(KEY, other, "none, linear and yarn are supported".into())),
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
