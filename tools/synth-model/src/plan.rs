//! Which tensors a shape has, in file order, and how each is filled.

use std::sync::Arc;

use orcd_shared::gguf::TensorType;
use orcd_shared::gguf::write::TensorSpec;

use crate::features::Experts;
use crate::fill::Fill;
use crate::shape::{Role, Shape};
use crate::vocab::Vocab;

/// Mean of `output_norm`, as in the reference model.
const OUTPUT_NORM: f32 = 7.0;
/// Standard deviation of the logits.
const LOGIT_SIGMA: f32 = 2.5;
/// Keys are larger than queries, so that attention picks tokens out instead of averaging.
const KEY_GAIN: f32 = 1.5;
/// Of both in one tensor: what makes scores as large.
const FUSED_GAIN: f32 = 1.2;
/// Norms of heads, and norms behind attention and feed-forward parts, vary by this much of their mean.
const NORM_SPREAD: f32 = 0.3;
/// Mean of the norms behind feed-forward parts: they drown the embedding, which is the output matrix too.
const POST_FFN_NORM: f32 = 3.0;
/// Mean of the sinks: about the logarithm of what the keys of a window weigh together.
const SINK: f32 = 3.0;
/// Standard deviation of the router's logits.
const ROUTER_GAIN: f32 = 1.5;
/// Gate and up of gpt-oss, so that its clamps at 7 bite, and what its activation of them is divided by.
const CLAMPED_GAIN: f32 = 4.0;
const CLAMPED_DOWN: f32 = 0.06;

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
    let scales = shape.features.scales;
    let output_sigma = scales.logits * LOGIT_SIGMA / (OUTPUT_NORM * (shape.hidden as f32).sqrt());
    let embedding_sigma = if shape.tied {
        output_sigma
    } else {
        1.0 / scales.embedding
    };
    let residual = if shape.tied {
        Residual::TIED
    } else {
        Residual::UNTIED
    };
    let residual = if shape.features.post_norms {
        // The norms behind it say how much is added.
        Residual::UNTIED
    } else {
        residual.times(embedding_sigma * scales.embedding / scales.residual)
    };
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
        out.push(values("rope_freqs.weight", divisors));
    }
    if let Some([short, long]) =
        (shape.features.stretch).and_then(|s| s.divisors(shape.rotated() / 2))
    {
        out.push(values("rope_factors_long.weight", long));
        out.push(values("rope_factors_short.weight", short));
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
    if shape.features.sorted {
        out.sort_by_key(|tensor| (layer_of(&tensor.spec.name), tensor.spec.name.clone()));
    }
    out
}

/// The block of a tensor of this name; `None`, which is before all, outside of them.
fn layer_of(name: &str) -> Option<u32> {
    let (layer, _) = name.strip_prefix("blk.")?.split_once('.')?;
    layer.parse().ok()
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
    let features = &shape.features;
    let (gate_gain, down_gain) = match features.clamped {
        true => (CLAMPED_GAIN, residual.feed_forward * CLAMPED_DOWN),
        false => (1.0, residual.feed_forward),
    };
    out.push(norm("attn_norm.weight"));
    if let Some(experts) = features.experts {
        mixture(shape, layer, experts, [gate_gain, down_gain], out);
    } else {
        out.extend(more_bias("ffn_down", hidden, residual.feed_forward));
        out.push(matrix(
            "ffn_down.weight",
            Role::Down,
            ffn,
            hidden,
            down_gain,
        ));
        out.extend(more_bias("ffn_gate", ffn, 0.5));
        if !features.fused {
            out.push(matrix(
                "ffn_gate.weight",
                Role::Gate,
                hidden,
                ffn,
                gate_gain,
            ));
        }
        out.extend(more_bias("ffn_up", ffn, 0.5));
        if features.fused {
            out.push(matrix("ffn_up.weight", Role::GateUp, hidden, 2 * ffn, 1.0));
        } else {
            out.push(matrix("ffn_up.weight", Role::Up, hidden, ffn, gate_gain));
        }
    }
    out.push(match features.ffn_norm_behind_attention {
        true => norm("post_attention_norm.weight"),
        false => norm("ffn_norm.weight"),
    });
    let wide_norm =
        |part: &str, n: u32, mean: f32| vector(&name(part), n, mean, mean * NORM_SPREAD, vec![]);
    if features.qk_norms {
        out.push(wide_norm("attn_k_norm.weight", shape.head_dim(), KEY_GAIN));
        out.push(wide_norm("attn_q_norm.weight", shape.head_dim(), 1.0));
    }
    if features.post_norms {
        out.push(wide_norm("post_attention_norm.weight", hidden, 1.0));
        out.push(wide_norm("post_ffw_norm.weight", hidden, POST_FFN_NORM));
    }
    if features.sinks {
        let sinks = name("attn_sinks.weight");
        out.push(vector(&sinks, shape.heads, SINK, 1.0, vec![]));
    }
    if !features.fused {
        out.extend(bias("attn_k.bias", kv, 0.3, &[]));
        out.push(matrix("attn_k.weight", Role::K, hidden, kv, KEY_GAIN));
    }
    out.extend(more_bias("attn_output", hidden, residual.attention));
    out.push(matrix(
        "attn_output.weight",
        Role::AttnOutput,
        q,
        hidden,
        residual.attention,
    ));
    if features.fused {
        let rows = q + 2 * kv;
        out.push(matrix(
            "attn_qkv.weight",
            Role::Qkv,
            hidden,
            rows,
            FUSED_GAIN,
        ));
        return;
    }
    // Peaks would leave nothing to the sinks.
    let peaks = if features.sinks { &[] } else { q_peaks(layer) };
    out.extend(bias("attn_q.bias", q, 0.2, peaks));
    out.push(matrix("attn_q.weight", Role::Q, hidden, q, 1.0));
    out.extend(bias("attn_v.bias", kv, 0.1, &[]));
    out.push(matrix("attn_v.weight", Role::V, hidden, kv, 1.0));
}

/// The experts of a block and what chooses among them. `gains` are those of gate and up, and of down.
fn mixture(
    shape: &Shape,
    layer: u32,
    experts: Experts,
    [gate_gain, down_gain]: [f32; 2],
    out: &mut Vec<Planned>,
) {
    let (hidden, ffn) = (shape.hidden, experts.ffn.unwrap_or(shape.ffn));
    let name = |part: &str| format!("blk.{layer}.{part}");
    let router = |part: &str, ne: &[u64], sigma: f32| {
        let fill = Fill::Experts {
            sigma,
            twins: experts.twins,
        };
        planned(&name(part), ne, TensorType::F32, fill)
    };
    let count = u64::from(experts.count);
    let sigma = ROUTER_GAIN / (hidden as f32).sqrt();
    out.push(router(
        "ffn_gate_inp.weight",
        &[hidden.into(), count],
        sigma,
    ));
    if experts.biases {
        out.push(router("ffn_gate_inp.bias", &[count], 0.5));
    }
    for (part, role, ne0, ne1, gain, bias) in [
        ("ffn_down_exps", Role::Down, ffn, hidden, down_gain, 0.1),
        ("ffn_gate_exps", Role::Gate, hidden, ffn, gate_gain, 0.5),
        ("ffn_up_exps", Role::Up, hidden, ffn, gate_gain, 0.5),
    ] {
        out.push(planned(
            &name(&format!("{part}.weight")),
            &[ne0.into(), ne1.into(), count],
            shape.ty(role, layer),
            Fill::Matrix {
                sigma: gain / (ne0 as f32).sqrt(),
            },
        ));
        if experts.biases {
            let fill = Fill::Vector {
                mean: 0.0,
                sigma: bias,
                peaks: vec![],
            };
            let ne = [ne1.into(), count];
            out.push(planned(
                &name(&format!("{part}.bias")),
                &ne,
                TensorType::F32,
                fill,
            ));
        }
    }
}

/// The reference model has a few query biases that dwarf the rest, down to -34.
fn q_peaks(layer: u32) -> &'static [f32] {
    if layer == 0 {
        &[-34.0, 8.0, -6.0]
    } else {
        &[8.0, -6.0]
    }
}

fn values(name: &str, values: Vec<f32>) -> Planned {
    let ne = [values.len() as u64];
    planned(name, &ne, TensorType::F32, Fill::Values(values))
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

    /// Bytes of tensors and their number. Published files of 2 497 280 256, 18 556 686 912 and 2 489 757 856 bytes have
    /// headers of 6.0, 6.0 and 6.4 MB then, which is what their vocabularies take. The fourth has 13 MB less than the
    /// published 12 109 566 560, for 201 088 tokens and 446 189 merges.
    #[test]
    fn families_take_as_much_as_their_published_files() {
        for (name, bytes, tensors) in [
            ("qwen3-4b", 2_491_323_904, 398),
            ("qwen3-30b-a3b", 18_550_716_416, 579),
            ("gemma-3-4b", 2_483_352_832, 444),
            ("gpt-oss-20b", 12_096_558_336, 459),
        ] {
            let shape = Shape::named(name).unwrap();
            let planned = plan(&shape, &Vocab::builtin(&shape).unwrap());
            assert_eq!(tensor_bytes(name), bytes, "{name}");
            assert_eq!(planned.len(), tensors, "{name}");
        }
    }
}
