//! `GET /metrics`: the service's counters as Prometheus text.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header;

use super::App;
use super::error::ApiError;
use crate::metrics::CONTENT_TYPE;

/// Answers a scrape.
pub(super) async fn metrics(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let snapshot = app.service.get().map(|service| service.jobs.snapshot());
    let text = app
        .metrics
        .encode(snapshot.as_deref())
        .map_err(|_| ApiError::internal())?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response())
}
