//! Errors before a stream starts: their status, headers and JSON body.
//!
//! A handler returns an [`ApiError`]; the body is written by [`super::correlation`], which alone
//! knows the correlation id.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use orcd_shared::error::ErrorCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::openapi::Code;
use crate::jobs::Rejection;

/// Most faults listed in one answer.
pub(super) const MAX_DETAILS: usize = 64;
/// When to try again where nobody knows better.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Detail {
    /// Where: `top_p`, `messages[3].role`, `X-Deadline`.
    pub field: String,
    /// The rule: `0 < top_p <= 1`.
    pub constraint: String,
    /// How it was broken. Never the prompt or a message.
    pub message: String,
}

/// An error as an HTTP answer.
#[derive(Debug, Clone)]
pub struct ApiError {
    status: StatusCode,
    code: ErrorCode,
    message: String,
    details: Vec<Detail>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl ApiError {
    /// An error with the status and headers that its code calls for.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(code.http_status());
        let error = Self {
            status: status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            code,
            message: message.into(),
            details: Vec::new(),
            headers: Vec::new(),
        };
        if has_retry_after(code) {
            error.retry_after(RETRY_AFTER)
        } else {
            error
        }
    }

    /// `INVALID_REQUEST` for the fields in `details`.
    #[must_use]
    pub fn invalid(details: Vec<Detail>) -> Self {
        let message = match details.as_slice() {
            [only] => only.message.clone(),
            several => {
                let fields: Vec<_> = several
                    .iter()
                    .take(MAX_DETAILS)
                    .map(|d| d.field.as_str())
                    .collect();
                let count = match several.len() {
                    more if more > MAX_DETAILS => format!("more than {MAX_DETAILS}"),
                    all => all.to_string(),
                };
                format!("{count} faults, in: {}", fields.join(", "))
            }
        };
        Self::new(ErrorCode::InvalidRequest, message).details(details)
    }

    /// `INVALID_REQUEST` under another status than 400.
    pub fn invalid_with(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            ..Self::new(ErrorCode::InvalidRequest, message)
        }
    }

    /// A bug of the service.
    #[must_use]
    pub fn internal() -> Self {
        Self::new(
            ErrorCode::Internal,
            "a bug in the service; its log has the correlation id",
        )
    }

    /// Sets the faults, the first of them if there are very many.
    #[must_use]
    pub fn details(mut self, mut details: Vec<Detail>) -> Self {
        details.truncate(MAX_DETAILS);
        self.details = details;
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.retain(|(n, _)| *n != name);
        self.headers.push((name, value));
        self
    }

    /// The connection can't be used again: its request was not read to the end.
    #[must_use]
    pub fn closing(self) -> Self {
        self.header(header::CONNECTION, HeaderValue::from_static("close"))
    }

    /// The status of the answer.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// What failed.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The first field that is at fault.
    #[must_use]
    pub fn first_field(&self) -> Option<&str> {
        self.details.first().map(|detail| detail.field.as_str())
    }

    /// The contract's code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    fn retry_after(self, after: Duration) -> Self {
        // Whole seconds, and 0 would invite at once.
        let seconds = after.as_millis().div_ceil(1000).clamp(1, 3600) as u32;
        self.header(header::RETRY_AFTER, seconds.into())
    }

    /// The JSON body.
    #[must_use]
    pub fn body(&self, correlation_id: &str) -> Vec<u8> {
        let body = Body {
            error: Inner {
                code: self.code,
                message: &self.message,
                retriable: self.code.retriable(),
                correlation_id,
                details: &self.details,
            },
        };
        serde_json::to_vec(&body).unwrap_or_default()
    }
}

/// An error's body.
#[derive(Serialize, ToSchema)]
#[schema(as = Error)]
pub(super) struct Body<'a> {
    #[schema(inline)]
    error: Inner<'a>,
}

#[derive(Serialize, ToSchema)]
struct Inner<'a> {
    #[schema(value_type = Code)]
    code: ErrorCode,
    /// What failed and what to do, for people. Never the prompt or a message.
    message: &'a str,
    /// The same request may succeed later or elsewhere.
    retriable: bool,
    /// As in the header `X-Correlation-Id`.
    correlation_id: &'a str,
    /// One for each fault; empty where no field is to blame.
    #[schema(max_items = 64)]
    details: &'a [Detail],
}

/// Whether answers with `code` say after how long to send the request again.
pub(super) fn has_retry_after(code: ErrorCode) -> bool {
    use ErrorCode::{Draining, QueueFull, RateLimited, WorkerUnavailable};
    matches!(code, QueueFull | RateLimited | Draining | WorkerUnavailable)
}

impl From<Rejection> for ApiError {
    fn from(rejection: Rejection) -> Self {
        let error = Self::new(rejection.code, rejection.message);
        match rejection.retry_after {
            Some(after) => error.retry_after(after),
            None => error,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.headers_mut().extend(self.headers.iter().cloned());
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn body_has_the_shape_of_the_contract() {
        let detail = Detail {
            field: "top_p".into(),
            constraint: "0 < top_p <= 1".into(),
            message: "top_p is 2".into(),
        };
        let body = ApiError::invalid(vec![detail]).body("abc");
        let body: Value = serde_json::from_slice(&body).unwrap();
        let expected = json!({"error": {
            "code": "INVALID_REQUEST",
            "message": "top_p is 2",
            "retriable": false,
            "correlation_id": "abc",
            "details": [
                {"field": "top_p", "constraint": "0 < top_p <= 1", "message": "top_p is 2"},
            ],
        }});
        assert_eq!(body, expected);
    }

    #[test]
    fn retry_after_is_whole_seconds_and_never_zero() {
        let header = |retry_after| {
            let rejection = Rejection {
                code: ErrorCode::QueueFull,
                message: String::new(),
                retry_after,
            };
            let response = ApiError::from(rejection).into_response();
            assert_eq!(response.status(), 503);
            response.headers()[header::RETRY_AFTER]
                .to_str()
                .unwrap()
                .to_owned()
        };
        assert_eq!(header(None), "1");
        assert_eq!(header(Some(Duration::ZERO)), "1");
        assert_eq!(header(Some(Duration::from_millis(2001))), "3");
    }

    #[test]
    fn very_many_faults_do_not_make_a_very_long_answer() {
        let detail = Detail {
            field: "x".into(),
            constraint: String::new(),
            message: String::new(),
        };
        let error = ApiError::invalid(vec![detail; 100_000]);
        assert!(error.body("").len() < 10_000);
        assert!(error.message.contains("more than 64"));
    }
}
