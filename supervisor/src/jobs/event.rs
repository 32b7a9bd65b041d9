//! What readers of a job's stream get.

use orcd_shared::error::ErrorCode;
use serde::{Serialize, Serializer};
use utoipa::ToSchema;
use utoipa::openapi::Ref;

/// What a reader of a job's stream gets; its JSON, in which the variant's name stands first, as
/// `type`, is what a client gets.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = Event)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum JobEvent {
    /// The first event: the job runs.
    Started {
        #[allow(missing_docs)]
        #[schema(value_type = String)]
        job_id: Box<str>,
        /// As in `/health`.
        #[schema(value_type = String)]
        model: Box<str>,
        /// When a worker was first given the job, in UTC.
        #[serde(serialize_with = "as_text")]
        #[schema(value_type = String, format = DateTime)]
        started_at: jiff::Timestamp,
        /// The seed in use, up to 2^64 - 1.
        // What a u64 gets otherwise is int64, too narrow for half of all seeds.
        #[schema(format = "uint64")]
        seed: u64,
        /// Tokens of the prompt, those of the chat template included.
        prompt_tokens: u32,
        /// Of the service: what outputs depend on beside requests. For `resume`, as those below.
        #[schema(value_type = String)]
        fingerprint: Box<str>,
        /// Of the request: what its output depends on.
        #[schema(value_type = String)]
        request_digest: Box<str>,
        /// The time that the chat template saw, RFC 3339.
        #[schema(value_type = String, format = DateTime)]
        template_time: Box<str>,
    },
    /// One generated token.
    Token {
        /// Text that became certain with it; may be empty. Joined, all are the output.
        #[serde(rename = "t")]
        text: String,
        /// Index among the generated tokens, from 0 without a gap.
        #[serde(rename = "i")]
        index: u32,
        /// The token's id in the vocabulary.
        id: u32,
        /// Natural logarithm of its probability by the model's own logits, before anything changes them; only
        /// with `logprobs`.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(nullable = false)]
        logprob: Option<f32>,
        /// The most likely tokens, best first, as many as `logprobs` says; only with `logprobs`.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(nullable = false, value_type = Option<Vec<TopLogprob>>, max_items = 20)]
        top: Option<Box<[TopLogprob]>>,
    },
    /// The last event of a job that ended by itself.
    End {
        /// `token` events of the job.
        tokens_out: u32,
        /// First to last token.
        decode_time_ms: u64,
        #[allow(missing_docs)]
        #[schema(inline)]
        stop_reason: StopReason,
        /// Which one; only with `STOP_SEQUENCE`.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(nullable = false)]
        stop_sequence: Option<String>,
        /// How often the job was given to another worker after a loss.
        replays: u32,
        /// Time of the engine's steps that drew the tokens.
        engine_time_us: u64,
        /// Tokens of the prompt that were there already when the job began, kept of earlier jobs' prompts and outputs.
        cached_tokens: u32,
    },
    /// The last event of a job that could not go on.
    Error {
        #[allow(missing_docs)]
        #[schema(schema_with = error_code)]
        code: ErrorCode,
        /// What failed and what to do, for people.
        message: String,
        /// The same request may succeed later or elsewhere.
        retriable: bool,
        /// `token` events before it.
        tokens_out: u32,
    },
}

/// One of the most likely tokens.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
pub struct TopLogprob {
    /// Its id in the vocabulary.
    pub id: u32,
    /// Natural logarithm of its probability.
    pub logprob: f32,
}

impl From<(u32, f32)> for TopLogprob {
    fn from((id, logprob): (u32, f32)) -> Self {
        Self { id, logprob }
    }
}

/// Why a job ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum StopReason {
    /// End-of-generation token (not itself a token event).
    Eos,
    /// `max_tokens` reached.
    MaxTokens,
    /// One of the stop sequences appeared.
    StopSequence,
    /// No room left in the context.
    ContextFull,
}

/// An event with its SSE id.
#[derive(Debug, Clone, PartialEq)]
pub struct Numbered {
    /// Running from 0.
    pub id: u64,
    /// What happened.
    pub event: JobEvent,
}

impl JobEvent {
    /// The `type` in its JSON.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Started { .. } => "started",
            Self::Token { .. } => "token",
            Self::End { .. } => "end",
            Self::Error { .. } => "error",
        }
    }

    /// Nothing comes after it.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::End { .. } | Self::Error { .. })
    }
}

impl Numbered {
    /// Bytes of memory that it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let text = match &self.event {
            JobEvent::Started {
                job_id,
                model,
                fingerprint,
                request_digest,
                template_time,
                ..
            } => [job_id, model, fingerprint, request_digest, template_time]
                .map(|text| text.len())
                .iter()
                .sum(),
            JobEvent::Token { text, top, .. } => {
                text.capacity() + top.as_deref().map_or(0, size_of_val)
            }
            JobEvent::End { stop_sequence, .. } => {
                stop_sequence.as_ref().map_or(0, String::capacity)
            }
            JobEvent::Error { message, .. } => message.capacity(),
        };
        size_of::<Self>() + text
    }
}

fn as_text<S: Serializer>(value: &jiff::Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// The codes stand among the document's schemas by this name.
fn error_code() -> Ref {
    Ref::from_schema_name("ErrorCode")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(stop_reason: StopReason, stop_sequence: Option<&str>) -> JobEvent {
        JobEvent::End {
            tokens_out: 3,
            decode_time_ms: 7,
            engine_time_us: 6500,
            stop_reason,
            stop_sequence: stop_sequence.map(Into::into),
            replays: 1,
            cached_tokens: 2,
        }
    }

    #[test]
    fn every_event_has_the_bytes_of_the_contract() {
        let started = JobEvent::Started {
            job_id: "j-1".into(),
            model: "haiku".into(),
            started_at: "2026-01-02T03:04:05.5Z".parse().unwrap(),
            prompt_tokens: 9,
            seed: u64::MAX,
            fingerprint: "f0".into(),
            request_digest: "d0".into(),
            template_time: "2026-01-02T03:04:05+00:00".into(),
        };
        let token = JobEvent::Token {
            text: "a\r\nb\u{0}\u{2028}é\"".into(),
            index: 0,
            id: 1234,
            logprob: None,
            top: None,
        };
        let likely = JobEvent::Token {
            text: "a".into(),
            index: 1,
            id: 7,
            logprob: Some(-0.25),
            top: Some([(7, -0.25), (9, -2.0)].map(TopLogprob::from).into()),
        };
        let error = JobEvent::Error {
            code: ErrorCode::Cancelled,
            message: "bye".into(),
            retriable: true,
            tokens_out: 2,
        };
        for (event, expected) in [
            (
                started,
                r#"{"type":"started","job_id":"j-1","model":"haiku","started_at":"2026-01-02T03:04:05.5Z","seed":18446744073709551615,"prompt_tokens":9,"fingerprint":"f0","request_digest":"d0","template_time":"2026-01-02T03:04:05+00:00"}"#,
            ),
            (
                token,
                "{\"type\":\"token\",\"t\":\"a\\r\\nb\\u0000\u{2028}é\\\"\",\"i\":0,\"id\":1234}",
            ),
            (
                likely,
                r#"{"type":"token","t":"a","i":1,"id":7,"logprob":-0.25,"top":[{"id":7,"logprob":-0.25},{"id":9,"logprob":-2.0}]}"#,
            ),
            (
                end(StopReason::Eos, None),
                r#"{"type":"end","tokens_out":3,"decode_time_ms":7,"stop_reason":"EOS","replays":1,"engine_time_us":6500,"cached_tokens":2}"#,
            ),
            (
                end(StopReason::StopSequence, Some("\n\"")),
                r#"{"type":"end","tokens_out":3,"decode_time_ms":7,"stop_reason":"STOP_SEQUENCE","stop_sequence":"\n\"","replays":1,"engine_time_us":6500,"cached_tokens":2}"#,
            ),
            (
                error,
                r#"{"type":"error","code":"CANCELLED","message":"bye","retriable":true,"tokens_out":2}"#,
            ),
        ] {
            let json = serde_json::to_string(&event).unwrap();
            assert_eq!(json, expected);
            let type_of = format!("{{\"type\":\"{}\",", event.name());
            assert!(json.starts_with(&type_of), "{json}");
        }
        for (reason, name) in [
            (StopReason::MaxTokens, "\"MAX_TOKENS\""),
            (StopReason::ContextFull, "\"CONTEXT_FULL\""),
        ] {
            assert_eq!(serde_json::to_string(&reason).unwrap(), name);
        }
    }
}
