//! What families have beside the layers of Llama.

use orcd_shared::gguf::Value;

/// Tensors and constants that some architectures have. By default: none.
#[derive(Clone, Debug, Default)]
pub struct Features {
    /// Norms of each head of queries and keys.
    pub qk_norms: bool,
    /// Norms behind attention and behind the feed-forward part.
    pub post_norms: bool,
    /// The norm before the feed-forward part is called `post_attention_norm`.
    pub ffn_norm_behind_attention: bool,
    /// Q, K and V in one tensor, gate and up in another.
    pub fused: bool,
    /// A sink for each query head.
    pub sinks: bool,
    /// Feed-forward parts of which a router chooses.
    pub experts: Option<Experts>,
    /// Keys that a row of a layer with a window sees (`attention.sliding_window`).
    pub window: Option<u32>,
    /// Elements of a head that are rotated, where not all are.
    pub rotated: Option<u32>,
    /// How the rotation is stretched.
    pub stretch: Option<Stretch>,
    /// Factors that files of Granite have.
    pub scales: Scales,
    /// Gate and up are so large that the clamps of gpt-oss bite.
    pub clamped: bool,
    /// Further keys behind the architecture's prefix.
    pub keys: Vec<(&'static str, Value)>,
    /// Tensors stand by block and name, those outside of blocks first, as files quantized since the end of 2024 have them.
    pub sorted: bool,
}

/// Experts of each layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Experts {
    /// How many.
    pub count: u32,
    /// How many a token takes.
    pub used: u32,
    /// Elements inside each of them, where the file says so (`expert_feed_forward_length`).
    pub ffn: Option<u32>,
    /// The router and every matrix have biases.
    pub biases: bool,
    /// Every third expert has the router's row of the one before: they tie for every token.
    pub twins: bool,
}

/// How a rotation is stretched over a longer context, as keys say it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stretch {
    /// All frequencies divided.
    Linear {
        /// By this.
        factor: f32,
    },
    /// Low ones are, high ones are not.
    Yarn {
        /// What low ones are divided by.
        factor: f32,
        /// Context of the training.
        original: u32,
        /// Turns in it from which on a frequency is high, and down to which it is low.
        betas: Option<[f32; 2]>,
        /// What the factor on cosines and sines is divided by, as the multiplier of its logarithm.
        log_multiplier: Option<f32>,
    },
    /// Divisors of their own for short and for long sequences, as tensors.
    LongRope {
        /// Context up to which a sequence is short.
        original: u32,
    },
}

/// Factors; with 1 there is no key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scales {
    /// Multiplies embeddings.
    pub embedding: f32,
    /// Multiplies scores, instead of one over the root of a head's size.
    pub attention: Option<f32>,
    /// Multiplies what attention and feed-forward parts add.
    pub residual: f32,
    /// Divides logits.
    pub logits: f32,
}

impl Default for Scales {
    fn default() -> Self {
        Self {
            embedding: 1.0,
            attention: None,
            residual: 1.0,
            logits: 1.0,
        }
    }
}

impl Stretch {
    /// Divisors of the pairs' frequencies of short and of long sequences.
    pub(crate) fn divisors(self, pairs: u32) -> Option<[Vec<f32>; 2]> {
        let Stretch::LongRope { .. } = self else {
            return None;
        };
        let short = (0..pairs).map(|i| 1.0 + 0.03 * i as f32).collect();
        let long = (0..pairs).map(|i| 1.0 + 0.05 * (i * i) as f32).collect();
        Some([short, long])
    }

    /// Keys behind the architecture's prefix. `context` is the longest one.
    pub(crate) fn keys(self, context: u32) -> Vec<(&'static str, Value)> {
        const KIND: &str = "rope.scaling.type";
        const FACTOR: &str = "rope.scaling.factor";
        const ORIGINAL: &str = "rope.scaling.original_context_length";
        match self {
            Stretch::Linear { factor } => vec![
                (KIND, Value::String("linear".into())),
                (FACTOR, Value::F32(factor)),
            ],
            Stretch::Yarn {
                factor,
                original,
                betas,
                log_multiplier,
            } => {
                let mut keys = vec![
                    (KIND, Value::String("yarn".into())),
                    (FACTOR, Value::F32(factor)),
                    (ORIGINAL, Value::U32(original)),
                ];
                if let Some([fast, slow]) = betas {
                    keys.push(("rope.scaling.yarn_beta_fast", Value::F32(fast)));
                    keys.push(("rope.scaling.yarn_beta_slow", Value::F32(slow)));
                }
                if let Some(multiplier) = log_multiplier {
                    keys.push(("rope.scaling.yarn_log_multiplier", Value::F32(multiplier)));
                }
                keys
            }
            Stretch::LongRope { original } => {
                let (context, original_context) = (f64::from(context), f64::from(original));
                let more = (context / original_context).ln() / original_context.ln();
                vec![
                    (ORIGINAL, Value::U32(original)),
                    (
                        "rope.scaling.attn_factor",
                        Value::F32((1.0 + more).sqrt() as f32),
                    ),
                ]
            }
        }
    }
}
