//! Groups of tensors that several architectures have.

use super::Width::{FeedForward, HalfHead, KeyValue, Model, Query, Vocabulary};
use super::{Role, TensorRule};

/// A decoder with gated feed-forward parts.
pub(super) const DENSE: [TensorRule; 12] = [
    TensorRule::new(
        "token_embd.weight",
        Role::TokenEmbedding,
        &[Model, Vocabulary],
    ),
    TensorRule::new("output_norm.weight", Role::OutputNorm, &[Model]),
    // Absent where it is the embedding.
    TensorRule::new("output.weight", Role::Output, &[Model, Vocabulary]).optional(),
    TensorRule::layer("attn_norm.weight", Role::AttnNorm, &[Model]),
    TensorRule::layer("attn_q.weight", Role::AttnQ, &[Model, Query]),
    TensorRule::layer("attn_k.weight", Role::AttnK, &[Model, KeyValue]),
    TensorRule::layer("attn_v.weight", Role::AttnV, &[Model, KeyValue]),
    TensorRule::layer("attn_output.weight", Role::AttnOutput, &[Query, Model]),
    TensorRule::layer("ffn_norm.weight", Role::FfnNorm, &[Model]),
    TensorRule::layer("ffn_gate.weight", Role::FfnGate, &[Model, FeedForward]),
    TensorRule::layer("ffn_up.weight", Role::FfnUp, &[Model, FeedForward]),
    TensorRule::layer("ffn_down.weight", Role::FfnDown, &[FeedForward, Model]),
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
    [TensorRule::new("rope_freqs.weight", Role::RopeFreqs, &[HalfHead]).optional()];
