//! Factors and soft caps.

use super::keys::Keys;
use crate::weights_plan::PlanError;
use crate::weights_plan::architectures::{Architecture, EmbeddingScale, Honored};

/// As `ModelShape` has them.
pub(super) struct Scales {
    pub(super) attention: f64,
    pub(super) attention_soft_cap: f32,
    pub(super) embedding: f32,
    pub(super) residual: f32,
    pub(super) logits: f32,
    pub(super) logit_soft_cap: f32,
    pub(super) query: f64,
}

impl Scales {
    pub(super) fn read(
        keys: &mut Keys<'_>,
        architecture: &Architecture,
        [n_layers, d_model, n_heads]: [u32; 3],
        original_context: u32,
    ) -> Result<Self, PlanError> {
        let mut scales = Self {
            attention: 0.0,
            attention_soft_cap: 0.0,
            embedding: match architecture.embedding {
                EmbeddingScale::One => 1.0,
                EmbeddingScale::RootOfWidth => (d_model as f32).sqrt(),
            },
            residual: 1.0,
            logits: 1.0,
            logit_soft_cap: 0.0,
            query: 0.0,
        };
        if architecture.scaled_by_width == Some(n_layers) {
            scales.attention = 1.0 / (f64::from(d_model) / f64::from(n_heads)).sqrt();
        }
        for honored in architecture.honors {
            match *honored {
                Honored::Scales => scales.read_all(keys)?,
                Honored::SoftCaps { attention, logits } => {
                    scales.attention_soft_cap =
                        soft_cap(keys, "attn_logit_softcapping", attention)?;
                    scales.logit_soft_cap = soft_cap(keys, "final_logit_softcapping", logits)?;
                }
                Honored::QueryScale => {
                    let found = keys.opt_f64("attention.temperature_scale")?;
                    scales.query = found.unwrap_or(0.0);
                    if scales.query != 0.0 && original_context == 0 {
                        let reason = "needs rope.scaling.original_context_length".to_owned();
                        let key = "attention.temperature_scale";
                        return Err(keys.refused(key, scales.query, reason));
                    }
                }
                Honored::Window { .. } | Honored::RopeSwitch => {}
            }
        }
        Ok(scales)
    }

    fn read_all(&mut self, keys: &mut Keys<'_>) -> Result<(), PlanError> {
        if keys.opt_f64("attention.scale")?.is_some_and(|s| s != 0.0) {
            self.attention = keys.positive("attention.scale")?.into();
        }
        self.embedding = keys.positive_or("embedding_scale", 1.0)?;
        self.residual = keys.positive_or("residual_scale", 1.0)?;
        // What logits are divided by.
        self.logits = 1.0 / keys.positive("logit_scale")?;
        Ok(())
    }
}

/// 0, which some files have, is none.
fn soft_cap(keys: &mut Keys<'_>, key: &str, absent: f32) -> Result<f32, PlanError> {
    match keys.opt_f64(key)? {
        Some(0.0) => Ok(0.0),
        Some(_) => keys.positive(key),
        None if absent == 0.0 => Ok(0.0),
        None => Ok(keys.take(key, absent)),
    }
}
