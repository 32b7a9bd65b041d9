//! Request bodies: bounded in size and time, JSON whatever the `Content-Type` says.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;
use orcd_shared::error::ErrorCode;

use super::error::ApiError;
use super::json::Json;
use crate::awake::timeout;

/// Largest body that is read.
pub const MAX_BYTES: usize = 1 << 20;
/// A client whose body is too large is still writing when this is found out. Up to this size its
/// bytes are thrown away, so that it gets to read the answer instead of a broken connection.
const MAX_DISCARDED_BYTES: usize = 16 << 20;
/// Time for the whole body to arrive.
const READ_LIMIT: Duration = Duration::from_secs(15);

/// Reads the whole body.
///
/// # Errors
/// `INVALID_REQUEST`, with status 413 for a body over 1 MiB and 408 for one that comes too slowly.
pub async fn read(parts: &Parts, body: Body) -> Result<Bytes, ApiError> {
    let announced_too_large = declared_length(&parts.headers) > Some(MAX_BYTES as u64);
    if announced_too_large && parts.headers.contains_key(header::EXPECT) {
        // The client waits for leave to send.
        return Err(too_large());
    }
    match timeout(READ_LIMIT, collect(body)).await {
        Ok(result) => result,
        Err(_) if announced_too_large => Err(too_large()),
        Err(_) => Err(ApiError::invalid_with(
            StatusCode::REQUEST_TIMEOUT,
            format!("the body did not arrive within {} s", READ_LIMIT.as_secs()),
        )
        .closing()),
    }
}

/// Parses a body.
///
/// # Errors
/// `INVALID_REQUEST` with line and column.
pub fn parse(bytes: &[u8]) -> Result<Json, ApiError> {
    // serde_json's messages name a place and an expectation, never the text.
    serde_json::from_slice(bytes).map_err(|e| {
        ApiError::new(
            ErrorCode::InvalidRequest,
            format!("the body is no JSON: {e}"),
        )
    })
}

async fn collect(mut body: Body) -> Result<Bytes, ApiError> {
    let mut bytes = Vec::new();
    let mut received = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| {
            ApiError::new(
                ErrorCode::InvalidRequest,
                "the body broke off before its end",
            )
            .closing()
        })?;
        let Some(data) = frame.data_ref() else {
            continue;
        };
        received += data.len();
        if received <= MAX_BYTES {
            bytes.extend_from_slice(data);
        } else if received > MAX_DISCARDED_BYTES {
            return Err(too_large());
        }
    }
    if received > MAX_BYTES {
        Err(too_large())
    } else {
        Ok(bytes.into())
    }
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

fn too_large() -> ApiError {
    ApiError::invalid_with(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("the body is larger than {MAX_BYTES} bytes"),
    )
    .closing()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    async fn read_bytes(len: usize) -> Result<Bytes, ApiError> {
        let (parts, body) = http::Request::new(Body::from(vec![b' '; len])).into_parts();
        read(&parts, body).await
    }

    fn message(error: &ApiError) -> String {
        String::from_utf8(error.body("id")).unwrap()
    }

    #[tokio::test]
    async fn a_body_may_have_one_mebibyte() {
        assert_eq!(read_bytes(MAX_BYTES).await.unwrap().len(), MAX_BYTES);
        for len in [MAX_BYTES + 1, MAX_DISCARDED_BYTES + 1] {
            let error = read_bytes(len).await.unwrap_err();
            assert!(message(&error).contains("1048576"));
        }
    }

    #[tokio::test]
    async fn what_is_too_large_is_read_to_its_end_before_the_answer() {
        let taken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&taken);
        let chunks = (0..30).map(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 100_000]))
        });
        let body = Body::from_stream(futures_util::stream::iter(chunks));
        let (parts, body) = http::Request::new(body).into_parts();
        assert!(read(&parts, body).await.is_err());
        assert_eq!(taken.load(Ordering::Relaxed), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_trickles_is_given_up() {
        let stream = futures_util::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Some((Ok::<_, std::io::Error>(Bytes::from_static(b" ")), ()))
        });
        let (parts, body) = http::Request::new(Body::from_stream(stream)).into_parts();
        let error = read(&parts, body).await.unwrap_err();
        assert!(message(&error).contains("did not arrive"));
    }

    #[test]
    fn malformed_json_is_located_and_not_echoed() {
        let error = parse(b"{\n\"prompt\": \"secret\", \"x\": tru}").unwrap_err();
        let text = message(&error);
        assert!(text.contains("line 2 column"), "{text}");
        assert!(!text.contains("secret"));
        for bad in [
            &b""[..],
            b"{",
            b"{} x",
            b"\xff",
            b"{\"prompt\": 1e999}",
            b"\"\\ud800\"",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
