//! `POST /shutdown`: the same as SIGTERM.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use orcd_shared::error::ErrorCode;
use serde::Serialize;
use utoipa::openapi::Required;
use utoipa::openapi::path::OperationBuilder;
use utoipa::{PartialSchema, ToSchema};

use super::super::error::ApiError;
use super::super::openapi::{self, Description, Instance};
use super::super::{App, body, validate};

/// Where it is.
pub(super) const PATH: &str = "/shutdown";

#[derive(Serialize, ToSchema)]
struct Answer {
    #[schema(pattern = "^draining$")]
    status: &'static str,
}

/// Begins to stop the service. Safe to repeat. There need not be a body; one is `{}`.
pub(super) async fn shutdown(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    body::read_empty(&parts, body, &app.control_bodies).await?;
    tracing::info!("asked to stop by POST /shutdown");
    app.draining.cancel();
    // Before the answer, so that no job that is sent after it can be taken.
    if let Some(service) = app.service.get() {
        service.jobs.drain().await;
    }
    Ok((StatusCode::ACCEPTED, Json(Answer { status: "draining" })).into_response())
}

/// What the OpenAPI document says of it.
pub(super) fn describe(_: &Instance) -> Description {
    let answer = openapi::json(Answer::schema());
    Description {
        operation: OperationBuilder::new()
            .operation_id(Some("shutdown"))
            .summary(Some("Stop the service"))
            .description(Some(
                "The same as SIGTERM; safe to repeat. From the answer on no job is taken; those in flight go \
                 on for --drain-timeout-sec. Where the service asks for keys, it takes an admin's.",
            ))
            .request_body(Some(openapi::body(
                "None, or an empty object.",
                Required::False,
                validate::schema::no_fields(),
            )))
            .response("202", openapi::response("The service is stopping.", answer)),
        errors: &[ErrorCode::QueueFull],
        invalid: &[413],
    }
}
