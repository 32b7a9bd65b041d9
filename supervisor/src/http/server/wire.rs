//! The socket as hyper sees it. Beside carrying bytes it notes when a request's head begins to come,
//! and keeps hyper's own answers to requests that it can't read from being written: they have
//! neither body nor correlation id, and [`super::bad_head`] gives better ones.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::peer::{Peer, Stage};

/// Longest of hyper's own answers: a status line and three short fields.
const MAX_BARE_BYTES: usize = 256;

/// One connection's bytes.
#[derive(Debug)]
pub(super) struct Wire(pub(super) Arc<Peer>);

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let peer = &self.0;
        loop {
            ready!(peer.stream().poll_read_ready(cx))?;
            match peer.stream().try_read_buf(buffer) {
                Ok(n) => {
                    let mut progress = peer.progress();
                    if n > 0 && progress.stage == Stage::Idle {
                        progress.stage = Stage::Head;
                    }
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

// Not vectored: each write then holds all that there is, as `bare_answer` needs it.
impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let peer = &self.0;
        let mut wanted = bytes;
        {
            let mut progress = peer.progress();
            progress.flushed = false;
            if matches!(progress.stage, Stage::Idle | Stage::Head)
                && let Some((before, status)) = bare_answer(bytes)
            {
                if before == 0 {
                    progress.withheld = Some(status);
                    return Poll::Ready(Ok(bytes.len()));
                }
                wanted = &bytes[..before];
            }
        }
        loop {
            ready!(peer.stream().poll_write_ready(cx))?;
            match peer.stream().try_write(wanted) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.progress().flushed = true;
        Poll::Ready(Ok(()))
    }

    /// Whoever serves the connection closes it, perhaps after an answer of its own.
    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Where an answer of hyper's own stands at the end of `bytes`, and its status. The routes' answers
/// all have a correlation id, and no line break in a body of theirs comes with a carriage return.
fn bare_answer(bytes: &[u8]) -> Option<(usize, StatusCode)> {
    const BEGIN: &[u8] = b"HTTP/1.1 ";
    if !bytes.ends_with(b"\r\n\r\n") {
        return None;
    }
    let tail = &bytes[bytes.len().saturating_sub(MAX_BARE_BYTES)..];
    let at = tail.windows(BEGIN.len()).rposition(|w| w == BEGIN)?;
    let answer = &tail[at..];
    let has = |field: &[u8]| answer.windows(field.len()).any(|w| w == field);
    let code = answer.get(BEGIN.len()..BEGIN.len() + 3)?;
    let status = StatusCode::from_bytes(code).ok()?;
    let bare = status.is_client_error()
        && has(b"\r\ncontent-length: 0\r\n")
        && !has(b"\r\nx-correlation-id: ");
    bare.then(|| (bytes.len() - answer.len(), status))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BARE: &str = "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\
                        content-length: 0\r\ndate: Fri, 27 Nov 2026 23:00:00 GMT\r\n\r\n";

    #[test]
    fn hypers_own_answer_is_told_from_the_routes() {
        let found = |text: &str| bare_answer(text.as_bytes()).map(|(at, s)| (at, s.as_u16()));
        assert_eq!(found(BARE), Some((0, 431)));
        let routed = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nx-correlation-id: a\r\n\r\n";
        assert_eq!(found(routed), None);
        let after = format!("{routed}{BARE}");
        assert_eq!(found(&after), Some((routed.len(), 431)));
        let long = format!("{}{BARE}", "x".repeat(100_000));
        assert_eq!(found(&long), Some((100_000, 431)));
        for other in [
            "",
            "\r\n\r\n",
            "HTTP/1.1 ",
            "HTTP/1.1 \r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            &BARE[..BARE.len() - 1],
        ] {
            assert_eq!(found(other), None, "{other:?}");
        }
    }
}
