//! Tensors by their names, each checked against the hyperparameters and given a place in the image.

use std::collections::{HashMap, HashSet};

use orcd_shared::gguf::{Header, TensorInfo, TensorType};

use super::architectures::{Architecture, FeedForwards, TensorRule};
use super::image::Image;
use super::{ModelShape, PlanError, PlannedTensor, Role};

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
pub(super) struct Expected {
    pub(super) rule: &'static TensorRule,
    pub(super) layer: u32,
    /// Which expert's; 0 of what is for none or for all.
    pub(super) expert: u32,
}

/// A tensor of the file that is as it must be.
pub(super) struct Found<'a> {
    pub(super) expected: Expected,
    pub(super) info: &'a TensorInfo,
}

/// How the file has its feed-forward parts. One with experts has them one by one unless some are merged.
fn feed_forwards(header: &Header, architecture: &Architecture, n_experts: u32) -> FeedForwards {
    let is_merged = |info: &TensorInfo| info.name.ends_with("_exps.weight");
    if n_experts == 0 {
        FeedForwards::Dense
    } else if architecture.has_separate_experts() && !header.tensors.iter().any(is_merged) {
        FeedForwards::SeparateExperts
    } else {
        FeedForwards::Experts
    }
}

/// Every tensor of the architecture by its name.
fn expected(
    architecture: &Architecture,
    shape: &ModelShape,
    feed_forwards: FeedForwards,
) -> HashMap<String, Expected> {
    let mut all = HashMap::new();
    for rule in architecture.tensors(feed_forwards) {
        let layers = if rule.per_layer { shape.n_layers } else { 1 };
        let experts = if rule.per_expert { shape.n_experts } else { 1 };
        for (layer, expert) in (0..layers).flat_map(|l| (0..experts).map(move |e| (l, e))) {
            let name = match (rule.per_layer, rule.per_expert) {
                (_, true) => format!("blk.{layer}.{}.{expert}.weight", rule.name),
                (true, false) => format!("blk.{layer}.{}", rule.name),
                (false, false) => rule.name.to_owned(),
            };
            all.insert(
                name,
                Expected {
                    rule,
                    layer,
                    expert,
                },
            );
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
    let feed_forwards = feed_forwards(header, architecture, shape.n_experts);
    check_counts(header, architecture, shape, feed_forwards)?;
    let mut wanted = expected(architecture, shape, feed_forwards);
    let found = header.tensors.iter().map(|info| {
        let expected = wanted.remove(&info.name);
        let expected = expected.ok_or_else(|| PlanError::Unexpected {
            tensor: info.name.clone(),
            architecture: architecture.name,
        })?;
        let ne = expected.rule.ne(shape);
        check(info, &ne)?;
        let of_experts = ne.len() > 2 || expected.rule.per_expert;
        check_experts(expected.rule.role, info, of_experts)?;
        Ok(Found { expected, info })
    });
    let found = found.collect::<Result<Vec<_>, PlanError>>()?;
    check_complete(wanted, &found)?;
    check_types(&found)?;
    let mut image = Image::default();
    (found.iter()).for_each(|found| image.place(found, shape));
    Ok((image.placed, image.bytes))
}

/// That a list of what the keys say is not much longer than that of what is there, before it is made.
fn check_counts(
    header: &Header,
    architecture: &Architecture,
    shape: &ModelShape,
    feed_forwards: FeedForwards,
) -> Result<(), PlanError> {
    let n_tensors = header.tensors.len() as u64;
    let layers = ("block_count", shape.n_layers, shape.n_layers.into());
    // No overflow: the product of two numbers of 32 bits.
    let in_all = u64::from(shape.n_layers) * u64::from(shape.n_experts);
    let experts = match feed_forwards {
        FeedForwards::SeparateExperts => in_all,
        FeedForwards::Dense | FeedForwards::Experts => 0,
    };
    for (key, found, least) in [layers, ("expert_count", shape.n_experts, experts)] {
        if least > n_tensors {
            return Err(PlanError::Key {
                key: format!("{}.{key}", architecture.name),
                found: found.to_string(),
                reason: format!("the file has {n_tensors} tensors"),
            });
        }
    }
    Ok(())
}

/// What one block has, all have: a bias that only some blocks had would be one that was lost.
fn check_complete(
    missing: HashMap<String, Expected>,
    found: &[Found<'_>],
) -> Result<(), PlanError> {
    let present: HashSet<Role> = found.iter().map(|f| f.expected.rule.role).collect();
    match missing
        .into_iter()
        .filter(|(_, e)| !e.rule.optional || present.contains(&e.rule.role))
        .map(|(name, _)| name)
        .min()
    {
        Some(tensor) => Err(PlanError::Missing { tensor }),
        None => Ok(()),
    }
}

/// The rows of a matrix have one type.
fn check_types(found: &[Found<'_>]) -> Result<(), PlanError> {
    let mut first: HashMap<(Role, u32), &TensorInfo> = HashMap::new();
    for Found { expected, info } in found.iter().filter(|f| f.expected.rule.per_expert) {
        let matrix = (expected.rule.role, expected.layer);
        let other = *first.entry(matrix).or_insert(info);
        if other.ty != info.ty {
            return Err(PlanError::ExpertType {
                tensor: info.name.clone(),
                found: info.ty.name(),
                other: other.name.clone(),
                expected: other.ty.name(),
            });
        }
    }
    Ok(())
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
