//! Errors in the document: which route answers with which, under what status, and what they mean.

use std::collections::BTreeMap;

use orcd_shared::error::ErrorCode;
use serde_json::json;
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::schema::{AllOfBuilder, ComponentsBuilder, ObjectBuilder, Schema, Type};
use utoipa::openapi::{Ref, RefOr, Response};
use utoipa::{PartialSchema, ToSchema};

use super::super::error::{Body, Detail, has_retry_after};
use super::super::openai;
use super::super::routes::Route;
use super::super::routes::health::Report;
use super::super::whole::{TokenLogprob, Whole};
use super::common::{self, header};
use crate::jobs::{JobEvent, TopLogprob};
use crate::text::TemplateStatus;

use super::{Description, Instance, json as json_content};

/// The errors of every route: a head that can't be served, a foreign page, a client that asks too often, a bug.
const OF_ALL: [ErrorCode; 4] = [
    ErrorCode::InvalidRequest,
    ErrorCode::ForbiddenOrigin,
    ErrorCode::RateLimited,
    ErrorCode::Internal,
];
/// Statuses beside 400 under which any request can be `INVALID_REQUEST`: a head that comes too slowly, or
/// is too long.
const INVALID_OF_ALL: [u16; 3] = [408, 414, 431];

/// The schema of [`ErrorCode`], whose crate knows nothing of HTTP's documents.
pub(in super::super) struct Code;

impl PartialSchema for Code {
    fn schema() -> RefOr<Schema> {
        let lines = ErrorCode::ALL.map(|code| {
            let again = if code.retriable() { ", retriable" } else { "" };
            let status = code.http_status();
            format!("- `{code}` ({status}{again}): {}", meaning(code))
        });
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some(format!(
                "What went wrong, with the HTTP status that it has before a stream begins.\n\n{}",
                lines.join("\n")
            )))
            .enum_values(Some(ErrorCode::ALL.map(ErrorCode::name)))
            .into()
    }
}

impl ToSchema for Code {
    fn name() -> std::borrow::Cow<'static, str> {
        "ErrorCode".into()
    }
}

/// For people who write clients.
fn meaning(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::InvalidRequest => "the request is wrong; `details` and `message` say where.",
        ErrorCode::ContextLengthExceeded => "the prompt leaves no room for a token.",
        ErrorCode::JobExists => "a job of this `job_id` is in flight.",
        ErrorCode::QueueFull => {
            "no room: queue, connections, memory for bodies, or readers of a job."
        }
        ErrorCode::Draining => "the service is stopping.",
        ErrorCode::WorkerUnavailable => "still loading, or workers can't be kept alive.",
        ErrorCode::InsufficientVram => {
            "the model does not fit the device; the service does not start."
        }
        ErrorCode::VramOom => "no memory for this job's KV cache; other jobs go on.",
        ErrorCode::CudaError => "no driver or no such device; the service does not start.",
        ErrorCode::ModelLoadFailed => "the model can't be loaded; the service does not start.",
        ErrorCode::Internal => "a bug, a chat template that fails, or logits that are not finite.",
        ErrorCode::InferenceTimeout => "the deadline, or `--inference-timeout-sec`, passed.",
        ErrorCode::Cancelled => {
            "by `/cancel`, a reader that left or was too slow, a stop, or for want of memory."
        }
        ErrorCode::WorkerCrashed => {
            "the job was a suspect in several losses of a worker, and is not tried again."
        }
        ErrorCode::ReplayDiverged => "a replayed token came out differently; nothing was spliced.",
        ErrorCode::InsufficientMemory => {
            "the model does not fit the memory of a CPU's worker; the service does not start."
        }
        ErrorCode::Unauthorized => "no key, or an invalid one.",
        ErrorCode::ForbiddenOrigin => "an `Origin` or `Host` that is not allowed.",
        ErrorCode::FingerprintMismatch => {
            "`resume` is of another fingerprint or another request; another service may take it."
        }
        ErrorCode::RateLimited => {
            "more requests a second than `--max-requests-per-sec` allows a client."
        }
    }
}

/// The schemas of an error's body.
pub(super) fn components(components: ComponentsBuilder) -> ComponentsBuilder {
    components
        .schema_from::<Code>()
        .schema_from::<Detail>()
        .schema_from::<Body<'_>>()
        .schema_from::<openai::ErrorBody<'_>>()
        .schema_from::<Whole>()
        .schema_from::<TokenLogprob>()
        .schema_from::<TopLogprob>()
        .schema_from::<JobEvent>()
        .schema_from::<Report<'_>>()
        .schema_from::<TemplateStatus>()
        .response(
            "UnknownPath",
            answer(
                404,
                &[ErrorCode::InvalidRequest],
                "Any path that is not in this document.",
            ),
        )
        .response(
            "OtherMethod",
            ResponseBuilder::from(answer(
                405,
                &[ErrorCode::InvalidRequest],
                "Any other method on a path of this document.",
            ))
            .header_ref("Allow", header("Allow")),
        )
}

/// The errors of `route`, by their statuses.
pub(super) fn of_route(
    route: &Route,
    description: &Description,
    instance: &Instance,
) -> BTreeMap<String, RefOr<Response>> {
    let mut by_status: BTreeMap<u16, Vec<ErrorCode>> = BTreeMap::new();
    let mut add = |status: u16, code| {
        let codes = by_status.entry(status).or_default();
        if !codes.contains(&code) {
            codes.push(code);
        }
    };
    for code in OF_ALL.iter().chain(description.errors) {
        add(code.http_status(), *code);
    }
    for status in INVALID_OF_ALL.iter().chain(description.invalid) {
        add(*status, ErrorCode::InvalidRequest);
    }
    if !route.is_probe {
        // Connections run out for all but probes.
        add(ErrorCode::QueueFull.http_status(), ErrorCode::QueueFull);
    }
    if !route.is_open() && instance.asks_for_key {
        add(
            ErrorCode::Unauthorized.http_status(),
            ErrorCode::Unauthorized,
        );
    }
    let answers = by_status.into_iter().map(|(status, codes)| {
        let names: Vec<_> = codes.iter().map(|code| format!("`{code}`")).collect();
        let text = names.join(", ");
        let response = match openai::is_asked_at(route.path) {
            true => openai_answer(status, &codes, &text),
            false => answer(status, &codes, &text),
        };
        (status.to_string(), response.into())
    });
    answers.collect()
}

/// An error's answer: one of `codes`, under `status`.
fn answer(status: u16, codes: &[ErrorCode], text: &str) -> Response {
    let names: Vec<_> = codes.iter().map(|code| code.name()).collect();
    let one_of = json!({"error": {"properties": {"code": {"enum": names}}}});
    let mut narrowed = ObjectBuilder::new().build();
    narrowed.extensions = Some(Extensions::from_iter([("properties", one_of)]));
    let schema = AllOfBuilder::new()
        .item(Ref::from_schema_name(Body::name()))
        .item(narrowed);
    with_headers(status, codes, common::response(text, json_content(schema)))
}

/// The same in OpenAI's form.
fn openai_answer(status: u16, codes: &[ErrorCode], text: &str) -> Response {
    let schema = Ref::from_schema_name(openai::ErrorBody::name());
    with_headers(status, codes, common::response(text, json_content(schema)))
}

fn with_headers(status: u16, codes: &[ErrorCode], mut response: ResponseBuilder) -> Response {
    if codes.iter().all(|code| has_retry_after(*code)) {
        response = response.header_ref("Retry-After", header("Retry-After"));
    }
    if status == ErrorCode::Unauthorized.http_status() {
        response = response.header_ref("WWW-Authenticate", header("WWW-Authenticate"));
    }
    response
        .header_ref("Connection", header("Connection"))
        .build()
}
