//! `POST /shutdown`: the same as SIGTERM.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde::Serialize;

use super::error::ApiError;
use super::{App, body, validate};

#[derive(Serialize)]
struct Answer {
    status: &'static str,
}

/// Begins to stop the service. Safe to repeat. There need not be a body; one is `{}`. A request with
/// an `Origin` comes out of a browser: any web page can have one sent to this machine, and none is
/// to stop the service.
pub(super) async fn shutdown(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    if parts.headers.contains_key(header::ORIGIN) {
        let message =
            "web pages can't stop the service; send the request without the header Origin";
        return Err(ApiError::invalid_with(StatusCode::BAD_REQUEST, message));
    }
    let bytes = body::read(&parts, body).await?;
    if !bytes.trim_ascii().is_empty() {
        validate::shutdown(body::parse(&bytes)?).map_err(ApiError::invalid)?;
    }
    tracing::info!("asked to stop by POST /shutdown");
    app.draining.cancel();
    // Before the answer, so that no job that is sent after it can be taken.
    if let Some(service) = app.service.get() {
        service.jobs.drain().await;
    }
    Ok((StatusCode::ACCEPTED, Json(Answer { status: "draining" })).into_response())
}
