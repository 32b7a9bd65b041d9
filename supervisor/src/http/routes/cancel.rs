//! `POST /cancel`: ends a job, whatever the worker is doing. Safe to repeat.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::StatusCode;
use orcd_shared::error::ErrorCode;
use serde::Serialize;
use utoipa::openapi::Required;
use utoipa::openapi::path::OperationBuilder;
use utoipa::{PartialSchema, ToSchema};

use super::super::error::ApiError;
use super::super::openapi::{self, Description, Instance};
use super::super::{App, body, validate};
use crate::jobs::{CancelStatus, JobName, Owner};

#[derive(Serialize, ToSchema)]
struct Answer {
    job_id: String,
    #[schema(inline)]
    status: CancelStatus,
}

/// Cancels the job that the body names.
pub(super) async fn cancel(
    State(app): State<Arc<App>>,
    Extension(owner): Extension<Owner>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let bytes = body::read(&parts, body, &app.control_bodies).await?;
    let job_id = validate::cancel(body::parse(&bytes)?).map_err(ApiError::invalid)?;
    let status = match app.service.get() {
        Some(service) => {
            let name = job_id.clone();
            service.jobs.cancel(JobName { owner, name }).await
        }
        None => CancelStatus::Unknown,
    };
    Ok((StatusCode::ACCEPTED, Json(Answer { job_id, status })).into_response())
}

/// What the OpenAPI document says of it.
pub(super) fn describe(_: &Instance) -> Description {
    let answer = openapi::json(Answer::schema());
    Description {
        operation: OperationBuilder::new()
            .operation_id(Some("cancel"))
            .summary(Some("End a job"))
            .description(Some(
                "Safe to repeat. `cancelling`: the job was in flight, and its stream has had its last event, \
                 `error` with `CANCELLED`; the name is free again. `unknown`: no job of that name is in flight.",
            ))
            .request_body(Some(openapi::body(
                "The job's name.",
                Required::True,
                validate::schema::cancel(),
            )))
            .response("202", openapi::response("What became of it.", answer)),
        errors: &[ErrorCode::QueueFull],
        invalid: &[413],
    }
}
