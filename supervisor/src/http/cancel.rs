//! `POST /cancel`: ends a job, whatever the worker is doing. Safe to repeat.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;

use super::error::ApiError;
use super::{App, body, validate};
use crate::jobs::CancelStatus;

#[derive(Serialize)]
struct Answer {
    job_id: String,
    status: &'static str,
}

/// Cancels the job that the body names.
pub(super) async fn cancel(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let bytes = body::read(&parts, body, &app.control_bodies).await?;
    let job_id = validate::cancel(body::parse(&bytes)?).map_err(ApiError::invalid)?;
    let status = match app.service.get() {
        Some(service) => service.jobs.cancel(job_id.clone()).await,
        None => CancelStatus::Unknown,
    };
    let status = match status {
        CancelStatus::Cancelling => "cancelling",
        CancelStatus::Unknown => "unknown",
    };
    Ok((StatusCode::ACCEPTED, Json(Answer { job_id, status })).into_response())
}
