//! `POST /v1/chat/completions`.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;

use super::super::super::correlation::CorrelationId;
use super::super::super::error::ApiError;
use super::super::super::openai::{self, chat};
use super::super::super::openapi::{Description, Instance};
use super::super::super::{App, generate};

/// Answers with a chat completion, or with its chunks.
pub(in super::super) async fn chat_completions(
    State(app): State<Arc<App>>,
    Extension(correlation_id): Extension<CorrelationId>,
    request: Request,
) -> Result<Response, ApiError> {
    let accepted = generate::accept(&app, &correlation_id, request, chat::decode).await?;
    openai::answer(accepted).await
}

/// What the OpenAPI document says of it.
pub(in super::super) fn describe(instance: &Instance) -> Description {
    openai::document::generation(
        "chatCompletions",
        "Chat completion, as OpenAI has it",
        openai::document::chat(instance),
    )
}
