//! `GET /props`: what requests get that say nothing of it, and what the model takes.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use orcd_shared::error::ErrorCode;
use serde::Serialize;
use utoipa::openapi::path::OperationBuilder;
use utoipa::{PartialSchema, ToSchema};

use super::super::App;
use super::super::error::ApiError;
use super::super::openapi::{self, Description, Instance};

#[derive(Serialize, ToSchema)]
pub(super) struct Props {
    /// As in `/health`.
    model: String,
    #[schema(inline)]
    default_generation_settings: Settings,
    /// Most jobs at once; `null` until a worker has said it.
    total_slots: Option<u32>,
    /// Tokens of a sequence, prompt and output; `null` until a worker has said it.
    context_length: Option<u32>,
    /// The source of the chat template, if the model has one that compiles.
    chat_template: Option<String>,
    /// Of the program.
    #[schema(value_type = String)]
    build_info: &'static str,
}

/// Sampling of requests that say nothing of it.
#[derive(Serialize, ToSchema)]
struct Settings {
    temperature: f32,
    top_p: f32,
    top_k: u32,
    min_p: f32,
    repetition_penalty: f32,
    frequency_penalty: f32,
    presence_penalty: f32,
}

/// Answers `GET /props`.
///
/// # Errors
/// The model is not there yet.
pub(super) async fn props(State(app): State<Arc<App>>) -> Result<Json<Props>, ApiError> {
    let service = app.service()?;
    let snapshot = service.jobs.snapshot();
    let worker = snapshot.worker.as_ref();
    let defaults = service.defaults;
    let template = service.model.text().chat_template_source();
    Ok(Json(Props {
        model: service.model.name().to_owned(),
        default_generation_settings: Settings {
            temperature: defaults.temperature,
            top_p: defaults.top_p,
            top_k: defaults.top_k,
            min_p: defaults.min_p,
            repetition_penalty: defaults.repetition_penalty,
            frequency_penalty: defaults.frequency_penalty,
            presence_penalty: defaults.presence_penalty,
        },
        total_slots: worker.map(|worker| worker.parallel),
        context_length: worker.map(|worker| worker.context),
        chat_template: template.map(str::to_owned),
        build_info: env!("CARGO_PKG_VERSION"),
    }))
}

/// What the OpenAPI document says of it.
pub(super) fn describe(_: &Instance) -> Description {
    let answer = openapi::json(Props::schema());
    Description {
        operation: OperationBuilder::new()
            .operation_id(Some("props"))
            .summary(Some("What requests get that say nothing of it"))
            .description(Some(
                "Sampling as it was set with `--default-…`, or as the model's file recommends.",
            ))
            .response("200", openapi::response("The settings.", answer)),
        errors: &[ErrorCode::WorkerUnavailable],
        invalid: &[],
    }
}
