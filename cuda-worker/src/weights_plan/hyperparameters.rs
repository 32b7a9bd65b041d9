//! Keys of the file. A missing one has the value that the format's or the architecture's documents
//! give it, and that is noted for the log. One without such a value is an error: a guess that is wrong
//! for the model would run, and talk nonsense.

mod experts;
mod keys;
mod layers;
mod neutral;
mod rope;
mod scales;

use orcd_shared::gguf::{FILE_TYPES, Header, Metadata};

use super::architectures::Architecture;
use super::{AbsentKey, ModelShape, PlanError};
use experts::Experts;
use keys::Keys;
use scales::Scales;

/// Bounds that the engine has too: sums of sizes below them are far from overflowing.
const MOST_WIDTH: u32 = 1 << 17;
const MOST_HEADS: u32 = 1024;
const MOST_HEAD: u32 = 256;

/// What the keys say.
pub(super) struct Hyperparameters {
    pub(super) shape: ModelShape,
    pub(super) context_length: u32,
    pub(super) absent: Vec<AbsentKey>,
}

/// Reads the keys below the architecture's prefix.
pub(super) fn read(
    metadata: &Metadata,
    architecture: &Architecture,
    vocab: u32,
    has_tensor: &dyn Fn(&str) -> bool,
) -> Result<Hyperparameters, PlanError> {
    let mut keys = Keys {
        metadata,
        prefix: architecture.name,
        absent: Vec::new(),
    };
    let (d_model, n_heads) = (
        keys.count("embedding_length")?,
        keys.count("attention.head_count")?,
    );
    // Optional by the format: without it every query head has its own.
    let n_kv_heads = if keys.has("attention.head_count_kv") {
        keys.count("attention.head_count_kv")?
    } else {
        keys.take("attention.head_count_kv", n_heads)
    };
    if n_heads % n_kv_heads != 0 {
        let reason = format!("must divide the head count {n_heads}");
        return Err(keys.refused("attention.head_count_kv", n_kv_heads, reason));
    }
    let head_dim = head_dim(&mut keys, d_model, n_heads)?;
    keys.at_most("embedding_length", d_model, MOST_WIDTH)?;
    keys.at_most("attention.head_count", n_heads, MOST_HEADS)?;
    keys.at_most("attention.key_length", head_dim, MOST_HEAD)?;
    keys.must_equal("vocab_size", vocab, "the rows of token_embd.weight")?;
    neutral::check(&keys, architecture)?;
    let n_layers = keys.count("block_count")?;
    let context_length = keys.count("context_length")?;
    let mut rope = rope::read(&mut keys, architecture, head_dim, context_length)?;
    let divisors = [rope::SHORT_DIVISORS, rope::LONG_DIVISORS].map(has_tensor);
    if rope::is_long(&keys, divisors)? {
        rope = rope::long(&keys, rope)?;
    }
    let (kinds, second_kind) = layers::read(&mut keys, architecture, n_layers, rope)?;
    let scales = Scales::read(
        &mut keys,
        architecture,
        [n_layers, d_model, n_heads],
        rope.original_context,
    )?;
    let experts = Experts::read(&keys, architecture)?;
    let shape = ModelShape {
        n_layers,
        d_model,
        d_ff: experts.width(&keys)?,
        n_heads,
        n_kv_heads,
        head_dim,
        vocab,
        rms_eps: keys.positive("attention.layer_norm_rms_epsilon")?,
        kinds,
        second_kind,
        activation: architecture.activation,
        attention_scale: scales.attention,
        attention_soft_cap: scales.attention_soft_cap,
        embedding_scale: scales.embedding,
        residual_scale: scales.residual,
        logit_scale: scales.logits,
        logit_soft_cap: scales.logit_soft_cap,
        query_scale: scales.query,
        query_scale_context: rope.original_context,
        n_experts: experts.count,
        n_experts_used: experts.used,
        expert_scale: experts.scale,
    };
    Ok(Hyperparameters {
        shape,
        context_length,
        absent: keys.absent,
    })
}

fn head_dim(keys: &mut Keys<'_>, d_model: u32, n_heads: u32) -> Result<u32, PlanError> {
    let head_dim = match keys.metadata.opt_u32(&keys.name("attention.key_length"))? {
        Some(length) => length,
        None if d_model.is_multiple_of(n_heads) => {
            keys.take("attention.key_length", d_model / n_heads)
        }
        None => {
            let reason = format!("must divide the embedding length {d_model}");
            return Err(keys.refused("attention.head_count", n_heads, reason));
        }
    };
    keys.must_equal("attention.value_length", head_dim, "the length of a key")?;
    Ok(head_dim)
}

/// Name of the mixture of types. Without `general.file_type`, the type that most bytes have.
pub(super) fn quant_kind(header: &Header) -> Result<String, PlanError> {
    let number = header.metadata.opt_u32("general.file_type")?;
    let known = FILE_TYPES.iter().find(|mix| Some(mix.0) == number);
    Ok(known.map_or_else(|| most_bytes(header), |mix| mix.1.to_owned()))
}

fn most_bytes(header: &Header) -> String {
    let bytes_of = |ty| {
        header
            .tensors
            .iter()
            .filter(|t| t.ty == ty)
            .map(|t| t.nbytes)
            .sum::<u64>()
    };
    let most = header
        .tensors
        .iter()
        .map(|t| t.ty)
        .max_by_key(|ty| bytes_of(*ty));
    most.map_or_else(String::new, |ty| ty.name().to_owned())
}
