//! `GET /v1/models` and `GET /v1/models/{id}`: the one model, under each of its names.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use serde::Serialize;
use utoipa::openapi::Required;
use utoipa::openapi::path::{OperationBuilder, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::{PartialSchema, ToSchema};

use super::super::super::App;
use super::super::super::error::ApiError;
use super::super::super::openai::model_not_found;
use super::super::super::openapi::{self, Description, Instance};

/// A name of the model.
#[derive(Serialize, ToSchema)]
struct Entry {
    id: String,
    #[schema(value_type = String)]
    object: &'static str,
    /// When the service was started, seconds since 1970.
    created: u64,
    #[schema(value_type = String)]
    owned_by: &'static str,
    /// The first name.
    root: String,
    /// Tokens of a sequence, prompt and output; `null` until a worker has said it.
    max_model_len: Option<u32>,
}

/// All names.
#[derive(Serialize, ToSchema)]
pub(in super::super) struct List {
    #[schema(value_type = String)]
    object: &'static str,
    #[schema(inline)]
    data: Vec<Entry>,
}

/// Answers `GET /v1/models`.
///
/// # Errors
/// The model is not there yet: routers take the first answer for the sign that a worker is up.
pub(in super::super) async fn list(State(app): State<Arc<App>>) -> Result<Json<List>, ApiError> {
    let names = app.names.iter();
    let data: Result<_, ApiError> = names.map(|name| entry(&app, name)).collect();
    Ok(Json(List {
        object: "list",
        data: data?,
    }))
}

/// Answers `GET /v1/models/{id}`.
///
/// # Errors
/// There is no model of that name.
pub(in super::super) async fn get(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<axum::response::Response, ApiError> {
    // A path that is no name names no model.
    let id = path.map(|Path(id)| id).unwrap_or_default();
    if !app.names.contains(&id) {
        return Err(model_not_found(&app.names));
    }
    let entry = entry(&app, &id)?;
    Ok(axum::response::IntoResponse::into_response(Json(entry)))
}

fn entry(app: &App, name: &str) -> Result<Entry, ApiError> {
    let worker = app.service()?.jobs.snapshot().worker.clone();
    Ok(Entry {
        id: name.to_owned(),
        object: "model",
        created: app.created,
        owned_by: "worker-orcd",
        root: app.names.first().cloned().unwrap_or_default(),
        max_model_len: worker.map(|worker| worker.context),
    })
}

/// What the OpenAPI document says of the list.
pub(in super::super) fn describe_list(_: &Instance) -> Description {
    let answer = openapi::json(List::schema());
    Description {
        operation: OperationBuilder::new()
            .operation_id(Some("models"))
            .summary(Some("The model, under each of its names"))
            .response("200", openapi::response("The names.", answer)),
        errors: &[orcd_shared::error::ErrorCode::WorkerUnavailable],
        invalid: &[],
    }
}

/// What the OpenAPI document says of one name.
pub(in super::super) fn describe_one(_: &Instance) -> Description {
    let answer = openapi::json(Entry::schema());
    let id = ParameterBuilder::new()
        .name("id")
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
        .description(Some("One of the names."));
    Description {
        operation: OperationBuilder::new()
            .operation_id(Some("model"))
            .summary(Some("The model, under one of its names"))
            .parameter(id)
            .response("200", openapi::response("The name.", answer)),
        errors: &[orcd_shared::error::ErrorCode::WorkerUnavailable],
        invalid: &[404],
    }
}
