//! The service from its listener to its end.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use orcd_shared::error::ErrorCode;
use orcd_shared::exit::supervisor as exit;
use orcd_shared::protocol::message::LoadRequest;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinError, JoinHandle, spawn_blocking};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::advice;
use crate::callback::{self, Announcement};
use crate::config::{Config, Switch};
use crate::crash_dir::CrashDir;
use crate::http::access::is_loopback;
use crate::http::{self, App};
use crate::jobs::dispatcher::{
    self, Bounds, DispatcherSettings, DispatcherTask, FleetSettings, Outcome, Policy, Timing,
};
use crate::jobs::{JobsHandle, ServiceState, Snapshot};
use crate::memory;
use crate::metrics::Metrics;
use crate::model::{Model, ModelError, ModelHeader};
use crate::signals::Shutdown;
use crate::systemd::{
    FdStore, ImageLocation, LivenessProbe, Manager, Notifier, Passed, PoolSizing, PoolTerms,
    Report, StoreTerms, feed_watchdog,
};
use crate::worker::process::worker_binary;
use crate::worker::retained::Retained;

/// From a second SIGINT to the end of the process, also if clients don't take what is left for them.
const ABORT_LIMIT: Duration = Duration::from_secs(1);

/// The text side while it is built.
type Building = JoinHandle<Result<Model, RunError>>;

/// How a service ends that was not asked to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// It never became ready, or could not say so.
    #[error("error: {code}: {message}")]
    Startup {
        /// One of [`ErrorCode`]'s names, or `LISTEN_FAILED`, `CALLBACK_FAILED`.
        code: &'static str,
        /// What failed and what to do.
        message: String,
    },
    /// It may not be run as the command line has it.
    #[error("error: USAGE: {message}")]
    Usage {
        /// Why not, and what to do.
        message: String,
    },
    /// The worker could not be kept alive.
    #[error("error: {}: {message}", ErrorCode::WorkerUnavailable)]
    WorkerLost {
        /// How often it was tried, and the last end.
        message: String,
    },
}

impl RunError {
    fn startup(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::Startup {
            code: code.name(),
            message: message.into(),
        }
    }

    fn internal(message: String) -> Self {
        Self::startup(ErrorCode::Internal, message)
    }

    /// No runtime.
    #[must_use]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "that is what `map_err` gives"
    )]
    pub fn no_threads(error: std::io::Error) -> Self {
        Self::internal(format!("no threads: {error}"))
    }

    /// No handlers of signals.
    #[must_use]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "that is what `map_err` gives"
    )]
    pub fn no_signals(error: std::io::Error) -> Self {
        Self::internal(format!("signal handlers can't be installed: {error}"))
    }

    /// The process's exit code.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Startup { .. } => exit::STARTUP_FAILED,
            Self::Usage { .. } => exit::USAGE,
            Self::WorkerLost { .. } => exit::WORKER_LOST,
        }
    }
}

impl From<JoinError> for RunError {
    /// A task that panicked is our fault.
    fn from(error: JoinError) -> Self {
        Self::internal(error.to_string())
    }
}

/// Opens the listener, or takes the one that systemd passed.
///
/// # Errors
/// The address is wrong or taken, or what was passed can't be listened on; or it lets in whom nobody
/// said may come in.
pub async fn bind(config: &Config, manager: &mut Manager) -> Result<TcpListener, RunError> {
    for warning in &config.access_warnings {
        tracing::warn!("{warning}");
    }
    let listener = listen(config, manager).await?;
    admit(config, &listener)?;
    Ok(listener)
}

/// Opens the listener that `config` has, closes it, and says where it was.
///
/// # Errors
/// As [`bind`].
pub(crate) async fn try_address(config: &Config) -> Result<SocketAddr, RunError> {
    let listener = listen_at(config).await?;
    admit(config, &listener)
}

/// Where `listener` is, if the service may be there.
fn admit(config: &Config, listener: &TcpListener) -> Result<SocketAddr, RunError> {
    let address = local_address(listener)?;
    config
        .access
        .suffices_at(address)
        .and_then(|()| may_demonstrate(config, address))
        .map_err(|message| RunError::Usage { message })?;
    Ok(address)
}

/// Whether `--demo`, if it is given, may be at this address.
fn may_demonstrate(config: &Config, address: SocketAddr) -> Result<(), String> {
    if !config.flags.demo || is_loopback(address) {
        return Ok(());
    }
    Err(format!(
        "--demo lets whoever sees the page kill the worker, and listening on {address} lets other \
         machines in; listen on 127.0.0.1, or leave --demo out"
    ))
}

fn local_address(listener: &TcpListener) -> Result<SocketAddr, RunError> {
    listener
        .local_addr()
        .map_err(|error| no_listener(error.to_string()))
}

/// Nothing can be listened on.
fn no_listener(message: String) -> RunError {
    RunError::Startup {
        code: "LISTEN_FAILED",
        message,
    }
}

async fn listen(config: &Config, manager: &mut Manager) -> Result<TcpListener, RunError> {
    let failed = no_listener;
    let passed = manager.take_listener().map_err(|e| failed(e.to_string()))?;
    if let Some(listener) = passed {
        advice::log_passed_socket(config, &listener);
        return TcpListener::from_std(listener).map_err(|e| failed(e.to_string()));
    }
    listen_at(config).await
}

async fn listen_at(config: &Config) -> Result<TcpListener, RunError> {
    TcpListener::bind((config.host.as_str(), config.port))
        .await
        .map_err(|error| {
            no_listener(format!(
                "--host {} --port {}: {error}; give an address of this machine and a free port, or \
                 --port 0",
                config.host, config.port
            ))
        })
}

/// Who hears that jobs are accepted.
#[derive(Debug, Clone)]
pub enum Ready {
    /// The line `READY` goes to stdout.
    Line,
    /// This is cancelled.
    Signal(CancellationToken),
}

/// Serves until `shutdown`, or until there can be no worker. Health is answered from the start,
/// jobs once a worker is ready, which is when `ready` says so.
///
/// # Errors
/// [`RunError`].
pub async fn run(
    config: Config,
    listener: TcpListener,
    manager: Manager,
    shutdown: Shutdown,
    ready: Ready,
) -> Result<(), RunError> {
    tokio::select! {
        result = run_to_end(config, listener, manager, shutdown.clone(), ready) => result,
        () = overdue(&shutdown) => Ok(()),
    }
}

/// Waits until a stop that is to be at once has taken too long, or nobody wants to wait for it.
async fn overdue(shutdown: &Shutdown) {
    shutdown.abort.cancelled().await;
    tokio::select! {
        () = tokio::time::sleep(ABORT_LIMIT) => tracing::warn!("streams were cut"),
        () = shutdown.leave.cancelled() => {}
    }
}

async fn run_to_end(
    config: Config,
    listener: TcpListener,
    mut manager: Manager,
    shutdown: Shutdown,
    ready: Ready,
) -> Result<(), RunError> {
    let metrics = Arc::new(Metrics::new());
    metrics.runs_on(config.device.backend());
    let address = local_address(&listener)?;
    let drain = shutdown.drain.clone();
    let app = App::new(&config, address, Arc::clone(&metrics), drain);
    tokio::spawn(app.watch_keys());
    let stop_serving = CancellationToken::new();
    let router = http::router(Arc::clone(&app));
    let serving = http::server::serve(listener, router.clone(), stop_serving.clone());
    let server = tokio::spawn(serving);
    let notifier = manager.notifier();
    let service = Service {
        config,
        app,
        address,
        ready,
        metrics,
        drain: shutdown.drain,
        abort: shutdown.abort,
        notifier: notifier.clone(),
        passed: manager.take_others(),
        watchdog: manager.watchdog(),
        router,
        accepting: server.abort_handle(),
        stop_serving: stop_serving.clone(),
    };
    let result = service.live().await;
    let failure = result.as_ref().err().map(ToString::to_string);
    let closing = Report::closing(failure.as_deref());
    notifier.notify(&closing, &[]).await;
    // All streams have their last event by now; what remains is to write it.
    stop_serving.cancel();
    let _ = server.await;
    result
}

struct Service {
    config: Config,
    app: Arc<App>,
    address: SocketAddr,
    ready: Ready,
    metrics: Arc<Metrics>,
    drain: CancellationToken,
    abort: CancellationToken,
    notifier: Notifier,
    /// Descriptors that systemd kept for an earlier run.
    passed: Vec<Passed>,
    watchdog: Option<Duration>,
    router: Router,
    accepting: AbortHandle,
    stop_serving: CancellationToken,
}

impl Service {
    /// From loading to the dispatcher's end.
    async fn live(mut self) -> Result<(), RunError> {
        let opening = Report::opening(&self.model_name());
        self.notifier.notify(&opening, &[]).await;
        let store = self.open_store().await;
        let path = self.config.model.clone();
        let reading = self.unless_stopped(move || ModelHeader::read(&path).map_err(unfit));
        let Some(header) = reading.await? else {
            return Ok(());
        };
        if let Some(crashes) = self.config.crash_dir.clone() {
            let preparing = self.unless_stopped(move || prepare(&crashes));
            if preparing.await?.is_none() {
                return Ok(());
            }
        }
        let retained = Retained::starting_with(store.handles());
        let keeper = tokio::spawn(store.keep(retained.watch()));
        let settings = settings(&self.config, retained, header.end_tokens().to_vec());
        let (jobs, task) = dispatcher::start(settings, Arc::clone(&self.metrics));
        // Beside the worker's start: either takes a good part of a second.
        let overrides = self.config.text.clone();
        let building = spawn_blocking(move || header.build(&overrides).map_err(unfit));
        let result = self.supervise(jobs, task, building).await;
        clear_unconfirmed(keeper, &result).await;
        result
    }

    /// What `work` gives; `None` once the service is to stop: a file system may hang, which is to keep
    /// nobody from stopping it.
    async fn unless_stopped<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, RunError> + Send + 'static,
    ) -> Result<Option<T>, RunError> {
        tokio::select! {
            done = spawn_blocking(work) => joined(done).map(Some),
            () = self.drain.cancelled() => Ok(None),
        }
    }

    /// What an earlier run left with systemd.
    async fn open_store(&mut self) -> FdStore {
        let passed = std::mem::take(&mut self.passed);
        FdStore::open(self.notifier.clone(), store_terms(&self.config), passed).await
    }

    /// Keeps systemd informed until the dispatcher ends.
    fn report(&self, jobs: &JobsHandle) {
        if !self.notifier.is_there() {
            return;
        }
        let report = Report {
            notifier: self.notifier.clone(),
            jobs: jobs.clone(),
            drain: self.drain.clone(),
            model: self.model_name(),
            drain_timeout: self.config.flags.drain_timeout,
        };
        tokio::spawn(report.run());
        let Some(period) = self.watchdog else {
            return;
        };
        let probe = LivenessProbe {
            jobs: jobs.clone(),
            router: self.router.clone(),
            accepting: self.accepting.clone(),
        };
        tokio::spawn(feed_watchdog(self.notifier.clone(), period, probe));
    }

    fn model_name(&self) -> String {
        let name = self.config.model.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// Serves once the text side is there, and sees everything to its end.
    async fn supervise(
        self,
        jobs: JobsHandle,
        mut task: DispatcherTask,
        mut building: Building,
    ) -> Result<(), RunError> {
        let announced = self.announce(jobs.watch());
        let mut announced = std::pin::pin!(announced);
        // A worker can be ready before there is text.
        let (mut is_building, mut announcing) = (true, false);
        let (mut draining, mut aborting) = (false, false);
        let mut failure = Ok(());
        loop {
            tokio::select! {
                outcome = &mut task => {
                    let result = result_of(outcome);
                    // What is wrong with the file's text is reported whichever side was quicker.
                    let text = match &result {
                        Err(_) if is_building => joined(building.await).map(drop),
                        _ => Ok(()),
                    };
                    return failure.and(text).and(result);
                }
                built = &mut building, if is_building => {
                    is_building = false;
                    match joined(built) {
                        Ok(model) => {
                            for warning in model.warnings() {
                                tracing::warn!("{warning}");
                            }
                            let watch = memory::learn().await;
                            tokio::spawn(memory::keep_small(watch, self.stop_serving.clone()));
                            self.app.serve(jobs.clone(), Arc::new(model));
                            self.report(&jobs);
                            announcing = !draining;
                        }
                        Err(error) => {
                            failure = Err(error);
                            self.drain.cancel();
                        }
                    }
                }
                result = &mut announced, if announcing => {
                    announcing = false;
                    if result.is_err() {
                        failure = result;
                        self.drain.cancel();
                    }
                }
                () = self.drain.cancelled(), if !draining => {
                    draining = true;
                    // Nobody is to be notified of a service that stops.
                    announcing = false;
                    jobs.drain().await;
                }
                () = self.abort.cancelled(), if !aborting => {
                    aborting = true;
                    jobs.abort().await;
                }
            }
        }
    }

    /// Waits for the first ready worker and notifies whoever wants to know.
    async fn announce(
        &self,
        mut snapshots: watch::Receiver<Arc<Snapshot>>,
    ) -> Result<(), RunError> {
        let ready = snapshots.wait_for(|s| s.state == ServiceState::Ready).await;
        let Ok(snapshot) = ready.map(|s| Arc::clone(&s)) else {
            // Without a dispatcher there is nothing to announce; its outcome says why.
            return Ok(());
        };
        let worker_id = self.config.worker_id;
        match &self.ready {
            Ready::Line => say_ready(self.address, worker_id),
            Ready::Signal(ready) => ready.cancel(),
        }
        tracing::info!(
            "requests are taken; the page is at http://{}/",
            self.address
        );
        let Some(url) = &self.config.callback_url else {
            return Ok(());
        };
        let announcement = Announcement {
            worker_id,
            model_ref: self.config.model.display().to_string(),
            vram_bytes: snapshot
                .worker
                .as_ref()
                .map_or(0, |worker| worker.memory_used),
            address: self.address,
        };
        callback::announce(url, &announcement)
            .await
            .map_err(|message| RunError::Startup {
                code: "CALLBACK_FAILED",
                message,
            })
    }
}

fn say_ready(address: SocketAddr, worker_id: Uuid) {
    let mut stdout = std::io::stdout().lock();
    // A closed stdout is no reason to stop: health says the same.
    let _ = writeln!(stdout, "READY http://{address} worker_id={worker_id}");
    let _ = stdout.flush();
}

/// What systemd may keep for the next run.
fn store_terms(config: &Config) -> StoreTerms {
    let flags = &config.flags;
    // Without the cache nobody would ever look for what an earlier run has computed.
    let pool = (flags.prefix_cache == Switch::On).then(|| PoolTerms {
        sizing: PoolSizing {
            context: flags.context,
            parallel: flags.parallel,
            kv: config.kv,
            standby: flags.standby,
        },
        program: worker_binary(config.worker_bin.as_deref()),
    });
    StoreTerms {
        place: ImageLocation::of(config.device),
        model: config.model.clone(),
        pool,
    }
}

/// Takes out of systemd's store on what no worker became ready: a start that fails on it would fail on it again. What is in
/// KV memory may be what workers were lost by.
async fn clear_unconfirmed(keeper: JoinHandle<FdStore>, result: &Result<(), RunError>) {
    // It ends with the dispatcher, which is over.
    let Ok(mut store) = keeper.await else {
        return;
    };
    match result {
        Err(RunError::Startup { .. }) => store.clear().await,
        Err(RunError::WorkerLost { .. }) => store.clear_pool().await,
        Ok(()) | Err(RunError::Usage { .. }) => {}
    }
}

fn result_of(outcome: Outcome) -> Result<(), RunError> {
    match outcome {
        Outcome::Stopped => Ok(()),
        Outcome::StartupFailed { code, message } => Err(RunError::startup(code, message)),
        Outcome::WorkerLost { message } => Err(RunError::WorkerLost { message }),
    }
}

fn prepare(crashes: &CrashDir) -> Result<(), RunError> {
    (crashes.prepare()).map_err(|error| no_crash_dir(crashes, &error))
}

/// Crash files can't be written.
pub(crate) fn no_crash_dir(crashes: &CrashDir, error: &std::io::Error) -> RunError {
    RunError::Startup {
        code: "CRASH_DIR",
        message: format!(
            "--crash-dir {}: {error}; give a directory that can be written to",
            crashes.path.display()
        ),
    }
}

/// Takes it by value: that is what `map_err` gives.
#[expect(clippy::needless_pass_by_value)]
pub(crate) fn unfit(error: ModelError) -> RunError {
    RunError::startup(ErrorCode::ModelLoadFailed, error.to_string())
}

/// What a task gave.
pub(crate) fn joined<T>(result: Result<Result<T, RunError>, JoinError>) -> Result<T, RunError> {
    result.unwrap_or_else(|error| Err(error.into()))
}

/// What a first worker is asked for.
pub(crate) fn load_request(config: &Config) -> LoadRequest {
    let flags = &config.flags;
    let model_path = config.model.to_string_lossy().into_owned();
    LoadRequest {
        context: flags.context,
        parallel: flags.parallel,
        threads: flags.threads,
        max_gap_ms: flags.max_gap_ms,
        kv: config.kv,
        ..LoadRequest::new(model_path, config.device)
    }
}

fn settings(config: &Config, retained: Retained, end_tokens: Vec<u32>) -> DispatcherSettings {
    let flags = &config.flags;
    DispatcherSettings {
        worker_bin: config.worker_bin.clone(),
        runtime_dir: config.runtime_dir.clone(),
        fleet: FleetSettings {
            load: LoadRequest {
                end_tokens,
                run: fastrand::u64(..),
                ..load_request(config)
            },
            retained,
            policy: Policy {
                max_restarts: flags.max_restarts,
                standby: flags.standby,
                ..Policy::default()
            },
            timing: Timing {
                hang: flags.hang_timeout,
                ..Timing::default()
            },
        },
        queue: flags.queue,
        resume_ttl: flags.resume_ttl,
        drain_timeout: flags.drain_timeout,
        crash_dir: config.crash_dir.clone(),
        version: crate::config::version(),
        bounds: Bounds::default(),
    }
}
