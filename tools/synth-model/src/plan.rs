//! Which tensors a shape has, in file order, and how each is filled.

use std::sync::Arc;

use orcd_shared::gguf::TensorType;
use orcd_shared::gguf::write::TensorSpec;

use crate::fill::Fill;
use crate::shape::{Role, Shape};
use crate::vocab::Vocab;

/// Mean of `output_norm`, as in the reference model.
const OUTPUT_NORM: f32 = 7.0;
/// Standard deviation of the logits.
const LOGIT_SIGMA: f32 = 2.5;
/// Keys are larger than queries, so that attention picks tokens out instead of averaging.
const KEY_GAIN: f32 = 1.5;

/// Deviations relative to the embedding's.
#[derive(Clone, Copy)]
struct Residual {
    /// Of what attention adds: so that both the token and its context are heard.
    attention: f32,
    /// Of what the feed-forward part adds.
    feed_forward: f32,
}

impl Residual {
    const UNTIED: Residual = Residual {
        attention: 1.0,
        feed_forward: 1.0,
    };
    /// The embedding is the output matrix too: what is left of it at the end speaks for saying the
    /// same token again, so the feed-forward parts drown it.
    const TIED: Residual = Residual {
        attention: 2.0,
        feed_forward: 32.0,
    };

    fn times(self, sigma: f32) -> Residual {
        Residual {
            attention: self.attention * sigma,
            feed_forward: self.feed_forward * sigma,
        }
    }
}

/// A tensor and its contents.
pub(crate) struct Planned {
    pub(crate) spec: TensorSpec,
    pub(crate) fill: Fill,
}

/// The tensors of `shape`: rotation, output, embedding, blocks, last norm.
pub(crate) fn plan(shape: &Shape, vocab: &Vocab) -> Vec<Planned> {
    let output_sigma = LOGIT_SIGMA / (OUTPUT_NORM * (shape.hidden as f32).sqrt());
    let embedding_sigma = if shape.tied { output_sigma } else { 1.0 };
    let residual = if shape.tied {
        Residual::TIED
    } else {
        Residual::UNTIED
    };
    let residual = residual.times(embedding_sigma);
    let rare: Arc<[bool]> = vocab.rare().into();
    let tokens = |name: &str, role, sigma| {
        let fill = Fill::Tokens {
            sigma,
            rare: rare.clone(),
        };
        let ne = [shape.hidden.into(), rare.len() as u64];
        planned(name, &ne, shape.ty(role, 0), fill)
    };
    let mut out = Vec::new();
    if let Some(scaling) = shape.rope_freqs {
        let divisors = scaling.divisors(shape.rope_freq_base, shape.head_dim());
        let ne = [divisors.len() as u64];
        let fill = Fill::Values(divisors);
        out.push(planned("rope_freqs.weight", &ne, TensorType::F32, fill));
    }
    if !shape.tied {
        out.push(tokens("output.weight", Role::Output, output_sigma));
    }
    out.push(tokens(
        "token_embd.weight",
        Role::Embedding,
        embedding_sigma,
    ));
    shape
        .block_order()
        .into_iter()
        .for_each(|layer| block(shape, layer, residual, &mut out));
    if shape.more_biases.contains(&"output") {
        // Lossless: far fewer than 2^32 tokens.
        let n = shape.vocab_size as u32;
        out.push(vector("output.bias", n, 0.0, LOGIT_SIGMA, vec![]));
    }
    // The reference model's largest is 16.75.
    out.push(vector(
        "output_norm.weight",
        shape.hidden,
        OUTPUT_NORM,
        1.0,
        vec![16.75],
    ));
    out
}

/// One block's tensors, in the order of the names they were converted from. `residual` is how
/// much it adds to the residual stream.
fn block(shape: &Shape, layer: u32, residual: Residual, out: &mut Vec<Planned>) {
    let (hidden, ffn) = (shape.hidden, shape.ffn);
    let (q, kv) = (
        shape.heads * shape.head_dim(),
        shape.kv_heads * shape.head_dim(),
    );
    let name = |part: &str| format!("blk.{layer}.{part}");
    let matrix = |part: &str, role, ne0: u32, ne1: u32, gain: f32| {
        let sigma = gain / (ne0 as f32).sqrt();
        planned(
            &name(part),
            &[ne0.into(), ne1.into()],
            shape.ty(role, layer),
            Fill::Matrix { sigma },
        )
    };
    let norm = |part: &str| vector(&name(part), hidden, 1.0, 0.1, vec![]);
    let bias = |part: &str, n: u32, sigma: f32, peaks: &[f32]| {
        shape
            .qkv_bias
            .then(|| vector(&name(part), n, 0.0, sigma, peaks.to_vec()))
    };
    let more_bias = |part: &str, n: u32, sigma: f32| {
        let bias = name(&format!("{part}.bias"));
        (shape.more_biases.contains(&part)).then(|| vector(&bias, n, 0.0, sigma, vec![]))
    };
    out.push(norm("attn_norm.weight"));
    out.extend(more_bias("ffn_down", hidden, residual.feed_forward));
    out.push(matrix(
        "ffn_down.weight",
        Role::Down,
        ffn,
        hidden,
        residual.feed_forward,
    ));
    out.extend(more_bias("ffn_gate", ffn, 0.5));
    out.push(matrix("ffn_gate.weight", Role::Gate, hidden, ffn, 1.0));
    out.extend(more_bias("ffn_up", ffn, 0.5));
    out.push(matrix("ffn_up.weight", Role::Up, hidden, ffn, 1.0));
    out.push(norm("ffn_norm.weight"));
    out.extend(bias("attn_k.bias", kv, 0.3, &[]));
    out.push(matrix("attn_k.weight", Role::K, hidden, kv, KEY_GAIN));
    out.extend(more_bias("attn_output", hidden, residual.attention));
    out.push(matrix(
        "attn_output.weight",
        Role::AttnOutput,
        q,
        hidden,
        residual.attention,
    ));
    out.extend(bias("attn_q.bias", q, 0.2, q_peaks(layer)));
    out.push(matrix("attn_q.weight", Role::Q, hidden, q, 1.0));
    out.extend(bias("attn_v.bias", kv, 0.1, &[]));
    out.push(matrix("attn_v.weight", Role::V, hidden, kv, 1.0));
}

/// The reference model has a few query biases that dwarf the rest, down to -34.
fn q_peaks(layer: u32) -> &'static [f32] {
    if layer == 0 {
        &[-34.0, 8.0, -6.0]
    } else {
        &[8.0, -6.0]
    }
}

fn vector(name: &str, n: u32, mean: f32, sigma: f32, peaks: Vec<f32>) -> Planned {
    planned(
        name,
        &[n.into()],
        TensorType::F32,
        Fill::Vector { mean, sigma, peaks },
    )
}

fn planned(name: &str, ne: &[u64], ty: TensorType, fill: Fill) -> Planned {
    Planned {
        spec: TensorSpec {
            name: name.to_owned(),
            ne: ne.to_vec(),
            ty,
        },
        fill,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of all tensors.
    fn tensor_bytes(name: &str) -> u64 {
        let shape = Shape::named(name).unwrap();
        let vocab = Vocab::builtin(&shape).unwrap();
        let bytes = |spec: &TensorSpec| {
            let elements: u64 = spec.ne.iter().product();
            elements / spec.ty.block_len() * spec.ty.block_bytes()
        };
        plan(&shape, &vocab).iter().map(|p| bytes(&p.spec)).sum()
    }

    /// The published files less their headers: 491 400 032 − 5 947 744 and 1 117 320 768 − 5 950 528 bytes. Of the
    /// third it is only known that 4.91 GB of 4.92 GB are tensors.
    #[test]
    fn tensors_take_as_much_as_those_of_the_published_files() {
        for (name, bytes) in [
            ("qwen2.5-0.5b-instruct-q4_k_m", 485_452_288),
            ("qwen2.5-coder-1.5b-q4_k_m", 1_111_370_240),
            ("llama-3.1-8b-q4_k_m", 4_912_898_304),
        ] {
            assert_eq!(tensor_bytes(name), bytes, "{name}");
        }
    }
}
