//! How many experts there are, and how many a token takes.

use super::keys::Keys;
use crate::weights_plan::PlanError;
use crate::weights_plan::architectures::Architecture;

/// Most experts of a layer, and most that a token takes.
const MOST: u32 = 1024;
const MOST_USED: u32 = 64;

/// As `ModelShape` has them.
pub(super) struct Experts {
    pub(super) count: u32,
    pub(super) used: u32,
    pub(super) scale: f32,
}

impl Experts {
    pub(super) fn read(keys: &Keys<'_>, architecture: &Architecture) -> Result<Self, PlanError> {
        const KEY: &str = "expert_count";
        const USED: &str = "expert_used_count";
        let none = Self {
            count: 0,
            used: 0,
            scale: 1.0,
        };
        if !architecture.has_experts() {
            return Ok(none);
        }
        let count = match keys.metadata.opt_u32(&keys.name(KEY))? {
            None | Some(0) if architecture.has_dense() => return Ok(none),
            _ => keys.count(KEY)?,
        };
        let used = keys.count(USED)?;
        if count > MOST {
            return Err(keys.refused(KEY, count, format!("at most {MOST} are supported")));
        }
        if used > count.min(MOST_USED) {
            let reason = format!("must be at most {}", count.min(MOST_USED));
            return Err(keys.refused(USED, used, reason));
        }
        // Zero, in old files, is none.
        let scale = keys.opt_f64("expert_weights_scale")?;
        let scale = match scale.filter(|scale| *scale != 0.0) {
            Some(_) => keys.positive("expert_weights_scale")?,
            None => 1.0,
        };
        // Softmax of all or of those chosen: their shares are the same.
        let gating = keys.metadata.opt_u32(&keys.name("expert_gating_func"))?;
        if let Some(found @ (2 | 4..)) = gating {
            let reason = "only softmax (1, 3) is supported".to_owned();
            return Err(keys.refused("expert_gating_func", found, reason));
        }
        let norms = keys.metadata.opt_bool(&keys.name("expert_weights_norm"))?;
        if norms == Some(false) && used > 1 {
            let reason = "weights of chosen experts sum to one here".to_owned();
            return Err(keys.refused("expert_weights_norm", false, reason));
        }
        for shared in ["expert_shared_count", "expert_group_count"] {
            let found = keys.metadata.opt_u32(&keys.name(shared))?.unwrap_or(0);
            if found > 0 {
                return Err(keys.refused(shared, found, "only 0 is supported".into()));
            }
        }
        Ok(Self { count, used, scale })
    }

    /// Values inside a feed-forward part, or inside each expert.
    pub(super) fn width(&self, keys: &Keys<'_>) -> Result<u32, PlanError> {
        const KEY: &str = "expert_feed_forward_length";
        if self.count > 0 && keys.has(KEY) {
            keys.count(KEY)
        } else {
            keys.count("feed_forward_length")
        }
    }
}
