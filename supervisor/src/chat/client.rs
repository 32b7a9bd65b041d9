//! The chat's requests to the service: `POST /v1/chat/completions`, streamed.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

/// Longest line of a stream, in bytes; one of the service has some hundred.
const MAX_LINE: usize = 1 << 20;

/// A message of the chat.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Message {
    role: &'static str,
    content: String,
}

impl Message {
    pub(super) fn user(content: String) -> Self {
        Self {
            role: "user",
            content,
        }
    }

    pub(super) fn assistant(content: String) -> Self {
        Self {
            role: "assistant",
            content,
        }
    }
}

/// What came of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    Content(String),
    Reasoning(String),
    /// It would have gone on.
    Cut,
}

/// Why there is no answer, or not all of it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct AnswerError {
    pub(super) code: String,
    pub(super) message: String,
}

impl AnswerError {
    fn internal(message: impl ToString) -> Self {
        Self {
            code: "INTERNAL".to_owned(),
            message: message.to_string(),
        }
    }
}

/// An answer on its way; dropped, it is cancelled.
pub(super) struct Answer {
    body: Incoming,
    lines: Lines,
    connection: AbortHandle,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

#[derive(Serialize)]
struct Body<'a> {
    messages: &'a [Message],
    stream: bool,
}

impl Answer {
    /// Asks the service for the next message.
    pub(super) async fn ask(
        address: SocketAddr,
        messages: &[Message],
    ) -> Result<Self, AnswerError> {
        let body = serde_json::to_vec(&Body {
            messages,
            stream: true,
        });
        let request = Request::post("/v1/chat/completions")
            .header(header::HOST, address.to_string())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.map_err(AnswerError::internal)?)));
        let stream = TcpStream::connect(address)
            .await
            .map_err(AnswerError::internal)?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(AnswerError::internal)?;
        let connection = tokio::spawn(connection).abort_handle();
        let response = sender
            .send_request(request.map_err(AnswerError::internal)?)
            .await;
        let response = response.map_err(AnswerError::internal)?;
        let is_answer = response.status().is_success();
        let mut answer = Self {
            body: response.into_body(),
            lines: Lines::default(),
            connection,
        };
        if is_answer {
            return Ok(answer);
        }
        let text = answer.rest().await?;
        Err(error_of(&text)
            .unwrap_or_else(|| AnswerError::internal("the service refused without a reason")))
    }

    async fn rest(&mut self) -> Result<Vec<u8>, AnswerError> {
        let mut text = Vec::new();
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(AnswerError::internal)?;
            text.extend_from_slice(&frame.into_data().unwrap_or_default());
            if text.len() > MAX_LINE {
                break;
            }
        }
        Ok(text)
    }

    /// The next part; `None` when the answer is whole.
    pub(super) async fn next(&mut self) -> Result<Option<Part>, AnswerError> {
        loop {
            while let Some(line) = self.lines.next() {
                match read(&line)? {
                    Event::Done => return Ok(None),
                    Event::Part(part) => return Ok(Some(part)),
                    Event::Other => {}
                }
            }
            let Some(frame) = self.body.frame().await else {
                return Err(AnswerError::internal("the answer broke off"));
            };
            let frame = frame.map_err(AnswerError::internal)?;
            self.lines.add(&frame.into_data().unwrap_or_default())?;
        }
    }
}

/// Lines of a stream, put together from what came.
#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn add(&mut self, bytes: &[u8]) -> Result<(), AnswerError> {
        if self.0.len() + bytes.len() > MAX_LINE {
            return Err(AnswerError::internal("a line of the answer is too long"));
        }
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        let end = self.0.iter().position(|byte| *byte == b'\n')?;
        let mut line: Vec<u8> = self.0.drain(..=end).collect();
        line.pop();
        Some(line)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Event {
    Part(Part),
    Done,
    Other,
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    delta: Delta,
    finish_reason: Option<String>,
}

#[derive(Deserialize, Default)]
struct Delta {
    content: Option<String>,
    reasoning_content: Option<String>,
}

#[derive(Deserialize)]
struct Refused {
    error: Reason,
}

#[derive(Deserialize)]
struct Reason {
    message: String,
    code: Option<String>,
}

/// What a line of the stream says.
fn read(line: &[u8]) -> Result<Event, AnswerError> {
    let Some(data) = line.strip_prefix(b"data: ") else {
        return Ok(Event::Other);
    };
    if data == b"[DONE]" {
        return Ok(Event::Done);
    }
    if let Some(error) = error_of(data) {
        return Err(error);
    }
    let chunk: Chunk = serde_json::from_slice(data).map_err(AnswerError::internal)?;
    let Some(choice) = chunk.choices.into_iter().next() else {
        return Ok(Event::Other);
    };
    let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
    let part = filled(choice.delta.content).map(Part::Content);
    let part = part.or_else(|| filled(choice.delta.reasoning_content).map(Part::Reasoning));
    let cut = (choice.finish_reason.as_deref() == Some("length")).then_some(Part::Cut);
    Ok(part.or(cut).map_or(Event::Other, Event::Part))
}

fn error_of(json: &[u8]) -> Option<AnswerError> {
    let Refused { error } = serde_json::from_slice(json).ok()?;
    Some(AnswerError {
        code: error.code.unwrap_or_else(|| "INTERNAL".to_owned()),
        message: error.message,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together_from_pieces() {
        let mut lines = Lines::default();
        lines.add(b"data: a").unwrap();
        assert_eq!(lines.next(), None);
        lines.add(b"b\n\ndata").unwrap();
        assert_eq!(lines.next().unwrap(), b"data: ab");
        assert_eq!(lines.next().unwrap(), b"");
        assert_eq!(lines.next(), None);
        assert!(lines.add(&vec![b'x'; MAX_LINE]).is_err());
    }

    #[test]
    fn a_line_is_text_an_end_or_an_error() {
        let chunk = |delta: &str, reason: &str| {
            format!(
                r#"data: {{"choices":[{{"index":0,"delta":{delta},"finish_reason":{reason}}}]}}"#
            )
        };
        for (line, event) in [
            (
                chunk(r#"{"content":"a"}"#, "null"),
                Event::Part(Part::Content("a".into())),
            ),
            (
                chunk(r#"{"reasoning_content":"b"}"#, "null"),
                Event::Part(Part::Reasoning("b".into())),
            ),
            (
                chunk(r#"{"role":"assistant","content":""}"#, "null"),
                Event::Other,
            ),
            (chunk("{}", r#""length""#), Event::Part(Part::Cut)),
            (chunk("{}", r#""stop""#), Event::Other),
            (": working".into(), Event::Other),
            (r#"data: {"choices":[]}"#.into(), Event::Other),
            ("data: [DONE]".into(), Event::Done),
        ] {
            assert_eq!(read(line.as_bytes()), Ok(event), "{line}");
        }
        let error = read(br#"data: {"error":{"message":"m","type":"t","param":null,"code":"c"}}"#)
            .unwrap_err();
        assert_eq!((&*error.code, &*error.message), ("c", "m"));
        assert!(read(b"data: {").is_err());
    }
}
