//! Tensors by their names, each checked against the hyperparameters and given a place in the image.

use std::collections::{HashMap, HashSet};

use orcd_shared::gguf::{Header, TensorInfo, TensorType};

use super::{Architecture, IMAGE_ALIGN, ModelShape, PlanError, PlannedTensor, Role};

/// Rows of the embedding; the tokenizer's list, where there is one, must be as long.
pub(super) fn vocabulary(header: &Header) -> Result<u32, PlanError> {
    const EMBEDDING: &str = "token_embd.weight";
    const TOKENS: &str = "tokenizer.ggml.tokens";
    let embedding = header.tensor(EMBEDDING).ok_or_else(|| PlanError::Missing {
        tensor: EMBEDDING.to_owned(),
    })?;
    let rows = embedding.rows();
    if let Some(tokens) = header.metadata.opt_strings(TOKENS)?
        && tokens.len() as u64 != rows
    {
        return Err(PlanError::Key {
            key: TOKENS.to_owned(),
            found: format!("a list of {}", tokens.len()),
            reason: format!("{EMBEDDING} has {rows} rows"),
        });
    }
    u32::try_from(rows).map_err(|_| PlanError::Shape {
        tensor: EMBEDDING.to_owned(),
        expected: vec![u64::from(u32::MAX)],
        found: embedding.ne.clone(),
    })
}

/// What a tensor must be.
struct Expected {
    role: Role,
    layer: u32,
    /// Fastest dimension first; one for a vector.
    ne: Vec<u64>,
    optional: bool,
}

/// Every tensor of the architecture by its name.
fn expected(architecture: Architecture, shape: &ModelShape) -> HashMap<String, Expected> {
    let n = |value: u32| u64::from(value);
    let (d, ff, vocab) = (n(shape.d_model), n(shape.d_ff), n(shape.vocab));
    let q = n(shape.n_heads) * n(shape.head_dim);
    let kv = n(shape.n_kv_heads) * n(shape.head_dim);
    let mut all = HashMap::new();
    let mut add = |name: String, role, layer, ne: &[u64], optional| {
        all.insert(
            name,
            Expected {
                role,
                layer,
                ne: ne.to_vec(),
                optional,
            },
        );
    };
    add(
        "token_embd.weight".into(),
        Role::TokenEmbedding,
        0,
        &[d, vocab],
        false,
    );
    add(
        "output_norm.weight".into(),
        Role::OutputNorm,
        0,
        &[d],
        false,
    );
    add("output.weight".into(), Role::Output, 0, &[d, vocab], true);
    if architecture.has_output_bias() {
        add("output.bias".into(), Role::OutputBias, 0, &[vocab], true);
    }
    if architecture.has_rope_freqs() {
        add(
            "rope_freqs.weight".into(),
            Role::RopeFreqs,
            0,
            &[n(shape.head_dim) / 2],
            true,
        );
    }
    for layer in 0..shape.n_layers {
        let mut tensor = |name: &str, role, ne: &[u64], optional| {
            add(format!("blk.{layer}.{name}"), role, layer, ne, optional);
        };
        let qkv_optional = !architecture.needs_qkv_bias();
        tensor("attn_q.bias", Role::AttnQBias, &[q], qkv_optional);
        tensor("attn_k.bias", Role::AttnKBias, &[kv], qkv_optional);
        tensor("attn_v.bias", Role::AttnVBias, &[kv], qkv_optional);
        tensor("attn_output.bias", Role::AttnOutputBias, &[d], true);
        if architecture.has_ffn_bias() {
            tensor("ffn_gate.bias", Role::FfnGateBias, &[ff], true);
            tensor("ffn_up.bias", Role::FfnUpBias, &[ff], true);
            tensor("ffn_down.bias", Role::FfnDownBias, &[d], true);
        }
        let mut block = |name: &str, role, ne: &[u64]| tensor(name, role, ne, false);
        block("attn_norm.weight", Role::AttnNorm, &[d]);
        block("attn_q.weight", Role::AttnQ, &[d, q]);
        block("attn_k.weight", Role::AttnK, &[d, kv]);
        block("attn_v.weight", Role::AttnV, &[d, kv]);
        block("attn_output.weight", Role::AttnOutput, &[q, d]);
        block("ffn_norm.weight", Role::FfnNorm, &[d]);
        block("ffn_gate.weight", Role::FfnGate, &[d, ff]);
        block("ffn_up.weight", Role::FfnUp, &[d, ff]);
        block("ffn_down.weight", Role::FfnDown, &[ff, d]);
    }
    all
}

/// All tensors in the file's order, and the size of the image.
pub(super) fn place(
    header: &Header,
    architecture: Architecture,
    shape: &ModelShape,
) -> Result<(Vec<PlannedTensor>, u64), PlanError> {
    let per_block = header.tensors.len() as u64;
    if u64::from(shape.n_layers) > per_block {
        // Before a list of that many blocks is made.
        return Err(PlanError::Key {
            key: format!("{}.block_count", architecture.name()),
            found: shape.n_layers.to_string(),
            reason: format!("the file has {per_block} tensors"),
        });
    }
    let mut wanted = expected(architecture, shape);
    let mut placed = Vec::with_capacity(header.tensors.len());
    let mut offset = 0u64;
    for info in &header.tensors {
        let expected = wanted
            .remove(&info.name)
            .ok_or_else(|| PlanError::Unexpected {
                tensor: info.name.clone(),
                architecture: architecture.name(),
            })?;
        check(info, &expected)?;
        placed.push(PlannedTensor {
            role: expected.role,
            layer: expected.layer,
            info: info.clone(),
            rows: info.rows(),
            cols: expected.ne.first().copied().unwrap_or(1),
            offset,
        });
        // No overflow: together they have less than 2^63 bytes, which the parser saw to, and each grows by
        // less than the alignment.
        offset = (offset + info.nbytes).next_multiple_of(IMAGE_ALIGN);
    }
    // What one block has, all have: a bias that only some blocks had would be one that was lost.
    let present: HashSet<Role> = placed.iter().map(|t| t.role).collect();
    match wanted
        .into_iter()
        .filter(|(_, e)| !e.optional || present.contains(&e.role))
        .map(|(name, _)| name)
        .min()
    {
        Some(tensor) => Err(PlanError::Missing { tensor }),
        None => Ok((placed, offset)),
    }
}

fn check(info: &TensorInfo, expected: &Expected) -> Result<(), PlanError> {
    // Writers may append dimensions of one element.
    let significant = info
        .ne
        .iter()
        .rposition(|n| *n != 1)
        .map_or(1, |last| last + 1);
    if info.ne.get(..significant.max(expected.ne.len())) != Some(&expected.ne[..]) {
        return Err(PlanError::Shape {
            tensor: info.name.clone(),
            expected: expected.ne.clone(),
            found: info.ne.clone(),
        });
    }
    if expected.ne.len() == 1 && info.ty != TensorType::F32 {
        return Err(PlanError::VectorType {
            tensor: info.name.clone(),
            found: info.ty.name(),
        });
    }
    Ok(())
}
