//! `GET /openapi.json`: the API as an OpenAPI 3.1 document, with the bounds of this very instance.
//!
//! Each route describes itself, beside its handler, from the types that it answers with and the constants
//! that its requests are checked against. What all routes have in common is added here.

mod common;
mod errors;

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header;
use orcd_shared::error::ErrorCode;
use orcd_shared::sampling::SamplingParams;
use utoipa::openapi::path::{HttpMethod, Operation, OperationBuilder, PathItem};
use utoipa::openapi::schema::{ComponentsBuilder, ObjectBuilder, Type};
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{OpenApi, OpenApiBuilder, PathsBuilder};

pub(super) use errors::Code;

pub(super) use common::{body, content, header, header_parameter, json, reference, response};

use super::App;
use super::routes::{self, Route};

/// What the document says of this instance beside what holds for all.
#[derive(Debug, Clone, Copy)]
pub(super) struct Instance {
    /// `--max-tokens-out`.
    pub(super) max_tokens_out: u32,
    /// Tokens in the model's vocabulary, once it is known.
    pub(super) vocab_size: Option<u32>,
    /// Sampling of requests that say nothing of it.
    pub(super) defaults: SamplingParams,
    /// It has keys, and requests have to bring one.
    pub(super) asks_for_key: bool,
    /// It has the routes of `--demo`.
    pub(super) with_demo: bool,
}

/// What a route says of itself.
pub(super) struct Description {
    /// With its proper answers.
    pub(super) operation: OperationBuilder,
    /// The errors that it answers with, beside those that every route may.
    pub(super) errors: &'static [ErrorCode],
    /// Statuses under which `INVALID_REQUEST` comes here beside those of every route.
    pub(super) invalid: &'static [u16],
}

impl Instance {
    fn of(app: &App) -> Self {
        Self {
            max_tokens_out: app.max_tokens_out,
            vocab_size: app.service.get().map(|s| s.model.vocab_size()),
            defaults: (app.service.get()).map_or_else(SamplingParams::defaults, |s| s.defaults),
            asks_for_key: app.guard.asks_for_key(),
            with_demo: app.demo.is_some(),
        }
    }
}

/// Answers with the document.
pub(super) async fn openapi(State(app): State<Arc<App>>) -> Response {
    let instance = Instance::of(&app);
    // Made once: it takes a millisecond, which the threads that pass tokens on do not have for each client.
    let bytes = match instance.vocab_size {
        Some(_) => app.document.get_or_init(|| written(&instance)).clone(),
        None => written(&instance),
    };
    ([(header::CONTENT_TYPE, "application/json")], bytes).into_response()
}

fn written(instance: &Instance) -> Bytes {
    // Strings and numbers: nothing that JSON can't hold.
    serde_json::to_vec(&document(instance))
        .unwrap_or_default()
        .into()
}

/// What the document says of its own route.
pub(super) fn describe(_: &Instance) -> Description {
    let any = ObjectBuilder::new().schema_type(Type::Object);
    Description {
        operation: OperationBuilder::new()
            .operation_id(Some("openapi"))
            .summary(Some("This document"))
            .description(Some(
                "OpenAPI 3.1, with the bounds of the instance that answers: they follow its command line and \
                 its model.",
            ))
            .response("200", response("The document.", json(any))),
        errors: &[],
        invalid: &[],
    }
}

/// The whole document.
fn document(instance: &Instance) -> OpenApi {
    let mut components = common::components(ComponentsBuilder::new(), instance);
    components = errors::components(components);
    let routes = routes::all(instance.with_demo);
    let paths = routes.fold(PathsBuilder::new(), |paths, route| {
        let method = match route.method {
            http::Method::POST => HttpMethod::Post,
            _ => HttpMethod::Get,
        };
        let operation = operation(route, instance);
        paths.path(route.path, PathItem::new(method, operation))
    });
    OpenApiBuilder::new()
        .info(common::info())
        .paths(paths)
        .components(Some(components.build()))
        .build()
}

/// What `route` says of itself, and what is true of every route.
fn operation(route: &Route, instance: &Instance) -> Operation {
    let description = (route.describe)(instance);
    let errors = errors::of_route(route, &description, instance);
    let mut operation = description
        .operation
        .parameter_ref(common::correlation_parameter())
        .build();
    operation.security = Some(if instance.asks_for_key && !route.is_open() {
        vec![SecurityRequirement::new::<_, [&str; 0], &str>(
            common::KEY,
            [],
        )]
    } else {
        Vec::new()
    });
    operation.responses.responses.extend(errors);
    for response in operation.responses.responses.values_mut() {
        common::add_headers(response);
    }
    operation
}

#[cfg(test)]
mod tests;
