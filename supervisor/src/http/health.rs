//! `GET /health`, `/health/live` and `/health/ready`, from what the dispatcher last published: no
//! device, no worker and no lock is in the way of the answer.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use orcd_shared::protocol::message::{Device, LoadSource};
use serde::Serialize;

use super::{App, server};
use crate::jobs::admission::has_room;
use crate::jobs::{ServiceState, Snapshot};
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
    Json(Brief { status: "live" }).into_response()
}

/// Answers `GET /health/ready`.
pub(super) async fn ready(State(app): State<Arc<App>>, request: Request) -> Response {
    if server::is_for_probes_only(&request) {
        let status = "no connection free";
        return (StatusCode::SERVICE_UNAVAILABLE, Json(Brief { status })).into_response();
    }
    let snapshot = app.service.get().map(|service| service.jobs.snapshot());
    let condition = condition(snapshot.as_deref(), app.draining.is_cancelled());
    let has_room = snapshot.is_some_and(|snapshot| has_room(&snapshot, app.queue));
    let (status, code) = match condition {
        Condition::Healthy | Condition::Recovering if has_room => ("ready", StatusCode::OK),
        Condition::Healthy | Condition::Recovering => {
            ("queue full", StatusCode::SERVICE_UNAVAILABLE)
        }
        other => (other.status().0, StatusCode::SERVICE_UNAVAILABLE),
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
    /// The worker's process is there, but its engine stands still.
    Stalled,
    Unhealthy,
}

impl Condition {
    /// Its `status` and the HTTP status.
    fn status(self) -> (&'static str, StatusCode) {
        match self {
            Self::Starting => ("starting", StatusCode::SERVICE_UNAVAILABLE),
            Self::Healthy => ("healthy", StatusCode::OK),
            Self::Recovering => ("recovering", StatusCode::OK),
            Self::Draining => ("draining", StatusCode::SERVICE_UNAVAILABLE),
            Self::Stalled | Self::Unhealthy => ("unhealthy", StatusCode::SERVICE_UNAVAILABLE),
        }
    }

    /// Its `state`: what is behind the status.
    fn state(self) -> &'static str {
        match self {
            Self::Starting => "loading",
            Self::Healthy => "ready",
            Self::Recovering => "restarting_worker",
            Self::Draining => "draining",
            Self::Stalled => "stalled",
            Self::Unhealthy => "worker_lost",
        }
    }
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

#[derive(Serialize)]
struct Brief {
    status: &'static str,
}

/// What health knows besides the snapshot.
struct About<'a> {
    device: Device,
    model: Option<&'a Model>,
    uptime: Duration,
}

/// The body of `GET /health`. What only a worker can say is null before the first was ready.
#[derive(Debug, Serialize)]
struct Report<'a> {
    status: &'static str,
    state: &'static str,
    model: Option<&'a str>,
    /// Of the model file's content, as the worker read it.
    model_hash: Option<String>,
    device: String,
    device_name: Option<&'a str>,
    backend: &'static str,
    resident: bool,
    quant_kind: Option<&'a str>,
    vram_bytes_used: u64,
    vram_bytes_total: u64,
    tokenizer_kind: Option<&'static str>,
    chat_template: Option<TemplateStatus>,
    vocab_size: Option<u32>,
    context_length: Option<u32>,
    uptime_seconds: u64,
    worker: WorkerReport<'a>,
    standby: bool,
    standby_worker: Option<StandbyReport>,
    jobs: Jobs,
    load_percent: u8,
    load_source: Option<LoadSource>,
    sm: Option<&'a str>,
    cuda_runtime_version: Option<&'a str>,
    version: &'static str,
}

#[derive(Debug, Serialize)]
struct WorkerReport<'a> {
    pid: Option<u32>,
    generation: u64,
    restarts: u64,
    last_exit: Option<&'a str>,
}

/// The worker that waits to take over, or is on its way there.
#[derive(Debug, Serialize)]
struct StandbyReport {
    pid: Option<u32>,
    ready: bool,
    /// What it takes beside the shared weights.
    vram_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Jobs {
    running: u32,
    queued: u32,
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
