//! The dispatcher on a played worker: the test sees what the worker is told and says what the
//! worker says.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

use orcd_shared::job::{Finish, JobKey, JobSpec};
use orcd_shared::kv::{PageCounts, PoolManifest};
use orcd_shared::protocol::message::{
    Device, KvSize, LoadRequest, Serve, StepReport, StepToken, ToSupervisor, ToWorker, WorkerInfo,
};
use orcd_shared::weights::{ContentHash, ModelIdentity, WeightsManifest};
use orcd_supervisor::jobs::dispatcher::{
    Bounds, DispatcherSettings, DispatcherTask, FleetSettings, Outcome, Policy, Timing, start_on,
};
use orcd_supervisor::jobs::{
    JobEvent, JobStream, JobsHandle, NewJob, Numbered, ServiceState, Snapshot,
};
use orcd_supervisor::metrics::Metrics;
use orcd_supervisor::worker::handles::{Handover, PoolHandle, WeightsHandle};
use orcd_supervisor::worker::process::WorkerExit;
use orcd_supervisor::worker::retained::Retained;
use orcd_supervisor::worker::{EventSender, LinkClogged, WorkerEvent, WorkerHost, WorkerReport};
use tokio::sync::mpsc;

pub use super::samples::*;

/// Nothing here takes that long.
const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// What the dispatcher does to workers.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // there are few of them at a time
pub enum Call {
    Spawn(u64),
    Send(u64, ToWorker, Handover),
    Interrupt(u64),
    Kill(u64),
}

pub struct PlayedHost {
    calls: mpsc::UnboundedSender<Call>,
    clogged: Arc<AtomicBool>,
}

impl WorkerHost for PlayedHost {
    fn spawn(&mut self, generation: u64) {
        let _ = self.calls.send(Call::Spawn(generation));
    }

    fn send(
        &mut self,
        generation: u64,
        message: ToWorker,
        handover: Handover,
    ) -> Result<(), LinkClogged> {
        if self.clogged.load(Ordering::Relaxed) {
            return Err(LinkClogged);
        }
        let _ = self.calls.send(Call::Send(generation, message, handover));
        Ok(())
    }

    fn interrupt(&mut self, generation: u64) {
        let _ = self.calls.send(Call::Interrupt(generation));
    }

    fn kill(&mut self, generation: u64) {
        let _ = self.calls.send(Call::Kill(generation));
    }
}

/// The service and the test's side of its worker.
pub struct Service {
    pub jobs: JobsHandle,
    pub task: DispatcherTask,
    pub metrics: Arc<Metrics>,
    pub clogged: Arc<AtomicBool>,
    pub generation: u64,
    calls: mpsc::UnboundedReceiver<Call>,
    events: EventSender,
    steps: u64,
}

impl Service {
    /// Started; nothing was heard of its worker yet.
    pub fn start(change: impl FnOnce(&mut DispatcherSettings)) -> Self {
        let mut settings = settings();
        change(&mut settings);
        let (sender, calls) = mpsc::unbounded_channel();
        let clogged = Arc::new(AtomicBool::new(false));
        let host = PlayedHost {
            calls: sender,
            clogged: Arc::clone(&clogged),
        };
        let mut events = None;
        let metrics = Arc::new(Metrics::new());
        let (jobs, task) = start_on(settings, Arc::clone(&metrics), |sender| {
            events = Some(sender);
            Ok(host)
        });
        let events = events.unwrap();
        Self {
            jobs,
            task,
            metrics,
            clogged,
            generation: 0,
            calls,
            events,
            steps: 0,
        }
    }

    /// With a worker that is ready.
    pub async fn ready() -> Self {
        Self::ready_with(|_| {}).await
    }

    pub async fn ready_with(change: impl FnOnce(&mut DispatcherSettings)) -> Self {
        let mut service = Self::start(change);
        service.bring_up().await;
        service
    }

    /// With a worker whose KV memory has so many pages.
    pub async fn ready_with_pages(kv_pages: u32) -> Self {
        let mut service = Self::start(|_| {});
        service.bring_up_as(WorkerInfo { kv_pages, ..info() }).await;
        service
    }

    /// Plays a worker from its spawning until it is ready, and tells what it was to load.
    pub async fn bring_up(&mut self) -> (LoadRequest, Handover) {
        self.bring_up_as(info()).await
    }

    /// One that replaces another has as many pages.
    async fn bring_up_as(&mut self, mut info: WorkerInfo) -> (LoadRequest, Handover) {
        let load = self.connect().await;
        if let Some(KvSize::Pages(pages)) = load.0.kv {
            info.kv_pages = pages;
        }
        self.emit(WorkerEvent::Ready {
            info: Box::new(info),
            weights: None,
            pool: None,
        })
        .await;
        self.served().await;
        let generation = self.generation;
        self.until(|s| s.generation == generation && s.state == ServiceState::Ready)
            .await;
        load
    }

    /// A worker that loads becomes ready with this pool.
    pub async fn emit_ready_with_pool(&mut self, pool: &PoolHandle) {
        let info = WorkerInfo {
            pool: Some(pool.manifest.clone()),
            ..info()
        };
        self.emit(WorkerEvent::Ready {
            info: Box::new(info),
            weights: None,
            pool: Some(pool.clone()),
        })
        .await;
    }

    /// How the present worker is told to serve.
    pub async fn served(&mut self) -> Serve {
        match self.call().await {
            Call::Send(generation, ToWorker::Serve(serve), _) => {
                assert_eq!(generation, self.generation);
                serve
            }
            other => panic!("{other:?} in place of the word to serve"),
        }
    }

    /// The present worker is told that nothing is left of those before it.
    pub async fn told_that_all_is_settled(&mut self) {
        match self.call().await {
            Call::Send(generation, ToWorker::Settled, _) => assert_eq!(generation, self.generation),
            other => panic!("{other:?} in place of the word that all is settled"),
        }
    }

    /// Plays a worker from its spawning until it loads.
    pub async fn connect(&mut self) -> (LoadRequest, Handover) {
        self.spawned().await;
        self.emit(WorkerEvent::Spawned { pid: 4711 }).await;
        self.emit(WorkerEvent::Connected).await;
        match self.call().await {
            Call::Send(_, ToWorker::Load(request), handover) => (*request, handover),
            other => panic!("{other:?} in place of the load request"),
        }
    }

    /// A worker that loads becomes ready and leaves an image of its weights.
    pub async fn emit_ready_with_weights(&mut self) -> WeightsManifest {
        let manifest = manifest();
        let image = tempfile::tempfile().unwrap();
        let weights = Some(WeightsHandle::new(manifest.clone(), image.into()));
        self.emit(WorkerEvent::Ready {
            info: Box::new(info()),
            weights,
            pool: None,
        })
        .await;
        self.served().await;
        self.until(|s| s.state == ServiceState::Ready).await;
        manifest
    }

    pub async fn spawned(&mut self) {
        match self.call().await {
            Call::Spawn(generation) => self.generation = generation,
            other => panic!("{other:?} in place of a spawn"),
        }
    }

    pub async fn call(&mut self) -> Call {
        let call = tokio::time::timeout(TEST_TIMEOUT, self.calls.recv()).await;
        call.expect("the worker is told nothing")
            .expect("the dispatcher is gone")
    }

    /// What the worker was told so far and nobody asked about.
    pub fn pending_calls(&mut self) -> Vec<Call> {
        std::iter::from_fn(|| self.calls.try_recv().ok()).collect()
    }

    pub async fn submitted(&mut self) -> JobSpec {
        match self.call().await {
            Call::Send(_, ToWorker::Submit(spec), _) => *spec,
            other => panic!("{other:?} in place of a job"),
        }
    }

    pub async fn told_to_cancel(&mut self) -> JobKey {
        match self.call().await {
            Call::Send(_, ToWorker::Cancel(key), _) => key,
            other => panic!("{other:?} in place of a cancellation"),
        }
    }

    pub async fn killed(&mut self) {
        self.killed_as(self.generation).await;
    }

    pub async fn killed_as(&mut self, worker: u64) {
        match self.call().await {
            Call::Kill(generation) => assert_eq!(generation, worker),
            other => panic!("{other:?} in place of a kill"),
        }
    }

    /// A worker's heartbeat.
    pub async fn beat(&self, running: u32) {
        let heartbeat = ToSupervisor::Heartbeat {
            steps: self.steps,
            running,
            kv: PageCounts {
                used: running,
                ..PageCounts::default()
            },
        };
        self.message(heartbeat).await;
    }

    pub async fn emit(&self, event: WorkerEvent) {
        self.emit_as(self.generation, event).await;
    }

    pub async fn emit_as(&self, generation: u64, event: WorkerEvent) {
        self.events
            .send(WorkerReport { generation, event })
            .await
            .unwrap();
    }

    pub async fn message(&self, message: ToSupervisor) {
        self.emit(WorkerEvent::Message(message)).await;
    }

    /// One step with one token.
    pub async fn token(&mut self, key: JobKey, index: u32, id: u32, finish: Option<Finish>) {
        self.steps += 1;
        let tokens = vec![StepToken {
            key,
            index,
            id,
            finish,
        }];
        let report = StepReport {
            step: self.steps,
            step_us: 100,
            tokens,
            logprobs: Vec::new(),
        };
        self.message(ToSupervisor::Step(report)).await;
    }

    /// The bytes of `text` as tokens, the first of them with the index `from`.
    pub async fn tokens(&mut self, key: JobKey, from: u32, text: &str) {
        for (index, byte) in (from..).zip(text.bytes()) {
            self.token(key, index, byte.into(), None).await;
        }
    }

    /// The end-of-generation token.
    pub async fn eos(&mut self, key: JobKey, index: u32) {
        self.token(key, index, END, Some(Finish::Eos)).await;
    }

    /// The worker is killed from outside, and reaped.
    pub async fn crash(&mut self) {
        self.lose_link().await;
        self.emit(WorkerEvent::Exited(WorkerExit::Signal(9))).await;
    }

    /// The worker's socket closes, and nobody waits for more of it.
    pub async fn lose_link(&mut self) {
        let message = "closed".into();
        self.emit(WorkerEvent::LinkLost { message }).await;
        self.killed().await;
    }

    pub async fn submit(&self, job: NewJob) -> JobStream {
        self.jobs.submit(job).await.unwrap()
    }

    /// Submits and returns what the worker is sent.
    pub async fn run(&mut self, job: NewJob) -> (JobStream, JobSpec) {
        let stream = self.submit(job).await;
        (stream, self.submitted().await)
    }

    /// Waits for a snapshot that fits.
    pub async fn until(&self, fits: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
        let since = Instant::now();
        loop {
            let snapshot = self.jobs.snapshot();
            if fits(&snapshot) {
                return snapshot;
            }
            assert!(since.elapsed() < TEST_TIMEOUT, "it stays {snapshot:?}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub async fn outcome(self) -> Outcome {
        tokio::time::timeout(TEST_TIMEOUT, self.task)
            .await
            .expect("the dispatcher does not end")
    }
}

/// The next event.
pub async fn next(stream: &mut JobStream) -> Option<Numbered> {
    let event = tokio::time::timeout(TEST_TIMEOUT, stream.events.recv()).await;
    event.expect("no event comes")
}

/// All events up to the stream's end.
pub async fn rest(stream: &mut JobStream) -> Vec<Numbered> {
    let mut all = Vec::new();
    while let Some(event) = next(stream).await {
        all.push(event);
    }
    all
}

/// The concatenated text of token events.
pub fn text_of(events: &[Numbered]) -> String {
    let text = |numbered: &Numbered| match &numbered.event {
        JobEvent::Token { text, .. } => text.clone(),
        _ => String::new(),
    };
    events.iter().map(text).collect()
}

/// The last event without its number.
pub fn last(events: &[Numbered]) -> &JobEvent {
    &events.last().expect("at least one event").event
}

/// Without what time changes: when it started and how long it took; and how often it was replayed.
pub fn timeless(events: Vec<Numbered>) -> Vec<Numbered> {
    let strip = |mut numbered: Numbered| {
        match &mut numbered.event {
            JobEvent::Started { started_at, .. } => *started_at = jiff::Timestamp::UNIX_EPOCH,
            JobEvent::End {
                decode_time_ms,
                engine_time_us,
                replays,
                ..
            } => {
                (*decode_time_ms, *engine_time_us, *replays) = (0, 0, 0);
            }
            _ => {}
        }
        numbered
    };
    events.into_iter().map(strip).collect()
}

pub fn settings() -> DispatcherSettings {
    DispatcherSettings {
        worker_bin: None,
        runtime_dir: None,
        fleet: FleetSettings {
            load: LoadRequest {
                end_tokens: vec![END],
                ..LoadRequest::new("/models/played.gguf".into(), Device::Cpu)
            },
            retained: Retained::default(),
            policy: Policy::default(),
            timing: Timing {
                tick: Duration::from_millis(5),
                // The played worker has no heart that beats.
                hang: Duration::from_secs(60),
                ..Timing::default()
            },
        },
        queue: 4,
        resume_ttl: Duration::from_secs(60),
        drain_timeout: Duration::from_secs(60),
        crash_dir: None,
        version: "test",
        bounds: Bounds::default(),
    }
}

/// A pool of KV memory; each has an identity of its own.
pub fn pool() -> PoolHandle {
    let file = || tempfile::tempfile().unwrap().into();
    PoolHandle::new(pool_manifest(), file(), file())
}

fn pool_manifest() -> PoolManifest {
    static POOLS: AtomicU8 = AtomicU8::new(0);
    PoolManifest {
        id: [POOLS.fetch_add(1, Ordering::Relaxed); 16],
        backend: "cpu".into(),
        pages: KV_PAGES,
        bytes: 8,
        fingerprint: [9; 32],
    }
}

pub fn manifest() -> WeightsManifest {
    WeightsManifest {
        model: ModelIdentity {
            hash: ContentHash([3; 32]),
            stamps: vec![],
        },
        layout_version: 4,
        backend: "cpu".into(),
        image_bytes: 5,
        sample_checksum: 6,
    }
}
