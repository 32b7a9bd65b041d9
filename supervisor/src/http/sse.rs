//! Job events as server-sent events: one frame of the body for each, so that each is flushed.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderValue, header};
use orcd_shared::error::ErrorCode;
use serde::Serialize;

use crate::jobs::{JobEvent, JobStream, Numbered, StopReason};

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
    let mut response = Response::new(Body::from_stream(Events {
        stream,
        names,
        ended: false,
    }));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        // Without the charset some clients read Latin-1 (python-requests), and find line ends in it.
        HeaderValue::from_static("text/event-stream; charset=utf-8"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Proxies that buffer answers (nginx) are told not to.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// The frames of one answer.
struct Events {
    stream: JobStream,
    names: JobNames,
    ended: bool,
}

/// The stream stopped before the job's last event: the connection is cut, so that the client does
/// not take what it has for everything.
#[derive(Debug, thiserror::Error)]
#[error("the job's stream was given up before its end")]
struct Unfinished;

impl Stream for Events {
    type Item = Result<Bytes, Unfinished>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let frame = match ready!(self.stream.events.poll_recv(cx)) {
            Some(numbered) => {
                let event = &numbered.event;
                self.ended = matches!(event, JobEvent::End { .. } | JobEvent::Error { .. });
                Ok(encode(&numbered, &self.names))
            }
            None if self.stream.complete => return Poll::Ready(None),
            None => {
                self.ended = true;
                Err(Unfinished)
            }
        };
        Poll::Ready(Some(frame))
    }
}

/// The bytes of one event.
#[must_use]
pub fn encode(numbered: &Numbered, names: &JobNames) -> Bytes {
    let data = match &numbered.event {
        JobEvent::Queued => return Bytes::from_static(b": queued\n\n"),
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

fn frame(name: &str, id: Option<u64>, data: &Data<'_>) -> Bytes {
    let mut frame = Vec::with_capacity(128);
    frame.extend_from_slice(b"event: ");
    frame.extend_from_slice(name.as_bytes());
    if let Some(id) = id {
        frame.extend_from_slice(b"\nid: ");
        frame.extend_from_slice(id.to_string().as_bytes());
    }
    frame.extend_from_slice(b"\ndata: ");
    // Strings and numbers: nothing that JSON can't hold. JSON has no raw line breaks, so it is one
    // line of data.
    if serde_json::to_writer(&mut frame, data).is_err() {
        frame.extend_from_slice(b"{}");
    }
    frame.extend_from_slice(b"\n\n");
    frame.into()
}

fn stop_reason(stop: &StopReason) -> &'static str {
    match stop {
        StopReason::Eos => "EOS",
        StopReason::MaxTokens => "MAX_TOKENS",
        StopReason::StopSequence(_) => "STOP_SEQUENCE",
        StopReason::ContextFull => "CONTEXT_FULL",
    }
}

/// The JSON of an event; the variant's name stands first, as `type`.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Data<'a> {
    Started {
        job_id: &'a str,
        model: &'a str,
        started_at: String,
        seed: u64,
        prompt_tokens: u32,
    },
    Token {
        t: &'a str,
        i: u32,
        id: u32,
    },
    End {
        tokens_out: u32,
        decode_time_ms: u64,
        stop_reason: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        stop_sequence: Option<&'a str>,
        replays: u32,
        engine_time_us: u64,
    },
    Error {
        code: ErrorCode,
        message: &'a str,
        retriable: bool,
        tokens_out: u32,
    },
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

    fn encoded(id: Option<u64>, event: JobEvent) -> String {
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
            (None, JobEvent::Queued, ": queued\n\n"),
            (
                Some(0),
                started,
                "event: started\nid: 0\ndata: {\"type\":\"started\",\"job_id\":\"j-1\",\
                 \"model\":\"haiku\",\"started_at\":\"2026-01-02T03:04:05.5Z\",\
                 \"seed\":18446744073709551615,\"prompt_tokens\":9}\n\n",
            ),
            (
                Some(1),
                JobEvent::Token {
                    text: "a\r\nb\u{0}\u{2028}é\"".into(),
                    index: 0,
                    id: 1234,
                },
                "event: token\nid: 1\ndata: {\"type\":\"token\",\
                 \"t\":\"a\\r\\nb\\u0000\u{2028}é\\\"\",\"i\":0,\"id\":1234}\n\n",
            ),
            (
                Some(4),
                end(StopReason::Eos),
                "event: end\nid: 4\ndata: {\"type\":\"end\",\"tokens_out\":3,\"decode_time_ms\":7,\
                 \"stop_reason\":\"EOS\",\"replays\":1,\"engine_time_us\":6500}\n\n",
            ),
            (
                Some(4),
                end(stop),
                "event: end\nid: 4\ndata: {\"type\":\"end\",\"tokens_out\":3,\"decode_time_ms\":7,\
                 \"stop_reason\":\"STOP_SEQUENCE\",\"stop_sequence\":\"\\n\\\"\",\"replays\":1,\
                 \"engine_time_us\":6500}\n\n",
            ),
            (
                Some(2),
                error,
                "event: error\nid: 2\ndata: {\"type\":\"error\",\"code\":\"CANCELLED\",\
                 \"message\":\"bye\",\"retriable\":true,\"tokens_out\":2}\n\n",
            ),
        ] {
            assert_eq!(encoded(id, event), expected);
        }
        assert!(encoded(Some(1), end(StopReason::MaxTokens)).contains("\"MAX_TOKENS\""));
        assert!(encoded(Some(1), end(StopReason::ContextFull)).contains("\"CONTEXT_FULL\""));
    }
}
