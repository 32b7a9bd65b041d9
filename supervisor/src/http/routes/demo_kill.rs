//! `POST /demo/kill`: the worker dies, so that a person sees what follows. There with `--demo` alone.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use orcd_shared::error::ErrorCode;
use serde::Serialize;
use utoipa::openapi::path::OperationBuilder;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::{PartialSchema, ToSchema};

use super::super::error::ApiError;
use super::super::openapi::{self, Description, Instance};
use super::super::{App, body, demo};

#[derive(Serialize, ToSchema)]
struct Answer {
    /// Which worker it was, counted from 1.
    generation: u64,
    /// Jobs that it had, which go on with the next one.
    jobs: usize,
}

/// Kills the worker that serves, by SIGKILL. Its jobs go on with the next one.
pub(super) async fn kill(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    body::read_empty(&parts, body, &app.control_bodies).await?;
    // The route is there with `--demo` alone.
    let demo = app.demo.as_ref().ok_or_else(ApiError::internal)?;
    demo.admit(&parts.headers)?;
    let killed = app.service()?.jobs.kill_worker().await;
    let killed = killed.ok_or_else(|| {
        let message = "no worker serves at this moment; try again once /health says healthy";
        ApiError::new(ErrorCode::WorkerUnavailable, message)
    })?;
    let answer = Answer {
        generation: killed.generation,
        jobs: killed.jobs,
    };
    Ok((StatusCode::ACCEPTED, Json(answer)).into_response())
}

/// What the OpenAPI document says of it.
pub(super) fn describe(_: &Instance) -> Description {
    let token = openapi::header_parameter(
        demo::TOKEN.as_str(),
        "`X-Demo-Token`: the one in the page of this start.",
        ObjectBuilder::new().schema_type(Type::String),
    );
    let answer = openapi::json(Answer::schema());
    Description {
        operation: OperationBuilder::new()
            .operation_id(Some("killWorker"))
            .summary(Some("Kill the worker"))
            .description(Some(
                "For demonstrations (`--demo`): the worker that serves gets SIGKILL, and its jobs go on with the next one. \
                 Only the page of this start of the service may ask for it: same origin, and its token.",
            ))
            .parameter(token)
            .response("202", openapi::response("It gets the signal.", answer)),
        errors: &[ErrorCode::QueueFull, ErrorCode::WorkerUnavailable],
        invalid: &[413],
    }
}
