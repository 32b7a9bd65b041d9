//! The HTTP side: one route per file. Handlers check what came in, hand it to the dispatcher
//! through [`JobsHandle`], and write what comes back; none of them touches a device, or holds a
//! lock for longer than it takes to copy an event.

pub mod access;
pub mod body;
pub mod correlation;
pub mod deadline;
mod demo;
pub mod error;
mod frames;
mod generate;
pub mod json;
mod openai;
mod openapi;
mod outputs;
mod page;
mod rate;
mod routes;
pub mod server;
pub mod sse;
pub mod validate;
mod whole;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use http::StatusCode;
use orcd_shared::error::ErrorCode;
use orcd_shared::protocol::message::Device;
use orcd_shared::sampling::SamplingParams;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, SamplingFlags, Switch};
use crate::jobs::{JobsHandle, Rejection, admission};
use crate::metrics::Metrics;
use crate::model::Model;
use crate::trial::Trials;
use crate::worker::process::worker_binary;
use error::ApiError;
pub use routes::last_event_id;

/// What all handlers share.
#[derive(Debug)]
pub struct App {
    /// Set once the model's text side is there; until then only health is answered.
    service: OnceLock<Service>,
    metrics: Arc<Metrics>,
    /// Cancelled when the service is asked to stop.
    draining: CancellationToken,
    started: Instant,
    device: Device,
    queue: usize,
    max_tokens_out: u32,
    /// Names of the model, at least one.
    names: Arc<[String]>,
    /// When the service was started, seconds since 1970.
    created: u64,
    /// What was set of the defaults of sampling.
    sampling: SamplingFlags,
    /// Whether jobs share KV pages at all.
    prefix_cache: Switch,
    inference_timeout: Duration,
    guard: Arc<access::Guard>,
    page: page::Page,
    /// What `--demo` brings.
    demo: Option<demo::Demo>,
    /// The OpenAPI document, once the model's part of it is known.
    document: OnceLock<bytes::Bytes>,
    /// Prompts being checked and tokenized: work for the CPU, so no more of it than cores.
    preparing: Arc<Semaphore>,
    /// What finds out whether a constraint can be used.
    trials: Trials,
    /// How often each client may ask.
    rates: Arc<rate::Rates>,
    /// Memory for bodies.
    bodies: body::Budget,
    /// The same for requests that control the service, so that they are served when it is overrun.
    control_bodies: body::Budget,
}

/// What takes jobs.
#[derive(Debug)]
struct Service {
    jobs: JobsHandle,
    model: Arc<Model>,
    /// Sampling of requests that say nothing of it.
    defaults: SamplingParams,
}

impl App {
    /// The state of a service at `address` that has yet to load its model. `draining` is cancelled
    /// by `POST /shutdown` and by whoever else ends the service.
    #[must_use]
    pub fn new(
        config: &Config,
        address: SocketAddr,
        metrics: Arc<Metrics>,
        draining: CancellationToken,
    ) -> Arc<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Arc::new(Self {
            service: OnceLock::new(),
            metrics,
            draining,
            started: Instant::now(),
            device: config.device,
            queue: config.flags.queue,
            max_tokens_out: config.flags.max_tokens_out,
            names: config.model_names().into(),
            sampling: config.flags.sampling,
            prefix_cache: config.flags.prefix_cache,
            created: openai::now(),
            inference_timeout: config.flags.inference_timeout,
            guard: Arc::new(config.access.guard(&config.host, address)),
            rates: Arc::new(rate::Rates::of(config.flags.max_requests_per_sec)),
            page: page::Page::new(),
            demo: config.flags.demo.then(demo::Demo::new),
            document: OnceLock::new(),
            preparing: Arc::new(Semaphore::new(cores)),
            trials: Trials::new(worker_binary(config.worker_bin.as_deref())),
            bodies: body::Budget::default(),
            control_bodies: body::Budget::of_control(server::MAX_CONNECTIONS),
        })
    }

    /// Reads files of keys again when they change, for as long as it is polled.
    pub fn watch_keys(&self) -> impl Future<Output = ()> + Send + use<> {
        access::watch(Arc::clone(&self.guard))
    }

    /// From now on jobs go to `jobs`. Only the first call counts.
    pub fn serve(&self, jobs: JobsHandle, model: Arc<Model>) {
        let mut defaults = self.sampling.over(model.recommended_sampling());
        defaults.top_k = defaults.top_k.min(model.vocab_size());
        let _ = self.service.set(Service {
            jobs,
            model,
            defaults,
        });
    }

    fn service(&self) -> Result<&Service, ApiError> {
        self.service.get().ok_or_else(|| {
            ApiError::new(
                ErrorCode::WorkerUnavailable,
                "the model's tokenizer is being loaded",
            )
        })
    }
}

impl App {
    /// What takes jobs, if it would take one now.
    fn service_with_room(&self) -> Result<&Service, ApiError> {
        let service = self.service()?;
        // What /health says already, the dispatcher may not have heard yet.
        if self.draining.is_cancelled() {
            return Err(Rejection::stopped().into());
        }
        admission::foresee(&service.jobs.snapshot(), self.queue)?;
        Ok(service)
    }
}

/// All routes.
pub fn router(app: Arc<App>) -> Router {
    routes::add_all(Router::new(), app.demo.is_some())
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        // `body` has its own limit, with its own answer.
        .layer(DefaultBodyLimit::disable())
        .layer(axum::middleware::from_fn_with_state(
            (Arc::clone(&app.guard), Arc::clone(&app.rates)),
            access::admit,
        ))
        .layer(axum::middleware::from_fn(server::reserve_for_probes))
        .layer(axum::middleware::from_fn(server::answer_bad_head))
        .layer(axum::middleware::from_fn_with_state(
            Arc::clone(&app.metrics),
            correlation::correlate,
        ))
        .with_state(app)
}

async fn not_found(State(app): State<Arc<App>>, request: Request) -> ApiError {
    let list = routes::list(app.demo.is_some());
    let message = format!("no such path; there are {list}");
    let error = ApiError::invalid_with(StatusCode::NOT_FOUND, message);
    let (parts, body) = request.into_parts();
    body::pass_over(&parts, body, error).await
}

async fn method_not_allowed(request: Request) -> ApiError {
    let message = "method not allowed; the header Allow names those that are";
    let error = ApiError::invalid_with(StatusCode::METHOD_NOT_ALLOWED, message);
    let (parts, body) = request.into_parts();
    body::pass_over(&parts, body, error).await
}
