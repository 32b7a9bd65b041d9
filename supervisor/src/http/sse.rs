//! Job events as server-sent events: one frame of the body for each, so that each is flushed.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, header};
use orcd_shared::error::ErrorCode;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::ResponseBuilder;
use utoipa::openapi::schema::{ObjectBuilder, Type};

use super::frames::Frames;
use super::openapi::{self, Code};
use crate::jobs::{JobEvent, JobStream, Numbered, StopReason};

const KIND: &str = "text/event-stream";

/// What events repeat of their job.
#[derive(Debug, Clone)]
pub struct JobNames {
    /// The client's name for the job.
    pub job_id: Arc<str>,
    /// The model's name.
    pub model: Arc<str>,
}

/// The answer that carries `stream`. When the answer is dropped, because it was read to its end or
/// because the client went away, the stream is dropped with it.
pub fn response(stream: JobStream, names: JobNames) -> Response {
    let frames = stream::unfold(Frames::new(stream, names), async |mut frames| {
        Some((frames.next().await?, frames))
    });
    let mut response = Response::new(Body::from_stream(frames));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        // Without the charset some clients take it for Latin-1, where a byte of UTF-8 may end a line.
        HeaderValue::from_static("text/event-stream; charset=utf-8"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Proxies that buffer answers (nginx) are told not to.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// The bytes of one event.
#[must_use]
pub fn encode(numbered: &Numbered, names: &JobNames) -> Bytes {
    let data = match &numbered.event {
        JobEvent::Started {
            started_at,
            prompt_tokens,
            seed,
        } => Data::Started {
            job_id: &names.job_id,
            model: &names.model,
            started_at: started_at.to_string(),
            seed: *seed,
            prompt_tokens: *prompt_tokens,
        },
        JobEvent::Token { text, index, id } => Data::Token {
            t: text,
            i: *index,
            id: *id,
        },
        JobEvent::End {
            tokens_out,
            decode_time_ms,
            engine_time_us,
            stop,
            replays,
        } => Data::End {
            tokens_out: *tokens_out,
            decode_time_ms: *decode_time_ms,
            stop_reason: stop_reason(stop),
            stop_sequence: match stop {
                StopReason::StopSequence(text) => Some(text),
                _ => None,
            },
            replays: *replays,
            engine_time_us: *engine_time_us,
        },
        JobEvent::Error {
            code,
            message,
            tokens_out,
        } => Data::Error {
            code: *code,
            message,
            retriable: code.retriable(),
            tokens_out: *tokens_out,
        },
    };
    frame(data.name(), numbered.id, &data)
}

fn frame(name: &str, id: u64, data: &Data<'_>) -> Bytes {
    let mut frame = Vec::with_capacity(128);
    frame.extend_from_slice(b"event: ");
    frame.extend_from_slice(name.as_bytes());
    frame.extend_from_slice(b"\nid: ");
    frame.extend_from_slice(id.to_string().as_bytes());
    frame.extend_from_slice(b"\ndata: ");
    // Strings and numbers: nothing that JSON can't hold. JSON has no raw line breaks, so it is one
    // line of data.
    if serde_json::to_writer(&mut frame, data).is_err() {
        frame.extend_from_slice(b"{}");
    }
    frame.extend_from_slice(b"\n\n");
    frame.into()
}

fn stop_reason(stop: &StopReason) -> StopName {
    match stop {
        StopReason::Eos => StopName::Eos,
        StopReason::MaxTokens => StopName::MaxTokens,
        StopReason::StopSequence(_) => StopName::StopSequence,
        StopReason::ContextFull => StopName::ContextFull,
    }
}

/// The JSON of an event; the variant's name stands first, as `type`.
#[derive(Serialize, ToSchema)]
#[schema(as = Event)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(super) enum Data<'a> {
    /// The first event: the job runs.
    Started {
        job_id: &'a str,
        /// As in `/health`.
        model: &'a str,
        /// When a worker was first given the job, in UTC.
        #[schema(format = DateTime)]
        started_at: String,
        /// The seed in use, up to 2^64 - 1.
        // What a u64 gets otherwise is int64, too narrow for half of all seeds.
        #[schema(format = "uint64")]
        seed: u64,
        /// Tokens of the prompt, those of the chat template included.
        prompt_tokens: u32,
    },
    /// One generated token.
    Token {
        /// Text that became certain with it; may be empty. Joined, all are the output.
        t: &'a str,
        /// Index among the generated tokens, from 0 without a gap.
        i: u32,
        /// The token's id in the vocabulary.
        id: u32,
    },
    /// The last event of a job that ended by itself.
    End {
        /// `token` events of the job.
        tokens_out: u32,
        /// First to last token.
        decode_time_ms: u64,
        #[schema(inline)]
        stop_reason: StopName,
        /// Which one; only with `STOP_SEQUENCE`.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(nullable = false)]
        stop_sequence: Option<&'a str>,
        /// How often the job was given to another worker after a loss.
        replays: u32,
        /// Time of the engine's steps that drew the tokens.
        engine_time_us: u64,
    },
    /// The last event of a job that could not go on.
    Error {
        #[schema(value_type = Code)]
        code: ErrorCode,
        /// What failed and what to do, for people.
        message: &'a str,
        /// The same request may succeed later or elsewhere.
        retriable: bool,
        /// `token` events before it.
        tokens_out: u32,
    },
}

/// Why a job ended by itself.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum StopName {
    Eos,
    MaxTokens,
    StopSequence,
    ContextFull,
}

/// What the OpenAPI document says of a stream.
pub(super) fn describe() -> ResponseBuilder {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let data = text()
        .content_media_type("application/json")
        .content_schema(Some(openapi::reference::<Data<'_>>()));
    // Before 3.2 OpenAPI has no word for the items of a stream: readers take this for one of them.
    let item = ObjectBuilder::new()
        .schema_type(Type::Object)
        .description(Some("One event of the stream."))
        .property("event", text().description(Some("The `type` of the data.")))
        .property("id", text().pattern(Some("^[0-9]+$")))
        .property("data", data)
        .required("event")
        .required("id")
        .required("data");
    openapi::response(
        "Server-sent events, of which the schema describes one: `started`, then `token`s, then exactly one of \
         `end` and `error`, after which the stream ends; a job that ends while it waits has only its `error`. \
         `id` counts from 0, and `data` is one line. Lines that begin with `:` are comments, so that no stream is \
         silent for 5 s. A stream that ends without `end` or `error` was cut: resume it with \
         `GET /jobs/{job_id}/events`.",
        openapi::content(KIND, item),
    )
    .header_ref("Cache-Control", openapi::header("Cache-Control"))
    .header_ref("X-Accel-Buffering", openapi::header("X-Accel-Buffering"))
}

impl Data<'_> {
    fn name(&self) -> &'static str {
        match self {
            Self::Started { .. } => "started",
            Self::Token { .. } => "token",
            Self::End { .. } => "end",
            Self::Error { .. } => "error",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(id: u64, event: JobEvent) -> String {
        let names = JobNames {
            job_id: "j-1".into(),
            model: "haiku".into(),
        };
        let bytes = encode(&Numbered { id, event }, &names);
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    fn end(stop: StopReason) -> JobEvent {
        JobEvent::End {
            tokens_out: 3,
            decode_time_ms: 7,
            engine_time_us: 6500,
            stop,
            replays: 1,
        }
    }

    #[test]
    fn every_event_has_the_bytes_of_the_contract() {
        let started = JobEvent::Started {
            started_at: "2026-01-02T03:04:05.5Z".parse().unwrap(),
            prompt_tokens: 9,
            seed: u64::MAX,
        };
        let stop = StopReason::StopSequence("\n\"".into());
        let error = JobEvent::Error {
            code: ErrorCode::Cancelled,
            message: "bye".into(),
            tokens_out: 2,
        };
        for (id, event, expected) in [
            (
                0,
                started,
                "event: started\nid: 0\ndata: {\"type\":\"started\",\"job_id\":\"j-1\",\
                 \"model\":\"haiku\",\"started_at\":\"2026-01-02T03:04:05.5Z\",\
                 \"seed\":18446744073709551615,\"prompt_tokens\":9}\n\n",
            ),
            (
                1,
                JobEvent::Token {
                    text: "a\r\nb\u{0}\u{2028}é\"".into(),
                    index: 0,
                    id: 1234,
                },
                "event: token\nid: 1\ndata: {\"type\":\"token\",\
                 \"t\":\"a\\r\\nb\\u0000\u{2028}é\\\"\",\"i\":0,\"id\":1234}\n\n",
            ),
            (
                4,
                end(StopReason::Eos),
                "event: end\nid: 4\ndata: {\"type\":\"end\",\"tokens_out\":3,\"decode_time_ms\":7,\
                 \"stop_reason\":\"EOS\",\"replays\":1,\"engine_time_us\":6500}\n\n",
            ),
            (
                4,
                end(stop),
                "event: end\nid: 4\ndata: {\"type\":\"end\",\"tokens_out\":3,\"decode_time_ms\":7,\
                 \"stop_reason\":\"STOP_SEQUENCE\",\"stop_sequence\":\"\\n\\\"\",\"replays\":1,\
                 \"engine_time_us\":6500}\n\n",
            ),
            (
                2,
                error,
                "event: error\nid: 2\ndata: {\"type\":\"error\",\"code\":\"CANCELLED\",\
                 \"message\":\"bye\",\"retriable\":true,\"tokens_out\":2}\n\n",
            ),
        ] {
            assert_eq!(encoded(id, event), expected);
        }
        assert!(encoded(1, end(StopReason::MaxTokens)).contains("\"MAX_TOKENS\""));
        assert!(encoded(1, end(StopReason::ContextFull)).contains("\"CONTEXT_FULL\""));
    }
}
