//! Request bodies: bounded in size and time, JSON whatever the `Content-Type` says.

mod budget;
mod encoding;

use std::time::Duration;

use axum::body::Body;
use http::request::Parts;
use http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;
use orcd_shared::error::ErrorCode;

use super::error::ApiError;
use super::json::Json;
use super::validate;
use crate::awake::timeout;
pub use budget::{Budget, Bytes};

/// Largest body that is read.
pub const MAX_BYTES: usize = 1 << 20;
/// Largest body of a request that only controls the service: checked in microseconds, and so few bytes
/// that every connection may hold them.
pub const MAX_CONTROL_BYTES: usize = 16 << 10;
/// A client whose body is too large is still writing when this is found out. Up to this size its
/// bytes are thrown away, so that it gets to read the answer instead of a broken connection.
const MAX_DISCARDED_BYTES: usize = 16 << 20;
/// Time for the whole body to arrive.
const READ_LIMIT: Duration = Duration::from_secs(15);
/// A body that nobody is to read is passed over up to this size, so that its connection can be used
/// again; after a larger one the connection is closed.
const MAX_PASSED_OVER_BYTES: u64 = 64 << 10;
/// Time for that.
const PASS_OVER_LIMIT: Duration = Duration::from_secs(1);

/// Reads the whole body, whose memory counts for `budget` as long as the body is there.
///
/// # Errors
/// `INVALID_REQUEST`, with status 413 for a body over the budget's bound and 408 for one that comes too
/// slowly; `QUEUE_FULL` if the budget is spent.
pub async fn read(parts: &Parts, body: Body, budget: &Budget) -> Result<Bytes, ApiError> {
    let largest = budget.largest();
    let announced_too_large = declared_length(&parts.headers) > Some(largest as u64);
    if announced_too_large && parts.headers.contains_key(header::EXPECT) {
        // The client waits for leave to send.
        return Err(too_large(largest));
    }
    match timeout(READ_LIMIT, collect(body, budget)).await {
        Ok(result) => result,
        Err(_) if announced_too_large => Err(too_large(largest)),
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
/// `INVALID_REQUEST` with line and column, or with the name of what is not UTF-8.
pub fn parse(bytes: &[u8]) -> Result<Json, ApiError> {
    // serde_json's messages name a place and an expectation, never the text.
    serde_json::from_str(encoding::utf8(bytes)?).map_err(|e| {
        ApiError::new(
            ErrorCode::InvalidRequest,
            format!("the body is not valid JSON: {e}"),
        )
    })
}

/// Reads the body of a request that has nothing more to say: none, or an empty object.
///
/// # Errors
/// It can't be read, or is anything else.
pub async fn read_empty(parts: &Parts, body: Body, budget: &Budget) -> Result<(), ApiError> {
    let bytes = read(parts, body, budget).await?;
    if bytes.trim_ascii().is_empty() {
        return Ok(());
    }
    validate::no_fields(parse(&bytes)?).map_err(ApiError::invalid)
}

/// Gives `error` for an answer that comes before the body was read, and passes over the body: a
/// client that is still writing would otherwise find its connection broken, and no answer.
pub async fn pass_over(parts: &Parts, mut body: Body, error: ApiError) -> ApiError {
    let is_small = declared_length(&parts.headers) <= Some(MAX_PASSED_OVER_BYTES);
    let waits_for_leave = parts.headers.contains_key(header::EXPECT);
    let is_chunked = parts.headers.contains_key(header::TRANSFER_ENCODING);
    if !is_small || waits_for_leave || is_chunked {
        return error.closing();
    }
    let end = async { while let Some(Ok(_)) = body.frame().await {} };
    match timeout(PASS_OVER_LIMIT, end).await {
        Ok(()) => error,
        Err(_) => error.closing(),
    }
}

async fn collect(mut body: Body, budget: &Budget) -> Result<Bytes, ApiError> {
    let mut bytes = budget.begin().await?;
    let mut received = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| {
            ApiError::new(
                ErrorCode::InvalidRequest,
                "the body broke off before its end, or its chunks can't be read",
            )
            .closing()
        })?;
        let Some(data) = frame.data_ref() else {
            continue;
        };
        received += data.len();
        if received <= budget.largest() {
            bytes.extend(data, budget).await?;
            continue;
        }
        bytes.clear();
        if received > MAX_DISCARDED_BYTES {
            return Err(too_large(budget.largest()));
        }
    }
    if received > budget.largest() {
        Err(too_large(budget.largest()))
    } else {
        Ok(bytes)
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

fn too_large(largest: usize) -> ApiError {
    ApiError::invalid_with(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("the body is larger than {largest} bytes"),
    )
    .closing()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    async fn read(parts: &Parts, body: Body) -> Result<Bytes, ApiError> {
        super::read(parts, body, &Budget::default()).await
    }

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
            Ok::<_, std::io::Error>(bytes::Bytes::from(vec![b' '; 100_000]))
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
            let byte = bytes::Bytes::from_static(b" ");
            Some((Ok::<_, std::io::Error>(byte), ()))
        });
        let (parts, body) = http::Request::new(Body::from_stream(stream)).into_parts();
        let error = read(&parts, body).await.unwrap_err();
        assert!(message(&error).contains("did not arrive"));
    }

    #[tokio::test]
    async fn a_body_that_nobody_reads_is_passed_over_or_ends_the_connection() {
        for (length, extra, closes) in [
            (100, None, false),
            (MAX_PASSED_OVER_BYTES + 1, None, true),
            (100, Some((header::EXPECT, "100-continue")), true),
            (100, Some((header::TRANSFER_ENCODING, "chunked")), true),
        ] {
            let mut request = http::Request::new(Body::from("x".repeat(100)));
            request
                .headers_mut()
                .insert(header::CONTENT_LENGTH, length.into());
            if let Some((name, value)) = &extra {
                let value = http::HeaderValue::from_static(value);
                request.headers_mut().insert(name.clone(), value);
            }
            let (parts, body) = request.into_parts();
            let error = pass_over(&parts, body, ApiError::internal()).await;
            let response = axum::response::IntoResponse::into_response(error);
            let close = response.headers().contains_key(header::CONNECTION);
            assert_eq!(close, closes, "{length} {extra:?}");
        }
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
