//! Job events as server-sent events: one frame of the body for each, so that each is flushed.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, header};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::ResponseBuilder;
use utoipa::openapi::schema::{ObjectBuilder, Type};

use super::frames::Frames;
use super::openapi;
use crate::jobs::{JobEvent, JobStream, Numbered};

const KIND: &str = "text/event-stream";

/// The answer that carries `stream`, but for the first `received` token events, if the client goes on with them. When the answer is dropped, because it was read to its end or
/// because the client went away, the stream is dropped with it.
pub fn response(stream: JobStream, received: Option<u64>) -> Response {
    let frames = stream::unfold(Frames::new(stream, received), async |mut frames| {
        Some((frames.next().await?, frames))
    });
    answer(Body::from_stream(frames))
}

/// An answer whose body is a stream of events.
pub(super) fn answer(body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        // Without the charset some clients take it for Latin-1, where a byte of UTF-8 may end a line.
        HeaderValue::from_static("text/event-stream; charset=utf-8"),
    );
    private(response)
}

/// An answer that nobody on the way keeps or holds up.
pub(super) fn private(mut response: Response) -> Response {
    let headers = response.headers_mut();
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

/// The first event of a stream that goes on with what another service began: the only one that has no id, for that one
/// numbered none in its place.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename = "resumed")]
pub(super) struct Resumed<'a> {
    pub(super) job_id: &'a str,
    /// `token` events that the client has: the next event's id is one more.
    pub(super) tokens: u64,
}

/// The bytes of that event.
pub(super) fn encode_resumed(resumed: &Resumed<'_>) -> Bytes {
    let mut frame = b"event: resumed\ndata: ".to_vec();
    // Strings and numbers: nothing that JSON can't hold.
    if serde_json::to_writer(&mut frame, resumed).is_err() {
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
        .required("data");
    openapi::response(
        "Server-sent events, of which the schema describes one: `started`, then `token`s, then exactly one of \
         `end` and `error`, after which the stream ends; a job that ends while it waits has only its `error`. With `resume` the event `resumed`, which alone has no `id`, stands in the place of what the client has. \
         `id` counts from 0, and `data` is one line. Lines that begin with `:` are comments, so that no stream is \
         silent for 5 s. A stream that ends without `end` or `error` was cut: resume it with \
         `GET /jobs/{job_id}/events`.",
        openapi::content(KIND, item),
    )
    .header_ref("Cache-Control", openapi::header("Cache-Control"))
    .header_ref("X-Accel-Buffering", openapi::header("X-Accel-Buffering"))
}

/// Adds to what the document says of an answer that it may be a stream instead.
pub(super) fn with_stream(answer: ResponseBuilder) -> ResponseBuilder {
    let text = ObjectBuilder::new().schema_type(Type::String);
    let item = ObjectBuilder::new()
        .schema_type(Type::Object)
        .description(Some(
            "One chunk of the stream; the last one's data is `[DONE]`.",
        ))
        .property("data", text)
        .required("data");
    let (kind, content) = openapi::content(KIND, item);
    answer
        .content(kind, content)
        .header_ref("Cache-Control", openapi::header("Cache-Control"))
        .header_ref("X-Accel-Buffering", openapi::header("X-Accel-Buffering"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_three_lines_and_an_empty_one() {
        let event = JobEvent::Token {
            text: "a\r\nb".into(),
            index: 0,
            id: 1234,
            logprob: None,
            top: None,
        };
        let json = serde_json::to_string(&event).unwrap();
        let frame = encode(&Numbered { id: 1, event });
        let expected = format!("event: token\nid: 1\ndata: {json}\n\n");
        assert_eq!(frame, expected.as_bytes());
        assert!(!json.contains(['\r', '\n']));
    }
}
