//! `POST /shutdown`: the same as SIGTERM.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;

use super::App;

#[derive(Serialize)]
struct Answer {
    status: &'static str,
}

/// Begins to stop the service. Safe to repeat.
pub(super) async fn shutdown(State(app): State<Arc<App>>) -> Response {
    tracing::info!("asked to stop by POST /shutdown");
    app.draining.cancel();
    // Before the answer, so that no job that is sent after it can be taken.
    if let Some(service) = app.service.get() {
        service.jobs.drain().await;
    }
    (StatusCode::ACCEPTED, Json(Answer { status: "draining" })).into_response()
}
