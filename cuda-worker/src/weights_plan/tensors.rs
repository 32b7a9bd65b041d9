//! Tensors by their names, each checked against the hyperparameters and given a place in the image.

use std::collections::{HashMap, HashSet};

use orcd_shared::gguf::{Header, TensorInfo, TensorType};

use super::architectures::{Architecture, TensorRule, Width};
use super::{IMAGE_ALIGN, ModelShape, PlanError, PlannedTensor, Role};

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
    rule: &'static TensorRule,
    layer: u32,
}

/// Every tensor of the architecture by its name.
fn expected(
    architecture: &Architecture,
    n_layers: u32,
    experts: bool,
) -> HashMap<String, Expected> {
    let mut all = HashMap::new();
    for rule in architecture.tensors(experts) {
        for layer in 0..if rule.per_layer { n_layers } else { 1 } {
            let name = match rule.per_layer {
                true => format!("blk.{layer}.{}", rule.name),
                false => rule.name.to_owned(),
            };
            all.insert(name, Expected { rule, layer });
        }
    }
    all
}

/// All tensors in the file's order, and the size of the image.
pub(super) fn place(
    header: &Header,
    architecture: &Architecture,
    shape: &ModelShape,
) -> Result<(Vec<PlannedTensor>, u64), PlanError> {
    let per_block = header.tensors.len() as u64;
    if u64::from(shape.n_layers) > per_block {
        // Before a list of that many blocks is made.
        return Err(PlanError::Key {
            key: format!("{}.block_count", architecture.name),
            found: shape.n_layers.to_string(),
            reason: format!("the file has {per_block} tensors"),
        });
    }
    let mut wanted = expected(architecture, shape.n_layers, shape.n_experts > 0);
    let mut placed = Vec::with_capacity(header.tensors.len());
    let mut offset = 0u64;
    for info in &header.tensors {
        let expected = wanted
            .remove(&info.name)
            .ok_or_else(|| PlanError::Unexpected {
                tensor: info.name.clone(),
                architecture: architecture.name,
            })?;
        let ne = expected.rule.ne(shape);
        check(info, &ne)?;
        check_experts(expected.rule.role, info, ne.len() > 2)?;
        for (role, info) in parts(expected.rule, info, shape) {
            let bytes = info.nbytes;
            placed.push(PlannedTensor {
                role,
                layer: expected.layer,
                rows: info.rows(),
                cols: ne.first().copied().unwrap_or(1),
                info,
                offset,
            });
            // No overflow: together they have less than 2^63 bytes, which the parser saw to, and each grows by
            // less than the alignment.
            offset = (offset + bytes).next_multiple_of(IMAGE_ALIGN);
        }
    }
    // What one block has, all have: a bias that only some blocks had would be one that was lost.
    let present: HashSet<Role> = placed.iter().map(|t| t.role).collect();
    match wanted
        .into_iter()
        .filter(|(_, e)| !e.rule.optional || present.contains(&e.rule.role))
        .map(|(name, _)| name)
        .min()
    {
        Some(tensor) => Err(PlanError::Missing { tensor }),
        None => Ok((placed, offset)),
    }
}

/// The tensors that one of the file holds, each with its place there: its rows lie one after the other.
fn parts(rule: &TensorRule, info: &TensorInfo, shape: &ModelShape) -> Vec<(Role, TensorInfo)> {
    if rule.parts.is_empty() {
        return vec![(rule.role, info.clone())];
    }
    // Whole: the shape was checked, and what a row takes divides what all take.
    let row_bytes = info.nbytes / info.rows().max(1);
    let mut offset = info.offset;
    let mut part = |&(role, width): &(Role, Width)| {
        let rows = width.of(shape);
        let mut of_it = info.clone();
        of_it.ne = vec![info.ne.first().copied().unwrap_or(1), rows];
        of_it.nbytes = rows * row_bytes;
        of_it.offset = offset;
        offset += of_it.nbytes;
        (role, of_it)
    };
    rule.parts.iter().map(&mut part).collect()
}

/// What the engine wants of routers and of experts.
fn check_experts(role: Role, info: &TensorInfo, experts: bool) -> Result<(), PlanError> {
    /// Of both backends' groups of packed rows a multiple (`kExpertRows` in `cuda/engine/model.cc`).
    const GROUP: u64 = 32;
    let quantized = !matches!(
        info.ty,
        TensorType::F32 | TensorType::F16 | TensorType::BF16
    );
    if !quantized {
        return Ok(());
    }
    if role == Role::Router {
        return Err(PlanError::RouterType {
            tensor: info.name.clone(),
            found: info.ty.name(),
        });
    }
    match info
        .ne
        .get(1)
        .filter(|rows| experts && !rows.is_multiple_of(GROUP))
    {
        Some(rows) => Err(PlanError::ExpertRows {
            tensor: info.name.clone(),
            rows: *rows,
            group: GROUP,
        }),
        None => Ok(()),
    }
}

fn check(info: &TensorInfo, expected: &[u64]) -> Result<(), PlanError> {
    // Writers may append dimensions of one element.
    let significant = info
        .ne
        .iter()
        .rposition(|n| *n != 1)
        .map_or(1, |last| last + 1);
    if info.ne.get(..significant.max(expected.len())) != Some(expected) {
        return Err(PlanError::Shape {
            tensor: info.name.clone(),
            expected: expected.to_vec(),
            found: info.ne.clone(),
        });
    }
    let is_bias = info.name.ends_with(".bias");
    if (expected.len() == 1 || is_bias) && info.ty != TensorType::F32 {
        return Err(PlanError::VectorType {
            tensor: info.name.clone(),
            found: info.ty.name(),
        });
    }
    Ok(())
}
