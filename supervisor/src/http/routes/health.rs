//! `GET /health`, `/health/live` and `/health/ready`, from what the dispatcher last published: no
//! device, no worker and no lock is in the way of the answer.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use orcd_shared::kv::PAGE_TOKENS;
use orcd_shared::protocol::message::{Device, LoadSource};
use serde::Serialize;
use serde_json::json;
use utoipa::openapi::path::OperationBuilder;
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType, Type};
use utoipa::{PartialSchema, ToSchema};

use super::super::openapi::{self, Description, Instance};
use super::super::{App, server};
use crate::jobs::admission::has_room;
use crate::jobs::{KvPages, ServiceState, Snapshot};
use crate::model::Model;
use crate::text::TemplateStatus;

/// Answers `GET /health`.
pub(super) async fn health(State(app): State<Arc<App>>) -> Response {
    let service = app.service.get();
    let snapshot = service.map(|service| service.jobs.snapshot());
    let condition = condition(snapshot.as_deref(), app.draining.is_cancelled());
    let about = About {
        device: app.device,
        model: service.map(|service| &*service.model),
        uptime: app.started.elapsed(),
    };
    let report = report(snapshot.as_deref(), condition, &about);
    (condition.status().1, Json(report)).into_response()
}

/// Answers `GET /health/live`: whoever can answer is alive.
pub(super) async fn live() -> Response {
    Json(Life { status: Live::Live }).into_response()
}

/// Answers `GET /health/ready`.
pub(super) async fn ready(State(app): State<Arc<App>>, request: Request) -> Response {
    if server::is_for_probes_only(&request) {
        let status = Readiness::NoConnectionFree;
        return (StatusCode::SERVICE_UNAVAILABLE, Json(Brief { status })).into_response();
    }
    let snapshot = app.service.get().map(|service| service.jobs.snapshot());
    let condition = condition(snapshot.as_deref(), app.draining.is_cancelled());
    let has_room = snapshot.is_some_and(|snapshot| has_room(&snapshot, app.queue));
    let (status, code) = match condition {
        Condition::Healthy | Condition::Recovering if has_room => {
            (Readiness::Ready, StatusCode::OK)
        }
        Condition::Healthy | Condition::Recovering => {
            (Readiness::QueueFull, StatusCode::SERVICE_UNAVAILABLE)
        }
        Condition::Starting => (Readiness::Starting, StatusCode::SERVICE_UNAVAILABLE),
        Condition::Draining => (Readiness::Draining, StatusCode::SERVICE_UNAVAILABLE),
        Condition::Stalled | Condition::Unhealthy => {
            (Readiness::Unhealthy, StatusCode::SERVICE_UNAVAILABLE)
        }
    };
    (code, Json(Brief { status })).into_response()
}

/// The service as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Starting,
    Healthy,
    Recovering,
    Draining,
    /// The worker's process is there, but its engine is stalled.
    Stalled,
    Unhealthy,
}

impl Condition {
    /// Its `status` and the HTTP status.
    fn status(self) -> (Status, StatusCode) {
        match self {
            Self::Starting => (Status::Starting, StatusCode::SERVICE_UNAVAILABLE),
            Self::Healthy => (Status::Healthy, StatusCode::OK),
            Self::Recovering => (Status::Recovering, StatusCode::OK),
            Self::Draining => (Status::Draining, StatusCode::SERVICE_UNAVAILABLE),
            Self::Stalled | Self::Unhealthy => (Status::Unhealthy, StatusCode::SERVICE_UNAVAILABLE),
        }
    }

    /// Its `state`, from which the status follows.
    fn state(self) -> StateName {
        match self {
            Self::Starting => StateName::Loading,
            Self::Healthy => StateName::Ready,
            Self::Recovering => StateName::RestartingWorker,
            Self::Draining => StateName::Draining,
            Self::Stalled => StateName::Stalled,
            Self::Unhealthy => StateName::WorkerLost,
        }
    }
}

/// How the service is.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Status {
    Starting,
    Healthy,
    Recovering,
    Draining,
    Unhealthy,
}

/// The state that the status follows from.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum StateName {
    Loading,
    Ready,
    RestartingWorker,
    Draining,
    Stalled,
    WorkerLost,
}

/// Whether a job sent now would be accepted.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Readiness {
    Ready,
    #[serde(rename = "queue full")]
    QueueFull,
    #[serde(rename = "no connection free")]
    NoConnectionFree,
    Starting,
    Draining,
    Unhealthy,
}

/// The only thing that who answers at all can say of its life.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Live {
    Live,
}

fn condition(snapshot: Option<&Snapshot>, asked_to_stop: bool) -> Condition {
    if asked_to_stop {
        return Condition::Draining;
    }
    let Some(snapshot) = snapshot else {
        return Condition::Starting;
    };
    match snapshot.state {
        ServiceState::Starting { .. } => Condition::Starting,
        ServiceState::Ready if snapshot.stalled => Condition::Stalled,
        ServiceState::Ready => Condition::Healthy,
        ServiceState::Recovering => Condition::Recovering,
        ServiceState::Draining => Condition::Draining,
        ServiceState::Unhealthy => Condition::Unhealthy,
    }
}

#[derive(Serialize, ToSchema)]
struct Brief {
    #[schema(inline)]
    status: Readiness,
}

#[derive(Serialize, ToSchema)]
struct Life {
    #[schema(inline)]
    status: Live,
}

/// What health knows besides the snapshot.
struct About<'a> {
    device: Device,
    model: Option<&'a Model>,
    uptime: Duration,
}

/// The body of `GET /health`. What only a worker can say is null (or 0) before the first was ready.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Health)]
pub(in crate::http) struct Report<'a> {
    #[schema(inline)]
    status: Status,
    #[schema(inline)]
    state: StateName,
    /// The name that the file gives, or the file's name without its ending.
    #[schema(required = true)]
    model: Option<&'a str>,
    /// `blake3:` and the hash of the model file's content, as the worker read it.
    #[schema(required = true)]
    model_hash: Option<String>,
    /// `cpu` or `cuda:N`.
    #[schema(pattern = "^(cpu|cuda:[0-9]+)$")]
    device: String,
    /// For people.
    #[schema(required = true)]
    device_name: Option<&'a str>,
    #[schema(pattern = "^(cpu|cuda)$")]
    backend: &'static str,
    /// Every buffer was checked to be device memory; always false on the CPU.
    resident: bool,
    /// Such as `Q4_K_M`.
    #[schema(required = true)]
    quant_kind: Option<&'a str>,
    /// Weights, KV cache and scratch of the worker.
    vram_bytes_used: u64,
    /// Memory of the device; on the CPU of the machine.
    vram_bytes_total: u64,
    /// `gguf-bpe` or `gguf-spm`.
    #[schema(required = true)]
    tokenizer_kind: Option<&'static str>,
    /// `none`, `ok`, or why it fails: messages will fail then.
    #[schema(required = true)]
    chat_template: Option<TemplateStatus>,
    /// Tokens in the vocabulary.
    #[schema(required = true)]
    vocab_size: Option<u32>,
    /// Tokens of a sequence, prompt and output.
    #[schema(required = true)]
    context_length: Option<u32>,
    /// Since the service was started.
    uptime_seconds: u64,
    #[schema(inline)]
    worker: WorkerReport<'a>,
    /// A second worker could take over now.
    standby: bool,
    #[schema(required = true, inline)]
    standby_worker: Option<StandbyReport>,
    #[schema(inline)]
    jobs: Jobs,
    #[schema(inline)]
    kv: KvReport,
    /// Progress of the first load; 100 once a worker was ready.
    #[schema(maximum = 100)]
    load_percent: u8,
    /// `file`, or `handle`: the worker mapped what an earlier one left.
    #[schema(required = true, schema_with = load_source)]
    load_source: Option<LoadSource>,
    /// Compute capability, such as `9.0`; null on the CPU.
    #[schema(required = true)]
    sm: Option<&'a str>,
    /// Such as `13.0`; null on the CPU.
    #[schema(required = true)]
    cuda_runtime_version: Option<&'a str>,
    /// Of the program.
    version: &'static str,
}

/// The memory for keys and values, which all jobs share.
#[derive(Debug, Serialize, ToSchema)]
struct KvReport {
    /// Positions of a page.
    page_tokens: u32,
    pages: u32,
    /// Those that running jobs hold.
    pages_used: u32,
    /// Those that nobody holds, kept because a prompt may begin with what is in them. Whoever needs one takes it.
    pages_cached: u32,
    /// Those that hold nothing.
    pages_free: u32,
    /// How often a running job gave its pages to older ones, to go on later.
    preemptions: u64,
}

impl KvReport {
    fn of(snapshot: Option<&Snapshot>) -> Self {
        let pages = snapshot.map_or_else(KvPages::default, Snapshot::kv_pages);
        Self {
            page_tokens: PAGE_TOKENS,
            pages: pages.all,
            pages_used: pages.used,
            pages_cached: pages.cached,
            pages_free: pages.free,
            preemptions: snapshot.map_or(0, |s| s.preemptions),
        }
    }
}

/// The present worker.
#[derive(Debug, Serialize, ToSchema)]
struct WorkerReport<'a> {
    #[schema(required = true)]
    pid: Option<u32>,
    /// Its number; workers are counted from 1, standbys too.
    generation: u64,
    /// Workers lost so far.
    restarts: u64,
    /// How the last lost one ended, such as `exit 12` or `signal 9 (SIGKILL)`.
    #[schema(required = true)]
    last_exit: Option<&'a str>,
}

/// The worker that waits to take over, or is on its way there.
#[derive(Debug, Serialize, ToSchema)]
struct StandbyReport {
    #[schema(required = true)]
    pid: Option<u32>,
    ready: bool,
    /// What it takes beside the shared weights.
    vram_bytes: u64,
}

#[derive(Debug, Serialize, ToSchema)]
struct Jobs {
    /// Given to a worker, held for its successor included.
    running: u32,
    /// Waiting.
    queued: u32,
}

/// The schema of a [`LoadSource`], whose crate knows nothing of HTTP's documents.
fn load_source() -> Schema {
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::String, Type::Null]))
        .enum_values(Some([
            json!(LoadSource::File),
            json!(LoadSource::Handle),
            json!(null),
        ]))
        .into()
}

/// What the OpenAPI document says of `GET /health`.
pub(super) fn describe(_: &Instance) -> Description {
    let report = || openapi::json(openapi::reference::<Report<'_>>());
    Description {
        operation: OperationBuilder::new()
            .operation_id(Some("health"))
            .summary(Some("The state of the service and of its worker"))
            .description(Some(
                "Answered from a published snapshot: nothing waits for a device or a worker. Needs no key.",
            ))
            .response(
                "200",
                openapi::response("`healthy`; or `recovering`: jobs are taken and held for the next worker.", report()),
            )
            .response(
                "503",
                openapi::response("`starting`, `draining`, or `unhealthy` (`stalled`, `worker_lost`).", report()),
            ),
        errors: &[],
        invalid: &[],
    }
}

/// What it says of `GET /health/live`.
pub(super) fn describe_live(_: &Instance) -> Description {
    let answer = openapi::json(Life::schema());
    Description {
        operation: OperationBuilder::new()
            .operation_id(Some("live"))
            .summary(Some("Whether the service runs"))
            .description(Some("Always 200. Needs no key."))
            .response("200", openapi::response("It does.", answer)),
        errors: &[],
        invalid: &[],
    }
}

/// What it says of `GET /health/ready`.
pub(super) fn describe_ready(_: &Instance) -> Description {
    let answer = || openapi::json(Brief::schema());
    Description {
        operation: OperationBuilder::new()
            .operation_id(Some("ready"))
            .summary(Some("Whether a job sent now would be accepted"))
            .description(Some("Needs no key."))
            .response("200", openapi::response("`ready`.", answer()))
            .response("503", openapi::response("Why not.", answer())),
        errors: &[],
        invalid: &[],
    }
}

fn report<'a>(
    snapshot: Option<&'a Snapshot>,
    condition: Condition,
    about: &About<'a>,
) -> Report<'a> {
    let info = snapshot.and_then(|s| s.worker.as_deref());
    Report {
        status: condition.status().0,
        state: condition.state(),
        model: about.model.map(Model::name),
        model_hash: info.map(|i| i.model_hash.to_string()),
        device: about.device.to_string(),
        device_name: info.map(|i| i.device_name.as_str()),
        backend: about.device.backend(),
        resident: info.is_some_and(|i| i.resident),
        quant_kind: info.map(|i| i.quant_kind.as_str()),
        vram_bytes_used: info.map_or(0, |i| i.memory_used),
        vram_bytes_total: info.map_or(0, |i| i.memory_total),
        tokenizer_kind: about.model.map(Model::tokenizer_kind),
        chat_template: about.model.map(|model| model.text().template_status()),
        vocab_size: about.model.map(Model::vocab_size),
        context_length: info.map(|i| i.context),
        uptime_seconds: about.uptime.as_secs(),
        worker: WorkerReport {
            pid: snapshot.and_then(|s| s.worker_pid),
            generation: snapshot.map_or(0, |s| s.generation),
            restarts: snapshot.map_or(0, |s| s.restarts),
            last_exit: snapshot.and_then(|s| s.last_exit.as_deref()),
        },
        standby: snapshot
            .and_then(|s| s.standby)
            .is_some_and(|standby| standby.ready),
        standby_worker: snapshot
            .and_then(|s| s.standby)
            .map(|standby| StandbyReport {
                pid: standby.pid,
                ready: standby.ready,
                vram_bytes: standby.memory_bytes,
            }),
        jobs: Jobs {
            running: snapshot.map_or(0, |s| s.running),
            queued: snapshot.map_or(0, |s| s.queued),
        },
        kv: KvReport::of(snapshot),
        load_percent: load_percent(snapshot),
        load_source: info.map(|i| i.load_source),
        sm: info.and_then(|i| i.compute_capability.as_deref()),
        cuda_runtime_version: info.and_then(|i| i.runtime_version.as_deref()),
        version: env!("CARGO_PKG_VERSION"),
    }
}

/// Progress of the first load; 100 once a worker was ready.
fn load_percent(snapshot: Option<&Snapshot>) -> u8 {
    match snapshot.map(|s| (s.state, &s.worker)) {
        Some((ServiceState::Starting { percent }, _)) => percent,
        Some((_, Some(_))) => 100,
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
