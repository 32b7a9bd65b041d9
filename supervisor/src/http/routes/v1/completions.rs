//! `POST /v1/completions`.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;

use super::super::super::correlation::CorrelationId;
use super::super::super::error::ApiError;
use super::super::super::openai::{self, completions};
use super::super::super::openapi::{Description, Instance};
use super::super::super::{App, generate};

/// Answers with a completion, or with its chunks.
pub(in super::super) async fn create(
    State(app): State<Arc<App>>,
    Extension(correlation_id): Extension<CorrelationId>,
    request: Request,
) -> Result<Response, ApiError> {
    let accepted = generate::accept(&app, &correlation_id, request, completions::decode).await?;
    openai::answer(accepted).await
}

/// What the OpenAPI document says of it.
pub(in super::super) fn describe(instance: &Instance) -> Description {
    openai::document::generation(
        "completions",
        "Completion, as OpenAI has it",
        openai::document::completion(instance),
    )
}
