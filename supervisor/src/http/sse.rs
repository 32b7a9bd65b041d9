//! Job events as server-sent events: one frame of the body for each, so that each is flushed.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, header};
use utoipa::openapi::ResponseBuilder;
use utoipa::openapi::schema::{ObjectBuilder, Type};

use super::frames::Frames;
use super::openapi;
use crate::jobs::{JobEvent, JobStream, Numbered};

const KIND: &str = "text/event-stream";

/// The answer that carries `stream`. When the answer is dropped, because it was read to its end or
/// because the client went away, the stream is dropped with it.
pub fn response(stream: JobStream) -> Response {
    let frames = stream::unfold(Frames::new(stream), async |mut frames| {
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
pub fn encode(numbered: &Numbered) -> Bytes {
    let mut frame = Vec::with_capacity(128);
    frame.extend_from_slice(b"event: ");
    frame.extend_from_slice(numbered.event.name().as_bytes());
    frame.extend_from_slice(b"\nid: ");
    frame.extend_from_slice(numbered.id.to_string().as_bytes());
    frame.extend_from_slice(b"\ndata: ");
    // Strings and numbers: nothing that JSON can't hold. JSON has no raw line breaks, so it is one
    // line of data.
    if serde_json::to_writer(&mut frame, &numbered.event).is_err() {
        frame.extend_from_slice(b"{}");
    }
    frame.extend_from_slice(b"\n\n");
    frame.into()
}

/// What the OpenAPI document says of a stream.
pub(super) fn describe() -> ResponseBuilder {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let data = text()
        .content_media_type("application/json")
        .content_schema(Some(openapi::reference::<JobEvent>()));
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

#[cfg(test)]
mod tests {
    use orcd_shared::error::ErrorCode;

    use super::*;
    use crate::jobs::StopReason;

    fn encoded(id: u64, event: JobEvent) -> String {
        let bytes = encode(&Numbered { id, event });
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    fn end(stop_reason: StopReason, stop_sequence: Option<&str>) -> JobEvent {
        JobEvent::End {
            tokens_out: 3,
            decode_time_ms: 7,
            engine_time_us: 6500,
            stop_reason,
            stop_sequence: stop_sequence.map(Into::into),
            replays: 1,
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
        };
        let error = JobEvent::Error {
            code: ErrorCode::Cancelled,
            message: "bye".into(),
            retriable: true,
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
                end(StopReason::Eos, None),
                "event: end\nid: 4\ndata: {\"type\":\"end\",\"tokens_out\":3,\"decode_time_ms\":7,\
                 \"stop_reason\":\"EOS\",\"replays\":1,\"engine_time_us\":6500}\n\n",
            ),
            (
                4,
                end(StopReason::StopSequence, Some("\n\"")),
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
        assert!(encoded(1, end(StopReason::MaxTokens, None)).contains("\"MAX_TOKENS\""));
        assert!(encoded(1, end(StopReason::ContextFull, None)).contains("\"CONTEXT_FULL\""));
    }
}
