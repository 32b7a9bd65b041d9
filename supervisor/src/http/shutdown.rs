//! `POST /shutdown`: the same as SIGTERM.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;

use super::error::ApiError;
use super::{App, body, validate};

#[derive(Serialize)]
struct Answer {
    status: &'static str,
}

/// Begins to stop the service. Safe to repeat. There need not be a body; one is `{}`.
pub(super) async fn shutdown(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let bytes = body::read(&parts, body, &app.control_bodies).await?;
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
