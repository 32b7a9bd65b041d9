//! Turns the JSON of a request into a checked value, or into the list of everything wrong with it.
//! Pure: no I/O, no clock, no randomness.

mod cache;
mod execute;
mod fields;
mod format;
mod logit_bias;
pub(super) mod messages;
mod resume;
pub(super) mod schema;
mod texts;

use orcd_shared::sampling::SamplingParams;

use super::error::Detail;
use super::json::Json;
pub use cache::CacheUse;
#[cfg(test)]
pub(super) use execute::field_names;
pub use execute::{Fresh, Generation, Input, Request, execute};
pub(super) use execute::{sampling, stop};
pub(super) use fields::Fields;
pub(super) use format::{checked_schema, no_ignored_end, response_format};
pub(super) use logit_bias::logit_bias;
pub use resume::Resume;
pub(super) use resume::{Strictness, resume};
pub(super) use texts::{apply_template, detokenize, tokenize};

/// Tokens to generate for a request that says nothing of it.
pub const DEFAULT_MAX_TOKENS: u32 = 2048;
/// Most messages.
pub const MAX_MESSAGES: usize = 4096;
/// Most stop sequences.
pub const MAX_STOPS: usize = 4;
/// Longest stop sequence.
pub const MAX_STOP_BYTES: usize = 100;
/// Longest salt of the prefix cache.
pub const MAX_CACHE_SALT_BYTES: usize = 256;
/// Longest job id.
pub const MAX_JOB_ID_BYTES: usize = 128;
/// What a job id may have beside letters and digits. `-` is last: so it stands in a set of a pattern.
const JOB_ID_PUNCTUATION: &str = "._:-";

/// The service's own bounds.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// `--max-tokens-out`.
    pub max_tokens_out: u32,
    /// Tokens in the model's vocabulary.
    pub vocab_size: u32,
    /// Sampling of requests that say nothing of it.
    pub defaults: SamplingParams,
}

/// Checks the body of `POST /cancel`.
///
/// # Errors
/// All faults.
pub fn cancel(body: Json) -> Result<String, Vec<Detail>> {
    let mut fields = Fields::of(body)?;
    let value = fields.required("job_id", JOB_ID_RULE);
    let job_id = value.and_then(|value| job_id(&mut fields, value));
    fields.finish(&["job_id"])?;
    // `finish` has failed where there is none.
    Ok(job_id.unwrap_or_default())
}

/// Whether `id` is a job's name as the contract has it.
#[must_use]
pub fn is_job_id(id: &str) -> bool {
    (1..=MAX_JOB_ID_BYTES).contains(&id.len())
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || JOB_ID_PUNCTUATION.as_bytes().contains(&b))
}

/// Checks the body of a request that has nothing to say: an object without fields.
///
/// # Errors
/// All faults.
pub fn no_fields(body: Json) -> Result<(), Vec<Detail>> {
    Fields::of(body)?.finish(&[])
}

/// What a job's name has to be.
const JOB_ID_RULE: &str = "1-128 characters of A-Z a-z 0-9 . _ : -";

/// The value of the field `job_id`; notes others than names.
fn job_id(fields: &mut Fields, value: Json) -> Option<String> {
    let id = fields.string("job_id", JOB_ID_RULE, value)?;
    if is_job_id(&id) {
        return Some(id);
    }
    let length = id.chars().count();
    let found = if length > MAX_JOB_ID_BYTES || length == 0 {
        format!("job_id has {length} characters; give 1 to {MAX_JOB_ID_BYTES}")
    } else {
        format!("job_id has other characters than allowed; give {JOB_ID_RULE}")
    };
    fields.fault("job_id", JOB_ID_RULE, found);
    None
}

#[cfg(test)]
mod tests;
