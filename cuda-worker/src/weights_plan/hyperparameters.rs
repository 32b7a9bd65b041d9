//! Keys of the file. A missing one has the value that the format's or the architecture's documents
//! give it, and that is noted for the log. One without such a value is an error: a guess that is wrong
//! for the model would run, and talk nonsense.

use orcd_shared::gguf::{FILE_TYPES, Header, Metadata};

use super::architectures::Architecture;
use super::{AbsentKey, ModelShape, PlanError};

/// Base of the rotation frequencies where a file names none: what the configurations of both
/// architectures and llama.cpp take. Files made before the key existed are models of this base.
const ROPE_BASE: f32 = 10_000.0;

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
    keys.must_equal("rope.dimension_count", head_dim, "the size of a head")?;
    keys.must_equal("vocab_size", vocab, "the rows of token_embd.weight")?;
    check_neutral(&keys)?;
    let rope_base = if keys.has("rope.freq_base") {
        keys.positive("rope.freq_base")?
    } else {
        keys.take("rope.freq_base", ROPE_BASE)
    };
    let shape = ModelShape {
        n_layers: keys.count("block_count")?,
        d_model,
        d_ff: keys.count("feed_forward_length")?,
        n_heads,
        n_kv_heads,
        head_dim,
        vocab,
        rope_style: architecture.rope_style,
        rope_base: f64::from(rope_base),
        rms_eps: keys.positive("attention.layer_norm_rms_epsilon")?,
    };
    Ok(Hyperparameters {
        shape,
        context_length: keys.count("context_length")?,
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
    /// Keys that the file lacks, and the values taken for them.
    absent: Vec<AbsentKey>,
}

impl Keys<'_> {
    fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.prefix)
    }

    fn has(&self, key: &str) -> bool {
        self.metadata.contains(&self.name(key))
    }

    /// Notes that `value` is taken for a key that is absent.
    fn take<T: ToString>(&mut self, key: &str, value: T) -> T {
        self.absent.push(AbsentKey {
            key: self.name(key),
            taken: value.to_string(),
        });
        value
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
    fn must_equal(&mut self, key: &str, expected: u32, what: &str) -> Result<(), PlanError> {
        match self.metadata.opt_u32(&self.name(key))? {
            Some(found) if found != expected => {
                return Err(self.refused(key, found, format!("expected {expected}, {what}")));
            }
            Some(_) => {}
            None => _ = self.take(key, expected),
        }
        Ok(())
    }
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
