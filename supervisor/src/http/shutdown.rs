//! `POST /shutdown`: the same as SIGTERM.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use serde::Serialize;

use super::App;
use super::error::ApiError;

#[derive(Serialize)]
struct Answer {
    status: &'static str,
}

/// Begins to stop the service. Safe to repeat. A request with an `Origin` comes out of a browser: any
/// web page can have one sent to this machine, and none is to stop the service.
pub(super) async fn shutdown(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    if headers.contains_key(header::ORIGIN) {
        let message =
            "web pages can't stop the service; send the request without the header Origin";
        return Err(ApiError::invalid_with(StatusCode::BAD_REQUEST, message));
    }
    tracing::info!("asked to stop by POST /shutdown");
    app.draining.cancel();
    // Before the answer, so that no job that is sent after it can be taken.
    if let Some(service) = app.service.get() {
        service.jobs.drain().await;
    }
    Ok((StatusCode::ACCEPTED, Json(Answer { status: "draining" })).into_response())
}
