//! A shape's keys, in the order of the published reference file.

use orcd_shared::gguf::{Metadata, TensorType, Value};

use crate::SynthError;
use crate::features::Scales;
use crate::shape::{Mix, Shape};
use crate::vocab::Vocab;

pub(crate) fn metadata(
    shape: &Shape,
    vocab: &Vocab,
    template: Option<&str>,
) -> Result<Metadata, SynthError> {
    let mut m = Metadata::new();
    let string = |s: &str| Value::String(s.to_owned());
    m.insert("general.architecture", string(shape.arch))?;
    m.insert("general.type", string("model"))?;
    m.insert("general.name", string(&shape.name))?;
    for (key, value) in shape.general {
        m.insert(*key, string(value))?;
    }
    for (key, value) in hyperparameters(shape) {
        m.insert(format!("{}.{key}", shape.arch), value)?;
    }
    if let Some(length) = shape.key_length {
        for key in ["key_length", "value_length"] {
            let key = format!("{}.attention.{key}", shape.arch);
            m.insert(key, Value::U32(length))?;
        }
    }
    for (key, value) in of_features(shape) {
        m.insert(format!("{}.{key}", shape.arch), value)?;
    }
    if shape.redundant_keys {
        // Lossless: far fewer than 2^32 tokens.
        m.insert(
            format!("{}.vocab_size", shape.arch),
            Value::U32(vocab.len() as u32),
        )?;
    }
    if shape.redundant_keys || shape.features.rotated.is_some() {
        let key = format!("{}.rope.dimension_count", shape.arch);
        m.insert(key, Value::U32(shape.rotated()))?;
    }
    m.insert("general.file_type", Value::U32(file_type(shape.mix)))?;
    vocab.write(&mut m)?;
    if let Some(template) = template.or(vocab.template.as_deref()) {
        m.insert("tokenizer.chat_template", string(template))?;
    }
    m.insert("general.quantization_version", Value::U32(2))?;
    Ok(m)
}

fn hyperparameters(shape: &Shape) -> [(&'static str, Value); 8] {
    [
        ("block_count", Value::U32(shape.layers)),
        ("context_length", Value::U32(shape.context)),
        ("embedding_length", Value::U32(shape.hidden)),
        ("feed_forward_length", Value::U32(shape.ffn)),
        ("attention.head_count", Value::U32(shape.heads)),
        ("attention.head_count_kv", Value::U32(shape.kv_heads)),
        ("rope.freq_base", Value::F32(shape.rope_freq_base)),
        (
            "attention.layer_norm_rms_epsilon",
            Value::F32(shape.rms_eps),
        ),
    ]
}

/// Keys of what the shape has beside Llama's layers.
fn of_features(shape: &Shape) -> Vec<(&'static str, Value)> {
    let features = &shape.features;
    let mut keys = Vec::new();
    if let Some(window) = features.window {
        keys.push(("attention.sliding_window", Value::U32(window)));
    }
    if let Some(stretch) = features.stretch {
        keys.extend(stretch.keys(shape.context));
    }
    if features.scales != Scales::default() {
        let scales = features.scales;
        if let Some(attention) = scales.attention {
            keys.push(("attention.scale", Value::F32(attention)));
        }
        keys.push(("embedding_scale", Value::F32(scales.embedding)));
        keys.push(("residual_scale", Value::F32(scales.residual)));
        keys.push(("logit_scale", Value::F32(scales.logits)));
    }
    if let Some(experts) = features.experts {
        keys.push(("expert_count", Value::U32(experts.count)));
        keys.push(("expert_used_count", Value::U32(experts.used)));
        if let Some(ffn) = experts.ffn {
            keys.push(("expert_feed_forward_length", Value::U32(ffn)));
        }
    }
    keys.extend(features.keys.iter().cloned());
    keys
}

/// llama.cpp's number for a file's mix of types.
fn file_type(mix: Mix) -> u32 {
    let most = match mix {
        Mix::Reference | Mix::Q4KM | Mix::KQuants | Mix::Everything => TensorType::Q4K,
        Mix::FewBits => TensorType::Q3K,
        Mix::Tables => TensorType::IQ4NL,
        Mix::Legacy => TensorType::Q8_0,
        Mix::One(ty) => ty,
        Mix::Experts { experts, .. } => experts,
    };
    // A type without a mix of its own counts as the first of all, floats.
    most.file_type().unwrap_or(0)
}
