//! `GET /`: the page.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode};
use utoipa::openapi::path::OperationBuilder;
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::schema::{ObjectBuilder, Type};

use super::super::App;
use super::super::openapi::{self, Description, Instance};

/// Where it is.
pub(super) const PATH: &str = "/";

/// What holds for every page.
const HEADERS: [(HeaderName, HeaderValue); 4] = [
    (
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/html; charset=utf-8"),
    ),
    (
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    ),
    (
        header::REFERRER_POLICY,
        HeaderValue::from_static("same-origin"),
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
];

/// Answers `GET /`.
pub(super) async fn page(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let with_token = (app.demo.as_ref()).and_then(|demo| demo.page_for(&headers));
    let page = with_token.unwrap_or(&app.page);
    // Each start has another token, and no copy of it is to lie on a disk.
    let caching = match app.demo {
        Some(_) => HeaderValue::from_static("no-store"),
        None => HeaderValue::from_static("no-cache"),
    };
    let mut response = if page.is_known_to(&headers) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        page.html.clone().into_response()
    };
    let own = response.headers_mut();
    // `extend` would add a second type.
    for (name, value) in HEADERS {
        own.insert(name, value);
    }
    own.insert(header::CACHE_CONTROL, caching);
    own.insert(header::ETAG, page.tag.clone());
    own.insert(header::CONTENT_SECURITY_POLICY, page.policy.clone());
    response
}

/// What the OpenAPI document says of it.
pub(super) fn describe(_: &Instance) -> Description {
    let html = ObjectBuilder::new().schema_type(Type::String);
    let content = openapi::content("text/html; charset=utf-8", html);
    let page = ["Cache-Control", "Content-Security-Policy", "ETag"]
        .into_iter()
        .fold(openapi::response("The page.", content), |page, name| {
            page.header_ref(name, openapi::header(name))
        });
    let known = ResponseBuilder::new().description("It is what `If-None-Match` names.");
    Description {
        operation: OperationBuilder::new()
            .operation_id(Some("page"))
            .summary(Some("The page"))
            .description(Some(
                "For people: talk to the model, and see how the service is. One file without anything from elsewhere. \
                 It is answered without a key and asks for one itself.",
            ))
            .response("200", page)
            .response("304", known),
        errors: &[],
        invalid: &[],
    }
}
