//! Errors in OpenAI's form.

use http::StatusCode;
use orcd_shared::error::ErrorCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::error::ApiError;

/// Whether errors of `path` have OpenAI's form.
pub(in crate::http) fn is_asked_at(path: &str) -> bool {
    path.starts_with("/v1/")
}

/// An error's body.
#[derive(Serialize, ToSchema)]
#[schema(as = OpenAiError)]
pub(in crate::http) struct Body<'a> {
    #[schema(inline)]
    error: Inner<'a>,
}

#[derive(Serialize, ToSchema)]
struct Inner<'a> {
    /// What failed and what to do, for people.
    message: &'a str,
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    kind: &'static str,
    /// The first field that is at fault.
    param: Option<&'a str>,
    /// Such as `model_not_found`, `context_length_exceeded`.
    code: Option<String>,
}

/// The JSON body of `error`.
pub(in crate::http) fn body(error: &ApiError) -> Vec<u8> {
    let param = error.first_field().filter(|field| !field.is_empty());
    let body = Body {
        error: Inner {
            message: error.message(),
            kind: kind(error.status()),
            param,
            code: code(error, param),
        },
    };
    // Strings: nothing that JSON can't hold.
    serde_json::to_vec(&body).unwrap_or_default()
}

fn kind(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::FORBIDDEN => "permission_error",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        status if status.is_server_error() => "server_error",
        _ => "invalid_request_error",
    }
}

fn code(error: &ApiError, param: Option<&str>) -> Option<String> {
    match (error.code(), error.status()) {
        (ErrorCode::InvalidRequest, StatusCode::NOT_FOUND) if param == Some("model") => {
            Some("model_not_found".into())
        }
        (ErrorCode::InvalidRequest, _) => None,
        (ErrorCode::Unauthorized, _) => Some("invalid_api_key".into()),
        (code, _) => Some(code.name().to_ascii_lowercase()),
    }
}
