//! Groups of tensors that several architectures have.

use super::Width::{
    Experts, FeedForward, GateUp, Head, Heads, KeyValue, Model, Pairs, Query, QueryKeyValue,
    Vocabulary,
};
use super::{Role, TensorRule};

/// What stands before and behind the layers.
pub(super) const ENDS: [TensorRule; 3] = [
    TensorRule::new(
        "token_embd.weight",
        Role::TokenEmbedding,
        &[Model, Vocabulary],
    ),
    TensorRule::new("output_norm.weight", Role::OutputNorm, &[Model]),
    // Absent where it is the embedding.
    TensorRule::new("output.weight", Role::Output, &[Model, Vocabulary]).optional(),
];

/// Attention with its norm.
pub(super) const ATTENTION: [TensorRule; 5] = [
    TensorRule::layer("attn_norm.weight", Role::AttnNorm, &[Model]),
    TensorRule::layer("attn_q.weight", Role::AttnQ, &[Model, Query]),
    TensorRule::layer("attn_k.weight", Role::AttnK, &[Model, KeyValue]),
    TensorRule::layer("attn_v.weight", Role::AttnV, &[Model, KeyValue]),
    TensorRule::layer("attn_output.weight", Role::AttnOutput, &[Query, Model]),
];

/// The same with q, k and v in one tensor.
pub(super) const FUSED_ATTENTION: [TensorRule; 3] = [
    TensorRule::layer("attn_norm.weight", Role::AttnNorm, &[Model]),
    TensorRule::fused(
        "attn_qkv.weight",
        &[
            (Role::AttnQ, Query),
            (Role::AttnK, KeyValue),
            (Role::AttnV, KeyValue),
        ],
        &[Model, QueryKeyValue],
    ),
    TensorRule::layer("attn_output.weight", Role::AttnOutput, &[Query, Model]),
];

/// A gated feed-forward part with its norm.
pub(super) const FEED_FORWARD: [TensorRule; 4] = [
    TensorRule::layer("ffn_norm.weight", Role::FfnNorm, &[Model]),
    TensorRule::layer("ffn_gate.weight", Role::FfnGate, &[Model, FeedForward]),
    TensorRule::layer("ffn_up.weight", Role::FfnUp, &[Model, FeedForward]),
    TensorRule::layer("ffn_down.weight", Role::FfnDown, &[FeedForward, Model]),
];

/// The same with gate and up in one tensor, which bears the name of the second.
pub(super) const FUSED_FEED_FORWARD: [TensorRule; 3] = [
    TensorRule::layer("ffn_norm.weight", Role::FfnNorm, &[Model]),
    TensorRule::fused(
        "ffn_up.weight",
        &[(Role::FfnGate, FeedForward), (Role::FfnUp, FeedForward)],
        &[Model, GateUp],
    ),
    TensorRule::layer("ffn_down.weight", Role::FfnDown, &[FeedForward, Model]),
];

pub(super) const FFN_NORM: [TensorRule; 1] = [TensorRule::layer(
    "ffn_norm.weight",
    Role::FfnNorm,
    &[Model],
)];

/// The same norm by another name.
pub(super) const FFN_NORM_BEHIND_ATTENTION: [TensorRule; 1] = [TensorRule::layer(
    "post_attention_norm.weight",
    Role::FfnNorm,
    &[Model],
)];

const ROUTER: TensorRule =
    TensorRule::layer("ffn_gate_inp.weight", Role::Router, &[Model, Experts]);

/// Feed-forward parts of which a router chooses some for each token.
pub(super) const EXPERTS: [TensorRule; 4] = [
    ROUTER,
    TensorRule::layer(
        "ffn_gate_exps.weight",
        Role::FfnGate,
        &[Model, FeedForward, Experts],
    ),
    TensorRule::layer(
        "ffn_up_exps.weight",
        Role::FfnUp,
        &[Model, FeedForward, Experts],
    ),
    TensorRule::layer(
        "ffn_down_exps.weight",
        Role::FfnDown,
        &[FeedForward, Model, Experts],
    ),
];

/// The same with tensors for each expert, as converters wrote them first.
pub(super) const SEPARATE_EXPERTS: [TensorRule; 4] = [
    ROUTER,
    TensorRule::expert("ffn_gate", Role::FfnGate, &[Model, FeedForward]),
    TensorRule::expert("ffn_up", Role::FfnUp, &[Model, FeedForward]),
    TensorRule::expert("ffn_down", Role::FfnDown, &[FeedForward, Model]),
];

pub(super) const EXPERT_BIASES: [TensorRule; 4] = [
    TensorRule::layer("ffn_gate_inp.bias", Role::RouterBias, &[Experts]),
    TensorRule::layer(
        "ffn_gate_exps.bias",
        Role::FfnGateBias,
        &[FeedForward, Experts],
    ),
    TensorRule::layer("ffn_up_exps.bias", Role::FfnUpBias, &[FeedForward, Experts]),
    TensorRule::layer("ffn_down_exps.bias", Role::FfnDownBias, &[Model, Experts]),
];

/// Divisors of the frequencies of short and of long sequences.
pub(super) const LONG_ROPE: [TensorRule; 2] = [
    TensorRule::new("rope_factors_short.weight", Role::RopeFreqs, &[Pairs]).optional(),
    TensorRule::new("rope_factors_long.weight", Role::LongRopeFreqs, &[Pairs]).optional(),
];

/// What attention weighs beside the keys.
pub(super) const SINKS: [TensorRule; 1] = [TensorRule::layer(
    "attn_sinks.weight",
    Role::AttnSinks,
    &[Heads],
)];

/// Norms of each head of queries and keys, before their rotation.
pub(super) const QK_NORMS: [TensorRule; 2] = [
    TensorRule::layer("attn_q_norm.weight", Role::AttnQNorm, &[Head]),
    TensorRule::layer("attn_k_norm.weight", Role::AttnKNorm, &[Head]),
];

/// Norms of what attention and feed-forward part add.
pub(super) const POST_NORMS: [TensorRule; 2] = [
    TensorRule::layer("post_attention_norm.weight", Role::PostAttnNorm, &[Model]),
    TensorRule::layer("post_ffw_norm.weight", Role::PostFfnNorm, &[Model]),
];

pub(super) const QKV_BIASES: [TensorRule; 3] = [
    TensorRule::layer("attn_q.bias", Role::AttnQBias, &[Query]),
    TensorRule::layer("attn_k.bias", Role::AttnKBias, &[KeyValue]),
    TensorRule::layer("attn_v.bias", Role::AttnVBias, &[KeyValue]),
];

pub(super) const OPTIONAL_QKV_BIASES: [TensorRule; 3] = {
    let [q, k, v] = QKV_BIASES;
    [q.optional(), k.optional(), v.optional()]
};

pub(super) const ATTENTION_OUTPUT_BIAS: [TensorRule; 1] =
    [TensorRule::layer("attn_output.bias", Role::AttnOutputBias, &[Model]).optional()];

pub(super) const FEED_FORWARD_BIASES: [TensorRule; 3] = [
    TensorRule::layer("ffn_gate.bias", Role::FfnGateBias, &[FeedForward]).optional(),
    TensorRule::layer("ffn_up.bias", Role::FfnUpBias, &[FeedForward]).optional(),
    TensorRule::layer("ffn_down.bias", Role::FfnDownBias, &[Model]).optional(),
];

pub(super) const OUTPUT_BIAS: [TensorRule; 1] =
    [TensorRule::new("output.bias", Role::OutputBias, &[Vocabulary]).optional()];

/// Divisors of the rotation frequencies.
pub(super) const ROPE_FREQS: [TensorRule; 1] =
    [TensorRule::new("rope_freqs.weight", Role::RopeFreqs, &[Pairs]).optional()];
