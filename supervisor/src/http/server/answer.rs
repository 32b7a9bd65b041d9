//! Bodies on their way through a connection: the request's is watched for its end, and the answer's
//! asks a client that closed its sending half whether it still reads.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};

use super::peer::{Peer, Stage};

/// A comment: what every reader of an event stream passes over.
const QUESTION: &[u8] = b":\n\n";

/// A request's body that says whether it was read to its end.
#[derive(Debug)]
pub(super) struct Question {
    body: Incoming,
    read: Arc<AtomicBool>,
}

impl Question {
    /// The body, and whether it was read so far.
    pub(super) fn watch(body: Incoming) -> (Body, Arc<AtomicBool>) {
        let read = Arc::new(AtomicBool::new(body.is_end_stream()));
        let question = Self {
            body,
            read: Arc::clone(&read),
        };
        (Body::new(question), read)
    }
}

impl hyper::body::Body for Question {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none() || self.body.is_end_stream() {
            self.read.store(true, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body. While it lives the answer is being written.
#[derive(Debug)]
pub(super) struct Answer {
    body: Body,
    peer: Arc<Peer>,
    is_stream: bool,
}

/// Makes `response` an answer of the connection to `peer`; `last` closes the connection after it.
pub(super) fn answer(
    mut response: Response<Body>,
    peer: &Arc<Peer>,
    last: bool,
) -> Response<Answer> {
    let headers = response.headers_mut();
    if last {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let mut progress = peer.progress();
    progress.stage = Stage::Answering;
    progress.last = has(headers, &header::CONNECTION, "close");
    drop(progress);
    let is_stream = has(headers, &header::CONTENT_TYPE, "text/event-stream");
    response.map(|body| Answer {
        body,
        peer: Arc::clone(peer),
        is_stream,
    })
}

fn has(headers: &HeaderMap, name: &http::HeaderName, value: &str) -> bool {
    headers
        .get(name)
        .is_some_and(|found| found.as_bytes().starts_with(value.as_bytes()))
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Pending if self.is_stream => {
                ready!(self.peer.poll_ask(cx));
                Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(QUESTION)))))
            }
            frame => frame,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.peer.progress().stage = Stage::Idle;
    }
}
