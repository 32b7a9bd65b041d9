//! How a token is drawn. The order of the steps and every bit of them: `docs/ARITHMETIC.md`.

use serde::{Deserialize, Serialize};

/// Smallest repetition penalty of the engine: a logit divided by it stays far from infinity. A
/// request's smaller one counts as this.
pub const MIN_REPETITION_PENALTY: f32 = 1e-6;

/// Smallest `top_p` of the engine, the smallest normal number. A request's smaller one counts as
/// this: it, too, leaves only the most likely token.
pub const MIN_TOP_P: f32 = f32::MIN_POSITIVE;

/// Parameters of one job's draws. A pure value: with the same value, model and tokens the same
/// token is drawn on any device.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SamplingParams {
    /// 0 is greedy; at most 2.
    pub temperature: f32,
    /// [`MIN_TOP_P`] ≤ p ≤ 1; 1 is off.
    pub top_p: f32,
    /// 0 is off.
    pub top_k: u32,
    /// 0 ≤ p ≤ 1; 0 is off.
    pub min_p: f32,
    /// [`MIN_REPETITION_PENALTY`] ≤ r ≤ 2; 1 is off. Applies to the set of all tokens of prompt and output.
    pub repetition_penalty: f32,
    /// Key of the counter-based generator.
    pub seed: u64,
}

impl SamplingParams {
    /// The most likely token each time; the seed plays no part.
    pub const GREEDY: Self = Self {
        temperature: 0.0,
        top_p: 1.0,
        top_k: 0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        seed: 0,
    };
}
