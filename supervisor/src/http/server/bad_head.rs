//! Answers to what never became a request: a head that can't be read, is too large, breaks off or
//! does not come. hyper's own would have no body.

use std::convert::Infallible;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http_body_util::BodyExt;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;

use super::super::error::ApiError;
use super::MAX_HEAD_BYTES;
use super::peer::{Progress, Stage};

/// Stands in for the request that there is none of: the routes answer with its error, so that it has
/// a correlation id, is logged and is counted like any other.
#[derive(Debug, Clone)]
struct BadHead(ApiError);

/// The error to answer with when a connection ended with `error`; `None` if nobody waits for one.
pub(super) fn verdict(error: &hyper::Error, progress: Progress) -> Option<ApiError> {
    let waits = match progress.stage {
        Stage::Head => !progress.last,
        // One that is kept open and not used may be closed at any time. What was withheld answers a
        // head that came together with the request before it.
        Stage::Idle => progress.withheld.is_some() || (!progress.served && error.is_timeout()),
        Stage::Handled | Stage::Answering => false,
    };
    if !waits {
        return None;
    }
    let (status, message) = match progress.withheld {
        Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE) => (
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            format!("the request's head is larger than {MAX_HEAD_BYTES} bytes"),
        ),
        withheld if error.is_parse() => (
            withheld.unwrap_or(StatusCode::BAD_REQUEST),
            // hyper's words name a part of the head, never its text.
            format!("not a valid HTTP/1.1 request: {error}"),
        ),
        _ if error.is_timeout() => (
            StatusCode::REQUEST_TIMEOUT,
            "the request's head did not arrive in time".to_owned(),
        ),
        _ if error.is_incomplete_message() => (
            StatusCode::BAD_REQUEST,
            "the request broke off within its head".to_owned(),
        ),
        _ => return None,
    };
    Some(ApiError::invalid_with(status, message).closing())
}

/// The bytes of the answer that the routes give in the place of a request.
pub(super) async fn answer(error: ApiError, router: Router) -> Vec<u8> {
    let mut request = Request::new(Body::empty());
    request.extensions_mut().insert(BadHead(error));
    let Ok::<_, Infallible>(response) = TowerToHyperService::new(router).call(request).await;
    let (parts, body) = response.into_parts();
    // It is made of one piece that is there.
    let body = body
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    let mut bytes = format!("HTTP/1.1 {}\r\n", parts.status).into_bytes();
    for (name, value) in &parts.headers {
        if name != http::header::CONTENT_LENGTH {
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
    }
    bytes.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

/// The layer that turns the stand-in into its error.
pub(in super::super) async fn respond(mut request: Request, next: Next) -> Response {
    match request.extensions_mut().remove::<BadHead>() {
        Some(BadHead(error)) => error.into_response(),
        None => next.run(request).await,
    }
}
