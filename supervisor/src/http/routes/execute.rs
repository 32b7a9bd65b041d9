//! `POST /execute`: a request becomes a job, the job's events the answer.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use orcd_shared::error::ErrorCode;
use serde_json::json;
use utoipa::openapi::Required;
use utoipa::openapi::link::LinkBuilder;
use utoipa::openapi::path::OperationBuilder;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};

use super::super::correlation::CorrelationId;
use super::super::error::ApiError;
use super::super::openapi::{self, Description, Instance};
use super::super::validate::{self, Fresh};
use super::super::{App, deadline, generate, sse, whole};

/// Takes a job and answers with its stream, or with all of it at once.
pub(super) async fn execute(
    State(app): State<Arc<App>>,
    Extension(correlation_id): Extension<CorrelationId>,
    request: Request,
) -> Result<Response, ApiError> {
    let decode = |body, decoding: &generate::Decoding| {
        let request = validate::execute(body, &decoding.limits, Fresh::new());
        let request = request.map_err(ApiError::invalid)?;
        Ok((vec![request.generation], request.stream))
    };
    let accepted = generate::accept(&app, &correlation_id, request, decode).await?;
    // One generation with one choice.
    let output = accepted.outputs.into_iter().next();
    let output = output.ok_or_else(ApiError::internal)?;
    if accepted.dialect {
        return Ok(sse::response(output.stream, output.received));
    }
    let whole = whole::collect(output.stream).await?;
    Ok(sse::private(whole.into_response()))
}

/// What the OpenAPI document says of it.
pub(super) fn describe(instance: &Instance) -> Description {
    let deadline = openapi::header_parameter(
        deadline::NAME,
        "RFC 3339 with an offset: until when the answer is of use. Given once. A time in the past is 504.",
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime))),
    );
    let events = LinkBuilder::new()
        .operation_id("jobEvents")
        .parameter("job_id", "$request.body#/job_id")
        .description("The same stream again, of a job with `\"on_disconnect\":\"continue\"`.")
        .build();
    let cancel = LinkBuilder::new()
        .operation_id("cancel")
        .request_body(Some(json!({"job_id": "$request.body#/job_id"})))
        .description("Ends the job.")
        .build();
    Description {
        operation: OperationBuilder::new()
            .operation_id(Some("execute"))
            .summary(Some("Start a job; the answer is its stream"))
            .description(Some(
                "The same model file, prompt tokens, parameters and seed give the same tokens on any device, \
                 beside any other jobs, and whatever becomes of workers. All bad fields are named at once. A \
                 prompt that fits its bounds may still be refused: its tokens have to leave room in the context \
                 (`context_length` of `/health`), and the chat template has to take the messages.",
            ))
            .parameter(deadline)
            .request_body(Some(openapi::body(
                "What to generate, and how.",
                Required::True,
                validate::schema::execute(instance),
            )))
            .response(
                "200",
                whole::describe(sse::describe())
                    .link("Events", events)
                    .link("Cancel", cancel),
            ),
        errors: &[
            ErrorCode::ContextLengthExceeded,
            ErrorCode::JobExists,
            ErrorCode::FingerprintMismatch,
            ErrorCode::QueueFull,
            ErrorCode::Draining,
            ErrorCode::WorkerUnavailable,
            ErrorCode::InferenceTimeout,
        ],
        invalid: &[413],
    }
}
