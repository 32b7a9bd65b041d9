//! `POST /tokenize`, `/detokenize` and `/apply-template`: what the model's text side does, without a job.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use orcd_shared::error::ErrorCode;
use serde::Serialize;
use utoipa::openapi::RefOr;
use utoipa::openapi::Required;
use utoipa::openapi::path::OperationBuilder;
use utoipa::openapi::schema::Schema;
use utoipa::{PartialSchema, ToSchema};

use super::super::error::ApiError;
use super::super::generate::{Decoding, with_permit};
use super::super::json::Json as Body;
use super::super::openapi::{self, Description, Instance};
use super::super::validate;
use super::super::{App, body};
use crate::text::TemplateTime;

/// Tokens of a text or a conversation.
#[derive(Serialize, ToSchema)]
struct Tokens {
    count: usize,
    /// Tokens of a sequence, prompt and output; `null` until a worker has said it.
    max_model_len: Option<u32>,
    tokens: Vec<u32>,
}

/// Text of tokens.
#[derive(Serialize, ToSchema)]
struct Text {
    /// Bytes that are no UTF-8 are U+FFFD.
    prompt: String,
}

/// Answers `POST /tokenize`.
pub(super) async fn tokenize(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, ApiError> {
    answer(&app, request, |body, decoding| {
        let input = validate::tokenize(body).map_err(ApiError::invalid)?;
        let field = input.field();
        let tokens = decoding.encode(input, field, &TemplateTime::now())?;
        Ok(Json(Tokens {
            count: tokens.len(),
            max_model_len: decoding.context(),
            tokens,
        }))
    })
    .await
}

/// Answers `POST /detokenize`.
pub(super) async fn detokenize(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, ApiError> {
    answer(&app, request, |body, decoding| {
        let vocab_size = decoding.limits.vocab_size;
        let tokens = validate::detokenize(body, vocab_size).map_err(ApiError::invalid)?;
        // Few tokens make many bytes: there are no more than a sequence holds.
        decoding.fits("tokens", tokens.len())?;
        let bytes = decoding.model.text().tokenizer().decode(&tokens);
        Ok(Json(Text {
            prompt: String::from_utf8_lossy(&bytes).into_owned(),
        }))
    })
    .await
}

/// Answers `POST /apply-template`.
pub(super) async fn apply_template(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, ApiError> {
    answer(&app, request, |body, decoding| {
        let chat = validate::apply_template(body).map_err(ApiError::invalid)?;
        let prompt = decoding.render(&chat)?;
        Ok(Json(Text { prompt }))
    })
    .await
}

/// Reads the body and answers on a thread of its own: megabytes take milliseconds.
async fn answer<T: Serialize + Send + 'static>(
    app: &App,
    request: Request,
    work: impl FnOnce(Body, &Decoding) -> Result<Json<T>, ApiError> + Send + 'static,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let service = match app.service() {
        Ok(service) => service,
        Err(error) => return Err(body::pass_over(&parts, body, error).await),
    };
    let decoding = app.decoding(service);
    let budget = app.bodies.for_context(decoding.context().unwrap_or(0));
    let bytes = body::read(&parts, body, &budget).await?;
    let answer = with_permit(&app.preparing, move || {
        work(body::parse(&bytes)?, &decoding)
    });
    let answer = answer.await.unwrap_or_else(|_| Err(ApiError::internal()))?;
    Ok(answer.into_response())
}

/// What the OpenAPI document says of `/tokenize`.
pub(super) fn describe_tokenize(_: &Instance) -> Description {
    describe(
        "tokenize",
        "Tokens of a text or a conversation",
        validate::schema::tokenize(),
        Tokens::schema(),
    )
}

/// What the OpenAPI document says of `/detokenize`.
pub(super) fn describe_detokenize(instance: &Instance) -> Description {
    describe(
        "detokenize",
        "Text of tokens",
        validate::schema::detokenize(instance),
        Text::schema(),
    )
}

/// What the OpenAPI document says of `/apply-template`.
pub(super) fn describe_apply_template(_: &Instance) -> Description {
    describe(
        "applyTemplate",
        "The prompt that a conversation becomes",
        validate::schema::apply_template(),
        Text::schema(),
    )
}

fn describe(id: &str, summary: &str, request: Schema, answer: RefOr<Schema>) -> Description {
    Description {
        operation: OperationBuilder::new()
            .operation_id(Some(id))
            .summary(Some(summary))
            .request_body(Some(openapi::body(
                "What to convert.",
                Required::True,
                request,
            )))
            .response(
                "200",
                openapi::response("The result.", openapi::json(answer)),
            ),
        errors: &[ErrorCode::QueueFull, ErrorCode::WorkerUnavailable],
        invalid: &[413],
    }
}
