//! Keys of the file. A missing one is an error: a default that is wrong for the model would run, and
//! talk nonsense.

use orcd_shared::gguf::{Header, Metadata};

use super::{Architecture, ModelShape, PlanError};

/// Keys that change what the model computes, in ways this engine doesn't know, and the one value
/// under which they change nothing.
const MUST_BE_NEUTRAL: [(&str, Neutral); 13] = [
    ("rope.scaling.factor", Neutral::One),
    ("rope.scaling.attn_factor", Neutral::One),
    ("rope.scale_linear", Neutral::One),
    ("expert_count", Neutral::Zero),
    ("attention.sliding_window", Neutral::Zero),
    ("attention.logit_softcapping", Neutral::Zero),
    ("attn_logit_softcapping", Neutral::Zero),
    ("final_logit_softcapping", Neutral::Zero),
    ("attention.clamp_kqv", Neutral::Zero),
    ("attention.scale", Neutral::Zero),
    ("logit_scale", Neutral::One),
    ("embedding_scale", Neutral::One),
    ("residual_scale", Neutral::One),
];

#[derive(Clone, Copy, PartialEq)]
enum Neutral {
    Zero,
    One,
}

/// The shape, and the context length.
pub(super) fn read(
    metadata: &Metadata,
    architecture: Architecture,
    vocab: u32,
) -> Result<(ModelShape, u32), PlanError> {
    let keys = Keys {
        metadata,
        prefix: architecture.name(),
    };
    let (d_model, n_heads) = (
        keys.count("embedding_length")?,
        keys.count("attention.head_count")?,
    );
    // Optional by the format: without it every query head has its own.
    let n_kv_heads = match metadata.opt_u32(&keys.name("attention.head_count_kv"))? {
        Some(_) => keys.count("attention.head_count_kv")?,
        None => n_heads,
    };
    if n_heads % n_kv_heads != 0 {
        let reason = format!("must divide the head count {n_heads}");
        return Err(keys.refused("attention.head_count_kv", n_kv_heads, reason));
    }
    let head_dim = head_dim(&keys, d_model, n_heads)?;
    keys.must_equal("rope.dimension_count", head_dim, "the size of a head")?;
    keys.must_equal("vocab_size", vocab, "the rows of token_embd.weight")?;
    check_neutral(&keys)?;
    let shape = ModelShape {
        n_layers: keys.count("block_count")?,
        d_model,
        d_ff: keys.count("feed_forward_length")?,
        n_heads,
        n_kv_heads,
        head_dim,
        vocab,
        rope_interleaved: architecture.rope_interleaved(),
        rope_base: f64::from(keys.positive("rope.freq_base")?),
        rms_eps: keys.positive("attention.layer_norm_rms_epsilon")?,
    };
    Ok((shape, keys.count("context_length")?))
}

fn head_dim(keys: &Keys<'_>, d_model: u32, n_heads: u32) -> Result<u32, PlanError> {
    let head_dim = match keys.metadata.opt_u32(&keys.name("attention.key_length"))? {
        Some(length) => length,
        None if d_model.is_multiple_of(n_heads) => d_model / n_heads,
        None => {
            let reason = format!("must divide the embedding length {d_model}");
            return Err(keys.refused("attention.head_count", n_heads, reason));
        }
    };
    keys.must_equal("attention.value_length", head_dim, "the length of a key")?;
    Ok(head_dim)
}

fn check_neutral(keys: &Keys<'_>) -> Result<(), PlanError> {
    let scaling = keys.metadata.opt_str(&keys.name("rope.scaling.type"))?;
    if let Some(kind) = scaling.filter(|kind| *kind != "none") {
        return Err(keys.refused(
            "rope.scaling.type",
            kind,
            "rope scaling is not supported".into(),
        ));
    }
    for (key, neutral) in MUST_BE_NEUTRAL {
        let Some(value) = keys.metadata.get(&keys.name(key)) else {
            continue;
        };
        let wanted = if neutral == Neutral::One { 1 } else { 0 };
        let is_neutral = match value.as_integer() {
            Some(integer) => integer == wanted,
            None => keys
                .metadata
                .opt_f32(&keys.name(key))?
                .is_some_and(|v| v == wanted as f32),
        };
        if !is_neutral {
            let reason = format!("only {wanted} is supported");
            return Err(keys.refused(key, value.describe(), reason));
        }
    }
    Ok(())
}

/// Keys below an architecture's prefix.
struct Keys<'a> {
    metadata: &'a Metadata,
    prefix: &'static str,
}

impl Keys<'_> {
    fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.prefix)
    }

    fn refused(&self, key: &str, found: impl ToString, reason: String) -> PlanError {
        PlanError::Key {
            key: self.name(key),
            found: found.to_string(),
            reason,
        }
    }

    /// A number of things, of which there is at least one.
    fn count(&self, key: &str) -> Result<u32, PlanError> {
        let count = self.metadata.u32(&self.name(key))?;
        if count == 0 {
            return Err(self.refused(key, 0, "must be at least 1".into()));
        }
        Ok(count)
    }

    fn positive(&self, key: &str) -> Result<f32, PlanError> {
        let value = self.metadata.f32(&self.name(key))?;
        if !(value.is_finite() && value > 0.0) {
            return Err(self.refused(key, value, "must be positive".into()));
        }
        Ok(value)
    }

    /// A key that may be missing, but not say something else.
    fn must_equal(&self, key: &str, expected: u32, what: &str) -> Result<(), PlanError> {
        match self.metadata.opt_u32(&self.name(key))? {
            Some(found) if found != expected => {
                Err(self.refused(key, found, format!("expected {expected}, {what}")))
            }
            _ => Ok(()),
        }
    }
}

/// Name of the mixture of types. Without `general.file_type`, the type that most bytes have.
pub(super) fn quant_kind(header: &Header) -> Result<String, PlanError> {
    let name = match header.metadata.opt_u32("general.file_type")? {
        Some(0) => "F32",
        Some(1) => "F16",
        Some(2) => "Q4_0",
        Some(3) => "Q4_1",
        Some(7) => "Q8_0",
        Some(8) => "Q5_0",
        Some(9) => "Q5_1",
        Some(14) => "Q4_K_S",
        Some(15) => "Q4_K_M",
        Some(16) => "Q5_K_S",
        Some(17) => "Q5_K_M",
        Some(18) => "Q6_K",
        Some(32) => "BF16",
        _ => return Ok(most_bytes(header)),
    };
    Ok(name.to_owned())
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
