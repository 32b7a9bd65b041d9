//! The correlation id of each request: taken from `X-Correlation-Id` or made up, and put into the
//! answer's header, into error bodies and into the log. The outermost layer of the router.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use orcd_shared::error::ErrorCode;
use uuid::Uuid;

use super::error::ApiError;
use super::openai;
use crate::metrics::Metrics;

/// The header's name.
pub const HEADER: HeaderName = HeaderName::from_static("x-correlation-id");
/// Longest id that is taken.
pub(super) const MAX_LENGTH: usize = 64;

/// The id of the request being answered; a request extension.
#[derive(Debug, Clone)]
pub struct CorrelationId(pub Arc<str>);

/// Answers `request` through `next`, with its id everywhere. Errors are counted.
pub async fn correlate(
    State(metrics): State<Arc<Metrics>>,
    mut request: Request,
    next: Next,
) -> Response {
    let begin = Instant::now();
    let id = CorrelationId(id_of(request.headers()));
    request.extensions_mut().insert(id.clone());
    let method = request.method().clone();
    let is_openai = openai::is_asked_at(request.uri().path());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let answer = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    let mut response = answer.unwrap_or_else(|_| {
        tracing::error!(correlation_id = %id.0, "a request handler panicked");
        ApiError::internal().into_response()
    });
    let error = response.extensions_mut().remove::<ApiError>();
    if let Some(error) = &error {
        metrics.request_refused(error.code().name());
        *response.body_mut() = Body::from(if is_openai {
            openai::body(error)
        } else {
            error.body(&id.0)
        });
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
    }
    // An id is checked to be ASCII letters, digits and hyphens.
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        response.headers_mut().insert(HEADER, value);
    }
    log(
        &method,
        route.as_ref(),
        &response,
        error.as_ref(),
        &id,
        begin,
    );
    response
}

fn log(
    method: &Method,
    route: Option<&MatchedPath>,
    response: &Response,
    error: Option<&ApiError>,
    CorrelationId(correlation_id): &CorrelationId,
    begin: Instant,
) {
    // The route and not the path: what stands in an unknown path is the client's text.
    let route = route.map_or("-", MatchedPath::as_str);
    let correlation_id = correlation_id.as_ref();
    let status = response.status().as_u16();
    let elapsed_us = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
    let code = error.map(|e| e.code().name());
    // Who asks too often is not to fill the log as well: it is counted.
    let is_noise = error.is_some_and(|error| error.code() == ErrorCode::RateLimited);
    if (method == Method::POST || error.is_some()) && !is_noise {
        tracing::info!(%method, route, status, code, correlation_id, elapsed_us, "request");
    } else {
        tracing::debug!(%method, route, status, correlation_id, elapsed_us, "request");
    }
}

fn id_of(headers: &HeaderMap) -> Arc<str> {
    match headers
        .get(HEADER)
        .and_then(|v| v.to_str().ok())
        .filter(|v| is_valid(v))
    {
        Some(given) => given.into(),
        None => Uuid::new_v4().to_string().into(),
    }
}

fn is_valid(id: &str) -> bool {
    (1..=MAX_LENGTH).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_id_is_replaced_by_a_fresh_uuid() {
        let id = |value: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(HEADER, HeaderValue::from_bytes(value).unwrap());
            id_of(&headers)
        };
        let longest = "a".repeat(64);
        for good in ["7", "Abc-123", "-", &longest] {
            assert_eq!(&*id(good.as_bytes()), good);
        }
        let too_long = "a".repeat(65);
        for bad in [
            &b""[..],
            b"a b",
            b"a_b",
            "ä".as_bytes(),
            b"a\"b",
            too_long.as_bytes(),
        ] {
            let fresh = id(bad);
            assert_eq!(Uuid::parse_str(&fresh).unwrap().get_version_num(), 4);
            assert_ne!(fresh, id(bad));
        }
        assert!(Uuid::parse_str(&id_of(&HeaderMap::new())).is_ok());
    }
}
