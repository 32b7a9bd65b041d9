//! The answers of all dialects: chunks as events come, or one object when all is there.

use axum::Json;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;

use super::super::error::ApiError;
use super::super::frames::{KeepAlive, Unfinished};
use super::super::generate::Accepted;
use super::super::outputs::{Arrival, Outputs};
use super::super::{sse, whole};
use super::errors;
use crate::jobs::JobEvent;

/// A line that a stream ends with.
const DONE: &[u8] = b"data: [DONE]\n\n";
/// Says that the stream is alive.
const WORKING: &[u8] = b": working\n\n";

/// A dialect's answer in the making.
pub(in crate::http) trait Answer: Send + 'static {
    /// Whether it goes out as it comes.
    fn streams(&self) -> bool;
    /// Output `index` begins, whose prompt ends with the tokens `prompt_end`.
    fn begin(&mut self, index: usize, prompt_end: &[u32]) {
        let _ = (index, prompt_end);
    }
    /// Takes an event of output `index`; what goes out for it is added to `chunks`. Errors do not come here.
    fn event(&mut self, index: usize, event: JobEvent, chunks: &mut Chunks);
    /// What goes out after all outputs have ended.
    fn last(&mut self, chunks: &mut Chunks);
    /// All of it in one object.
    fn whole(self) -> impl Serialize;
}

/// The bytes of a stream's next chunks.
#[derive(Debug, Default)]
pub(in crate::http) struct Chunks(Vec<u8>);

impl Chunks {
    /// Adds an event that has a name.
    pub(super) fn add_named(&mut self, name: &str, data: &impl Serialize) {
        for part in ["event: ", name, "\n"] {
            self.0.extend_from_slice(part.as_bytes());
        }
        self.add(data);
    }

    /// Adds a chunk.
    pub(super) fn add(&mut self, chunk: &impl Serialize) {
        self.0.extend_from_slice(b"data: ");
        // Strings and numbers: nothing that JSON can't hold. JSON has no raw line breaks, so it is one line.
        if serde_json::to_writer(&mut self.0, chunk).is_err() {
            self.0.extend_from_slice(b"{}");
        }
        self.0.extend_from_slice(b"\n\n");
    }
}

/// The answer to a request that was accepted.
///
/// # Errors
/// That of an output, where the answer is one object.
pub(in crate::http) async fn answer<A: Answer>(
    accepted: Accepted<A>,
) -> Result<Response, ApiError> {
    let mut answer = accepted.dialect;
    for (index, output) in accepted.outputs.iter().enumerate() {
        answer.begin(index, &output.prompt_end);
    }
    let outputs = Outputs::new(accepted.outputs);
    if answer.streams() {
        return Ok(response(outputs, answer));
    }
    all(outputs, answer).await
}

async fn all<A: Answer>(mut outputs: Outputs, mut answer: A) -> Result<Response, ApiError> {
    let mut chunks = Chunks::default();
    while let Some(Arrival { index, event, .. }) = outputs.next().await {
        match event {
            Ok(JobEvent::Error { code, message, .. }) => return Err(ApiError::new(code, message)),
            Ok(event) => answer.event(index, event, &mut chunks),
            Err(Unfinished) => return Err(whole::given_up()),
        }
    }
    Ok(sse::private(Json(answer.whole()).into_response()))
}

fn response<A: Answer>(outputs: Outputs, answer: A) -> Response {
    let streaming = Streaming {
        outputs,
        answer,
        keep_alive: KeepAlive::default(),
        is_over: false,
    };
    let frames = stream::unfold(streaming, async |mut streaming| {
        Some((streaming.next().await?, streaming))
    });
    sse::answer(Body::from_stream(frames))
}

struct Streaming<A> {
    outputs: Outputs,
    answer: A,
    keep_alive: KeepAlive,
    is_over: bool,
}

impl<A: Answer> Streaming<A> {
    /// The next bytes of the body; none after the last.
    async fn next(&mut self) -> Option<Result<Bytes, Unfinished>> {
        while !self.is_over {
            let arrival = tokio::select! {
                biased;
                arrival = self.outputs.next() => arrival,
                () = self.keep_alive.over() => {
                    self.keep_alive.broken();
                    return Some(Ok(Bytes::from_static(WORKING)));
                }
            };
            match self.chunks(arrival) {
                Ok(Chunks(bytes)) if bytes.is_empty() => {}
                Ok(Chunks(bytes)) => {
                    self.keep_alive.broken();
                    return Some(Ok(bytes.into()));
                }
                Err(unfinished) => {
                    self.is_over = true;
                    return Some(Err(unfinished));
                }
            }
        }
        None
    }

    fn chunks(&mut self, arrival: Option<Arrival>) -> Result<Chunks, Unfinished> {
        let mut chunks = Chunks::default();
        let Some(Arrival {
            index,
            event,
            is_known,
        }) = arrival
        else {
            self.answer.last(&mut chunks);
            chunks.0.extend_from_slice(DONE);
            self.is_over = true;
            return Ok(chunks);
        };
        match event? {
            JobEvent::Error { code, message, .. } => {
                // A client takes the first error for the end; what other outputs there are ends with the stream.
                let error = errors::body(&ApiError::new(code, message));
                for part in [&b"data: "[..], &error, b"\n\n", DONE] {
                    chunks.0.extend_from_slice(part);
                }
                self.is_over = true;
            }
            // It is known to what makes the chunks after it, and goes out no more.
            event if is_known => self.answer.event(index, event, &mut Chunks::default()),
            event => self.answer.event(index, event, &mut chunks),
        }
        Ok(chunks)
    }
}
