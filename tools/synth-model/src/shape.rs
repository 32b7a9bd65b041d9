//! The shapes that can be written.

use orcd_shared::gguf::TensorType;

use crate::families;
use crate::features::Features;

/// Dimensions, constants and types of a model.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Name it is asked for by; also `general.name`.
    pub name: String,
    /// `general.architecture`.
    pub arch: &'static str,
    /// `tokenizer.ggml.pre` of the built-in vocabulary.
    pub pre: &'static str,
    /// Blocks.
    pub layers: u32,
    /// Elements of the residual stream.
    pub hidden: u32,
    /// Elements inside the feed-forward part.
    pub ffn: u32,
    /// Query heads.
    pub heads: u32,
    /// Key and value heads.
    pub kv_heads: u32,
    /// Elements of a head, where the file says so (`attention.key_length`); otherwise they are `hidden / heads`.
    pub key_length: Option<u32>,
    /// Longest context in tokens.
    pub context: u32,
    /// Base of the rotary embedding.
    pub rope_freq_base: f32,
    /// Epsilon of RMSNorm.
    pub rms_eps: f32,
    /// Biases on q, k and v.
    pub qkv_bias: bool,
    /// What else has biases, by the tensor's name (`ffn_up`), which few files have.
    pub more_biases: &'static [&'static str],
    /// Writes `rope_freqs.weight`, what divides the rotation frequencies.
    pub rope_freqs: Option<RopeScaling>,
    /// No `output.weight`: the embedding is used.
    pub tied: bool,
    /// Writes `vocab_size` and `rope.dimension_count`, which qwen2 files lack.
    pub redundant_keys: bool,
    /// Tokens of the built-in vocabulary.
    pub vocab_size: usize,
    /// Requires another vocabulary to have `vocab_size` tokens too, and names the reference
    /// model's special tokens in it.
    pub reference_vocab: bool,
    /// Further `general.` strings after `general.name`.
    pub general: &'static [(&'static str, &'static str)],
    /// Types of the matrices.
    pub mix: Mix,
    /// What it has beside the layers of Llama.
    pub features: Features,
}

/// How the types of a file's matrices are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// The published Qwen2.5-0.5B Q4_K_M: legacy types where rows are no multiple of 256.
    Reference,
    /// Q4_K_M of a model with rows that are.
    Q4KM,
    /// Q4_K, Q5_K and Q6_K in turn.
    KQuants,
    /// Q2_K, Q3_K, IQ4_XS and Q6_K in turn, as published files of few bits mix them.
    FewBits,
    /// IQ4_NL, MXFP4 and Q8_0 in turn.
    Tables,
    /// F16, BF16 and every other type with blocks of 32 in turn.
    Legacy,
    /// K-quants, other types and floats in turn, so that each kind meets the others on one input.
    Everything,
    /// One type for all.
    One(TensorType),
    /// One type for the experts and one for the rest.
    Experts {
        /// That of the experts.
        experts: TensorType,
        /// That of the rest.
        others: TensorType,
    },
}

/// How Llama 3.1 stretches a rotation over a longer context: frequencies of long waves are divided by
/// `factor`, those of short ones stay, with a smooth passage between.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RopeScaling {
    /// What the slowest frequencies are divided by.
    pub factor: f64,
    /// Waves longer than `original / low` positions are the long ones.
    pub low: f64,
    /// Waves shorter than `original / high` positions are the short ones.
    pub high: f64,
    /// Context before the stretching.
    pub original: f64,
}

/// `rope_scaling` of the published Llama 3.1 configuration.
const LLAMA_3_ROPE: RopeScaling = RopeScaling {
    factor: 8.0,
    low: 1.0,
    high: 4.0,
    original: 8192.0,
};

impl RopeScaling {
    /// The divisor of each pair's frequency, `head_dim / 2` of them.
    pub(crate) fn divisors(&self, base: f32, head_dim: u32) -> Vec<f32> {
        let divisor = |i: u32| {
            let exponent = f64::from(2 * i) / f64::from(head_dim);
            let wave = 2.0 * std::f64::consts::PI * f64::from(base).powf(exponent);
            let turns = self.original / wave;
            let kept = ((turns - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
            (1.0 / (kept + (1.0 - kept) / self.factor)) as f32
        };
        (0..head_dim / 2).map(divisor).collect()
    }
}

/// A matrix's place in the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Embedding,
    Output,
    Q,
    K,
    V,
    AttnOutput,
    Gate,
    Up,
    Down,
    /// Q, K and V in one.
    Qkv,
    /// Gate and up in one.
    GateUp,
}

impl Shape {
    /// The published ones, and a small one of the same types as the first.
    const PUBLISHED: [&'static str; 8] = [
        "qwen2.5-0.5b-instruct-q4_k_m",
        "qwen2.5-coder-1.5b-q4_k_m",
        "llama-3.1-8b-q4_k_m",
        "qwen3-4b-q4_k_m",
        "qwen3-30b-a3b-q4_k_m",
        "gemma-3-4b-it-q4_k_m",
        "gpt-oss-20b-mxfp4",
        "tiny-reference",
    ];

    /// Tiny ones of qwen2 and llama, which together have all that files of these may have.
    pub const VARIED: [&'static str; 9] = [
        "tiny-qwen2",
        "tiny-llama",
        "tiny-tied",
        "tiny-biased",
        "tiny-heads-80",
        "tiny-heads-96",
        "tiny-heads-256",
        "tiny-few-bits",
        "tiny-tables",
    ];

    /// One of every family beside those: with all that its files may have, windows and contexts of training shorter
    /// than the prompts of tests, sinks and soft caps that matter, experts that tie.
    pub const FAMILIES: [&'static str; 14] = [
        "tiny-qwen3",
        "tiny-qwen3-yarn",
        "tiny-qwen3moe",
        "tiny-mixtral",
        "tiny-llama-linear",
        "tiny-granite",
        "tiny-granite-unrotated",
        "tiny-smollm3",
        "tiny-mistral3",
        "tiny-phi3",
        "tiny-phi3-window",
        "tiny-gemma2",
        "tiny-gemma3",
        "tiny-gpt-oss",
    ];

    /// The names that [`named`](Self::named) knows.
    pub fn names() -> impl Iterator<Item = &'static str> {
        let tiny = Self::VARIED.into_iter().chain(Self::FAMILIES);
        Self::PUBLISHED.into_iter().chain(tiny)
    }

    /// The shape called `name`. The published ones also go by their names without the types.
    pub fn named(name: &str) -> Option<Shape> {
        Some(match name {
            "qwen2.5-0.5b-instruct-q4_k_m" => reference(),
            "qwen2.5-coder-1.5b-q4_k_m" => Shape {
                name: "qwen2.5-coder-1.5b".to_owned(),
                layers: 28,
                hidden: 1536,
                ffn: 8960,
                heads: 12,
                general: &[("general.size_label", "1.5B")],
                mix: Mix::Q4KM,
                ..reference()
            },
            "llama-3.1-8b-q4_k_m" => Shape {
                name: "llama-3.1-8b".to_owned(),
                arch: "llama",
                pre: "llama-bpe",
                layers: 32,
                hidden: 4096,
                ffn: 14_336,
                heads: 32,
                kv_heads: 8,
                context: 131_072,
                rope_freq_base: 500_000.0,
                rms_eps: 1e-5,
                qkv_bias: false,
                rope_freqs: Some(LLAMA_3_ROPE),
                redundant_keys: true,
                vocab_size: 128_256,
                reference_vocab: false,
                general: &[("general.size_label", "8B")],
                mix: Mix::Q4KM,
                ..reference()
            },
            "tiny-reference" => Shape {
                name: name.to_owned(),
                layers: 2,
                vocab_size: 512,
                reference_vocab: false,
                general: &[],
                ..reference()
            },
            "tiny-qwen2" => tiny(name, Mix::KQuants),
            "tiny-llama" => Shape {
                arch: "llama",
                pre: "llama-bpe",
                heads: 8,
                kv_heads: 4,
                rope_freq_base: 10_000.0,
                rms_eps: 1e-5,
                qkv_bias: false,
                redundant_keys: true,
                ..tiny(name, Mix::Legacy)
            },
            "tiny-tied" => Shape {
                tied: true,
                ..tiny(name, Mix::Q4KM)
            },
            "tiny-biased" => Shape {
                name: name.to_owned(),
                qkv_bias: true,
                more_biases: &["attn_output", "ffn_gate", "ffn_up", "ffn_down"],
                ..Shape::named("tiny-llama")?
            },
            // 16 query heads, so that the rows of the attention's output are whole super-blocks.
            "tiny-heads-80" => Shape {
                name: name.to_owned(),
                heads: 16,
                kv_heads: 2,
                key_length: Some(80),
                mix: Mix::One(TensorType::Q5_0),
                ..Shape::named("tiny-llama")?
            },
            "tiny-heads-96" => Shape {
                heads: 8,
                key_length: Some(96),
                ..tiny(name, Mix::KQuants)
            },
            "tiny-heads-256" => Shape {
                kv_heads: 1,
                key_length: Some(256),
                ..tiny(name, Mix::Q4KM)
            },
            "tiny-few-bits" => tiny(name, Mix::FewBits),
            "tiny-tables" => tiny(name, Mix::Tables),
            _ => return families::named(name),
        })
    }

    /// The same shape with every matrix stored as `ty`; the name says so.
    pub fn with_type(self, ty: TensorType) -> Shape {
        Shape {
            name: format!("{}-{ty}", self.name),
            mix: Mix::One(ty),
            ..self
        }
    }

    /// Elements of a head.
    pub fn head_dim(&self) -> u32 {
        self.key_length.unwrap_or(self.hidden / self.heads)
    }

    /// Elements of a head that are rotated.
    pub fn rotated(&self) -> u32 {
        self.features.rotated.unwrap_or(self.head_dim())
    }

    /// Type of a matrix in block `layer` (0 for those outside of blocks).
    pub(crate) fn ty(&self, role: Role, layer: u32) -> TensorType {
        use TensorType::{
            BF16, F16, IQ4NL, IQ4XS, MXFP4, Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0,
        };
        let more = self.has_more_bits(layer);
        match self.mix {
            Mix::One(ty) => ty,
            Mix::Experts { experts, others } => match role {
                Role::Gate | Role::Up | Role::Down => experts,
                _ => others,
            },
            Mix::Reference => match role {
                Role::Output => Q8_0,
                Role::V if more => Q8_0,
                Role::Down if more => Q6K,
                Role::Down => Q4K,
                _ => Q5_0,
            },
            Mix::Q4KM => match role {
                Role::Output => Q6K,
                Role::Embedding if self.tied => Q6K,
                Role::V | Role::Down if more => Q6K,
                _ => Q4K,
            },
            // By layer as well, so that every role gets every type.
            Mix::KQuants => [Q4K, Q5K, Q6K][(role as usize + layer as usize) % 3],
            Mix::FewBits => [Q2K, Q3K, IQ4XS, Q6K][(role as usize + layer as usize) % 4],
            Mix::Tables => [IQ4NL, MXFP4, Q8_0][(role as usize + layer as usize) % 3],
            Mix::Everything => {
                let types = [Q4K, Q5_0, Q6K, F16, Q5K, Q8_0, Q4_1];
                types[(role as usize + layer as usize) % types.len()]
            }
            Mix::Legacy => {
                let types = [Q8_0, F16, Q4_0, Q4_1, Q5_0, Q5_1, BF16];
                types[(role as usize + layer as usize) % types.len()]
            }
        }
    }

    /// Blocks whose `attn_v` and `ffn_down` get more bits in a Q4_K_M file: the first and the last
    /// eighth and every third between, counted in the order in which the blocks stand in the file.
    fn has_more_bits(&self, layer: u32) -> bool {
        let n = self.layers as usize;
        let place = self
            .block_order()
            .iter()
            .position(|&l| l == layer)
            .unwrap_or_default();
        place < n / 8 || place >= 7 * n / 8 || (place - n / 8) % 3 == 2
    }

    /// Blocks in file order: by name, so 10 stands before 2, as in files converted from sorted
    /// safetensors; files of the `llama` architecture and sorted ones count.
    pub(crate) fn block_order(&self) -> Vec<u32> {
        let mut layers: Vec<u32> = (0..self.layers).collect();
        if self.arch != "llama" && !self.features.sorted {
            layers.sort_by_key(u32::to_string);
        }
        layers
    }
}

pub(crate) fn reference() -> Shape {
    Shape {
        name: "qwen2.5-0.5b-instruct".to_owned(),
        arch: "qwen2",
        pre: "qwen2",
        layers: 24,
        hidden: 896,
        ffn: 4864,
        heads: 14,
        kv_heads: 2,
        key_length: None,
        context: 32_768,
        rope_freq_base: 1_000_000.0,
        rms_eps: 1e-6,
        qkv_bias: true,
        more_biases: &[],
        rope_freqs: None,
        tied: false,
        redundant_keys: false,
        vocab_size: 151_936,
        reference_vocab: true,
        general: &[
            ("general.version", "v0.1"),
            ("general.finetune", "qwen2.5-0.5b-instruct"),
            ("general.size_label", "630M"),
        ],
        mix: Mix::Reference,
        features: Features::default(),
    }
}

/// Two layers, 256 wide: rows of one super-block, two of them in `ffn_down`.
pub(crate) fn tiny(name: &str, mix: Mix) -> Shape {
    Shape {
        name: name.to_owned(),
        layers: 2,
        hidden: 256,
        ffn: 512,
        heads: 4,
        kv_heads: 2,
        context: 2048,
        vocab_size: 512,
        reference_vocab: false,
        general: &[],
        mix,
        ..reference()
    }
}
