//! OpenAI's dialects, one a file: what clients ask in them becomes [`Generation`](super::validate::Generation)s,
//! and the jobs' events become their answers. Fields that nobody knows are ignored there, because clients send new
//! ones; what is known and can't be done is refused by name.

pub(super) mod chat;
pub(super) mod completions;
pub(super) mod document;
mod errors;
mod logprobs;
mod request;
pub(super) mod responses;
mod resumable;
mod stream;
mod tools;
mod usage;

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::error::{ApiError, Detail};
use super::generate::Decoding;
use crate::jobs::StopReason;
pub(super) use errors::{Body as ErrorBody, body, is_asked_at};
pub(super) use stream::answer;

/// Letters and digits of a call's id: as many as the strictest template wants (Mistral's).
const CALL_ID_CHARS: usize = 9;

/// What every answer and every chunk of one begins with.
#[derive(Debug, Clone, Serialize)]
struct Head {
    id: String,
    object: &'static str,
    /// When it was asked for, seconds since 1970.
    created: u64,
    /// As the request names it.
    model: String,
    system_fingerprint: Option<Box<str>>,
}

impl Head {
    /// Of the answer to a request for `model`, or for any, whose id is `id`.
    ///
    /// # Errors
    /// The service has no such model.
    fn new(
        id: String,
        object: &'static str,
        model: Option<String>,
        decoding: &Decoding,
    ) -> Result<Self, ApiError> {
        Ok(Self {
            id,
            object,
            created: now(),
            model: served(model, decoding.names())?,
            system_fingerprint: decoding.fingerprint.clone(),
        })
    }
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Why an output ended, in OpenAI's words.
fn finish_reason(reason: StopReason) -> &'static str {
    match reason {
        StopReason::Eos | StopReason::StopSequence => "stop",
        StopReason::MaxTokens | StopReason::ContextFull => "length",
    }
}

/// The id of call `index` of an output: the same whenever it is asked for, and no other call's.
fn call_id(output: &str, index: u32) -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let hash = Sha256::digest(format!("{output}/{index}"));
    let digit = |byte: &u8| char::from(DIGITS[usize::from(*byte) % DIGITS.len()]);
    hash.iter().take(CALL_ID_CHARS).map(digit).collect()
}

/// The name under which the model is asked for.
fn served(model: Option<String>, names: &[String]) -> Result<String, ApiError> {
    match model {
        Some(model) if names.contains(&model) => Ok(model),
        Some(_) => Err(model_not_found(names)),
        // There is at least one.
        None => Ok(names.first().cloned().unwrap_or_default()),
    }
}

/// Of a model that this service has not.
pub(super) fn model_not_found(names: &[String]) -> ApiError {
    let message = format!("no such model; this service has {}", names.join(", "));
    let detail = Detail {
        field: "model".into(),
        constraint: "a model of /v1/models".into(),
        message: message.clone(),
    };
    ApiError::invalid_with(http::StatusCode::NOT_FOUND, message).details(vec![detail])
}
