//! A job's answer in one piece, for clients that do not read streams.

use axum::Json;
use orcd_shared::error::ErrorCode;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::ResponseBuilder;

use super::error::ApiError;
use super::openapi;
use crate::jobs::{JobEvent, JobStream, StopReason, TopLogprob};

/// What the events of a job say together.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct Whole {
    job_id: String,
    /// As in `/health`.
    model: String,
    /// The seed in use, up to 2^64 - 1.
    #[schema(format = "uint64")]
    seed: u64,
    /// Tokens of the prompt, those of the chat template included.
    prompt_tokens: u32,
    /// The output.
    text: String,
    /// The ids of its tokens.
    ids: Vec<u32>,
    /// Of each token, with `logprobs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    logprobs: Option<Vec<TokenLogprob>>,
    #[schema(inline)]
    stop_reason: Option<StopReason>,
    /// Which one; only with `STOP_SEQUENCE`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    stop_sequence: Option<String>,
    /// `ids`, counted.
    tokens_out: u32,
    /// First to last token.
    decode_time_ms: u64,
    /// Time of the engine's steps that drew the tokens.
    engine_time_us: u64,
    /// How often the job was given to another worker after a loss.
    replays: u32,
    /// Tokens of the prompt that were there already when the job began, kept of earlier jobs' prompts and outputs.
    cached_tokens: u32,
}

/// How likely a token was by the model's own logits.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TokenLogprob {
    /// Natural logarithm of its probability.
    logprob: f32,
    /// The most likely tokens, best first.
    top: Box<[TopLogprob]>,
}

/// Waits for the job's end.
///
/// # Errors
/// The job's own.
pub(super) async fn collect(mut stream: JobStream) -> Result<Json<Whole>, ApiError> {
    let mut whole = Whole::default();
    while let Some(numbered) = stream.events.recv().await {
        let is_last = numbered.event.is_terminal();
        whole.add(numbered.event)?;
        if is_last {
            return Ok(Json(whole));
        }
    }
    Err(given_up())
}

/// The answer that a stream's cut connection stands for elsewhere.
pub(super) fn given_up() -> ApiError {
    ApiError::new(
        ErrorCode::Cancelled,
        "the output was given up to make room for others; send the request again",
    )
}

impl Whole {
    fn add(&mut self, event: JobEvent) -> Result<(), ApiError> {
        match event {
            JobEvent::Started {
                job_id,
                model,
                seed,
                prompt_tokens,
                ..
            } => {
                (self.job_id, self.model) = (job_id.into(), model.into());
                (self.seed, self.prompt_tokens) = (seed, prompt_tokens);
            }
            JobEvent::Token {
                text,
                id,
                logprob,
                top,
                ..
            } => {
                self.text.push_str(&text);
                self.ids.push(id);
                if let (Some(logprob), Some(top)) = (logprob, top) {
                    let all = self.logprobs.get_or_insert_default();
                    all.push(TokenLogprob { logprob, top });
                }
            }
            JobEvent::End {
                tokens_out,
                decode_time_ms,
                stop_reason,
                stop_sequence,
                replays,
                engine_time_us,
                cached_tokens,
            } => {
                (self.stop_reason, self.stop_sequence) = (Some(stop_reason), stop_sequence);
                (self.tokens_out, self.replays) = (tokens_out, replays);
                (self.decode_time_ms, self.engine_time_us) = (decode_time_ms, engine_time_us);
                self.cached_tokens = cached_tokens;
            }
            JobEvent::Error { code, message, .. } => return Err(ApiError::new(code, message)),
        }
        Ok(())
    }
}

/// What the OpenAPI document says of it, beside the stream that `response` describes.
pub(super) fn describe(response: ResponseBuilder) -> ResponseBuilder {
    let (kind, content) = openapi::json(openapi::reference::<Whole>());
    response.content(kind, content)
}
