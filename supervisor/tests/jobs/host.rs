//! Real processes: this test binary, started again as the worker, on the real socket and the real
//! descriptor channel.

use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use orcd_shared::descriptors;
use orcd_shared::job::{JobKey, JobOptions};
use orcd_shared::kv::PoolManifest;
use orcd_shared::protocol::frame;
use orcd_shared::protocol::message::{
    LoadSource, MAX_PARALLEL, ToSupervisor, ToWorker, WorkerInfo,
};
use orcd_shared::protocol::version::PROTOCOL;
use orcd_shared::weights::{ContentHash, ModelIdentity, WeightsManifest};
use orcd_supervisor::worker::handles::Handover;
use orcd_supervisor::worker::host::ProcessHost;
use orcd_supervisor::worker::process::WorkerExit;
use orcd_supervisor::worker::{WorkerEvent, WorkerHost, WorkerReport};
use tokio::sync::mpsc;

use super::support::{info, settings};

const ROLE: &str = "ORCD_TEST_ROLE";
const SOCKET: &str = "ORCD_TEST_SOCKET";

/// Not a test: the worker's side, when this binary is started as one.
#[test]
fn played_worker() {
    let (Ok(role), Ok(socket)) = (std::env::var(ROLE), std::env::var(SOCKET)) else {
        return;
    };
    let mut link = Link {
        socket: UnixStream::connect(socket).unwrap(),
        unread: Vec::new(),
    };
    assert!(matches!(
        link.read(),
        Some(ToWorker::Hello {
            protocol: PROTOCOL,
            ..
        })
    ));
    let protocol = if role == "stranger" {
        PROTOCOL + 1
    } else {
        PROTOCOL
    };
    link.write(&ToSupervisor::Hello {
        protocol,
        build: "test".into(),
    });
    while let Some(message) = link.read() {
        match message {
            ToWorker::Load(_) if role == "silent" => {
                drop(link);
                std::thread::sleep(Duration::from_secs(60));
                return;
            }
            ToWorker::Load(request) => {
                let source = match request.weights {
                    Some(_) => {
                        assert_eq!(receive(), "weights");
                        LoadSource::Handle
                    }
                    None => LoadSource::File,
                };
                if request.pool.is_some() {
                    assert_eq!([receive(), receive()], ["pages", "ledger"]);
                }
                if source == LoadSource::File && role != "forgetful" {
                    send("weights");
                }
                let given = request.pool.filter(|_| role != "owner");
                if given.is_none() && role != "forgetful" {
                    send("pages");
                    send("ledger");
                }
                let pool = given.unwrap_or_else(pool_manifest);
                link.write(&ToSupervisor::Ready(Box::new(ready(source, pool))));
            }
            ToWorker::Cancel(key) => link.write(&ToSupervisor::Cancelled(key)),
            ToWorker::Submit(_) => {
                eprintln!("about to die");
                link.write(&ToSupervisor::Cancelled(JobKey(99)));
                std::process::exit(12);
            }
            ToWorker::Shutdown => std::process::exit(0),
            ToWorker::Hello { .. } | ToWorker::Serve(_) | ToWorker::Settled => {}
        }
    }
}

struct Link {
    socket: UnixStream,
    unread: Vec<u8>,
}

impl Link {
    fn read(&mut self) -> Option<ToWorker> {
        loop {
            if let Some((message, taken)) = frame::decode(&self.unread).unwrap() {
                self.unread.drain(..taken);
                return Some(message);
            }
            let mut chunk = [0; 4096];
            let n = self.socket.read(&mut chunk).unwrap();
            if n == 0 {
                return None;
            }
            self.unread.extend_from_slice(&chunk[..n]);
        }
    }

    fn write(&mut self, message: &ToSupervisor) {
        let mut bytes = Vec::new();
        frame::encode(message, &mut bytes).unwrap();
        self.socket.write_all(&bytes).unwrap();
    }
}

fn send(text: &str) {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    descriptors::send(std::io::stdin(), &[0], &[file.as_fd()]).unwrap();
}

fn receive() -> String {
    content(descriptors::receive(std::io::stdin()).unwrap().as_fd())
}

fn content(file: BorrowedFd<'_>) -> String {
    // By its name: the position is shared with whoever wrote it.
    std::fs::read_to_string(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap()
}

/// What is behind the descriptors, in the order in which they are sent.
fn contents(handover: &Handover) -> Vec<String> {
    handover.descriptors().map(content).collect()
}

/// Of a pool that this process made.
fn pool_manifest() -> PoolManifest {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&std::process::id().to_le_bytes());
    PoolManifest {
        id,
        backend: "cpu".into(),
        pages: 1,
        bytes: 5,
        fingerprint: [9; 32],
    }
}

fn manifest() -> WeightsManifest {
    let model = ModelIdentity {
        hash: ContentHash([3; 32]),
        stamps: vec![],
    };
    WeightsManifest {
        model,
        layout_version: 4,
        backend: "cpu".into(),
        image_bytes: 7,
        sample_checksum: 8,
    }
}

fn ready(load_source: LoadSource, pool: PoolManifest) -> WorkerInfo {
    WorkerInfo {
        load_source,
        weights: Some(manifest()),
        pool: Some(pool),
        ..info()
    }
}

/// A host whose workers play `role`.
struct Stage {
    host: ProcessHost,
    events: mpsc::Receiver<WorkerReport>,
    dir: tempfile::TempDir,
}

impl Stage {
    fn set(role: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let binary = dir.path().join("worker");
        let this = std::env::current_exe().unwrap();
        let script = format!(
            "#!/bin/sh\n{ROLE}={role} {SOCKET}=\"$2\" exec {} --exact host::played_worker --nocapture\n",
            this.display()
        );
        std::fs::write(&binary, script).unwrap();
        std::fs::set_permissions(&binary, std::fs::Permissions::from_mode(0o755)).unwrap();
        let (sender, events) = mpsc::channel(64);
        let base = Some(dir.path().to_path_buf());
        let host = ProcessHost::new(binary, base, sender).unwrap();
        Self { host, events, dir }
    }

    async fn next(&mut self) -> WorkerEvent {
        let next = tokio::time::timeout(Duration::from_secs(60), self.events.recv()).await;
        next.expect("nothing happens").unwrap().event
    }

    async fn spawn(&mut self, generation: u64) -> u32 {
        self.host.spawn(generation);
        match self.next().await {
            WorkerEvent::Spawned { pid } => pid,
            other => panic!("{other:?} in place of a process"),
        }
    }

    async fn load(&mut self, generation: u64, held: Handover) -> WorkerEvent {
        assert!(matches!(self.next().await, WorkerEvent::Connected));
        let mut request = settings().fleet.load;
        request.weights = held.weights.as_ref().map(|held| held.manifest.clone());
        request.pool = held.pool.as_ref().map(|held| held.manifest.clone());
        let message = ToWorker::Load(Box::new(request));
        self.host.send(generation, message, held).unwrap();
        self.next().await
    }
}

fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// A worker that is ready: how it loaded, and what is held from then on.
fn assert_ready(event: WorkerEvent, source: LoadSource) -> Handover {
    let WorkerEvent::Ready {
        info,
        weights,
        pool,
    } = event
    else {
        panic!("{event:?} in place of a worker that is ready");
    };
    assert_eq!(info.load_source, source);
    let manifests = (
        weights.as_ref().map(|weights| weights.manifest.clone()),
        pool.as_ref().map(|pool| pool.manifest.clone()),
    );
    assert_eq!(manifests, (info.weights, info.pool));
    Handover { weights, pool }
}

#[tokio::test]
async fn weights_and_pool_pass_from_a_killed_worker_to_the_next() {
    let mut stage = Stage::set("worker");
    let pid = stage.spawn(1).await;
    let loaded = stage.load(1, Handover::nothing()).await;
    let held = assert_ready(loaded, LoadSource::File);
    assert_eq!(contents(&held), ["weights", "pages", "ledger"]);
    stage.host.kill(1);
    assert!(matches!(stage.next().await, WorkerEvent::LinkLost { .. }));
    assert!(matches!(
        stage.next().await,
        WorkerEvent::Exited(WorkerExit::Signal(9))
    ));
    assert!(!exists(pid), "it was not reaped");
    stage.spawn(2).await;
    let loaded = stage.load(2, held.clone()).await;
    let still_held = assert_ready(loaded, LoadSource::Handle);
    assert_eq!(
        still_held.pool.as_ref().unwrap().manifest,
        held.pool.unwrap().manifest
    );
    assert_eq!(contents(&still_held), ["weights", "pages", "ledger"]);
    (stage.host)
        .send(2, ToWorker::Shutdown, Handover::nothing())
        .unwrap();
    assert!(matches!(stage.next().await, WorkerEvent::LinkLost { .. }));
    assert!(matches!(
        stage.next().await,
        WorkerEvent::Exited(WorkerExit::Code(0))
    ));
}

#[tokio::test]
async fn a_pool_that_a_worker_makes_in_place_of_the_one_it_was_given_is_received() {
    let mut stage = Stage::set("owner");
    stage.spawn(1).await;
    let loaded = stage.load(1, Handover::nothing()).await;
    let held = assert_ready(loaded, LoadSource::File);
    stage.spawn(2).await;
    let loaded = stage.load(2, held.clone()).await;
    let other = assert_ready(loaded, LoadSource::Handle);
    assert_ne!(
        other.pool.as_ref().unwrap().manifest,
        held.pool.unwrap().manifest
    );
    assert_eq!(contents(&other), ["weights", "pages", "ledger"]);
}

/// Who follows a killed worker may rely on the signal: it does not wait for a task to get its turn.
#[tokio::test]
async fn a_worker_that_runs_is_killed_before_the_host_says_so() {
    let mut stage = Stage::set("worker");
    let pid = stage.spawn(1).await;
    assert_ready(stage.load(1, Handover::nothing()).await, LoadSource::File);
    stage.host.kill(1);
    assert_killed(pid);
}

/// No task of this thread gets a turn meanwhile.
fn assert_killed(pid: u32) {
    let since = std::time::Instant::now();
    while is_running(pid) {
        assert!(
            since.elapsed() < Duration::from_secs(10),
            "nobody killed it"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// It is neither gone nor waiting to be reaped.
fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().unwrap_or_default().trim_start();
    !(state.is_empty() || state.starts_with(['Z', 'X']))
}

#[tokio::test]
async fn a_worker_whose_link_is_lost_is_killed_even_when_others_were_started_since() {
    let mut stage = Stage::set("silent");
    let pid = stage.spawn(1).await;
    assert!(matches!(stage.next().await, WorkerEvent::Connected));
    let request = ToWorker::Load(Box::new(settings().fleet.load));
    (stage.host).send(1, request, Handover::nothing()).unwrap();
    assert!(matches!(stage.next().await, WorkerEvent::LinkLost { .. }));
    stage.spawn(2).await;
    assert!(is_running(pid));
    stage.host.kill(1);
    assert_killed(pid);
}

#[tokio::test]
async fn last_words_come_before_the_exit() {
    let mut stage = Stage::set("worker");
    stage.spawn(1).await;
    stage.load(1, Handover::nothing()).await;
    for n in 0..50 {
        stage
            .host
            .send(1, ToWorker::Cancel(JobKey(n)), Handover::nothing())
            .unwrap();
    }
    let spec = orcd_shared::job::JobSpec {
        key: JobKey(1),
        prompt: vec![1],
        emitted: vec![],
        max_tokens: 1,
        sampling: orcd_shared::sampling::SamplingParams::GREEDY,
        options: JobOptions::default(),
    };
    stage
        .host
        .send(1, ToWorker::Submit(Box::new(spec)), Handover::nothing())
        .unwrap();
    for n in (0..50).chain([99]) {
        match stage.next().await {
            WorkerEvent::Message(ToSupervisor::Cancelled(key)) => assert_eq!(key, JobKey(n)),
            other => panic!("{other:?} in place of answer {n}"),
        }
    }
    assert!(matches!(stage.next().await, WorkerEvent::LinkLost { .. }));
    match stage.next().await {
        WorkerEvent::LastLines(lines) => assert!(!lines.is_empty()),
        other => panic!("{other:?} in place of what it wrote for people"),
    }
    assert!(matches!(
        stage.next().await,
        WorkerEvent::Exited(WorkerExit::Code(12))
    ));
}

/// All that can rightly wait for a worker finds room, however many slots it has.
#[tokio::test]
async fn a_worker_that_reads_nothing_yet_is_not_taken_for_clogged() {
    let mut stage = Stage::set("worker");
    // Nothing is written before this task waits.
    stage.host.spawn(1);
    let request = Box::new(settings().fleet.load);
    stage
        .host
        .send(1, ToWorker::Load(request), Handover::nothing())
        .unwrap();
    let spec = orcd_shared::job::JobSpec {
        key: JobKey(1),
        prompt: vec![1],
        emitted: vec![],
        max_tokens: 1,
        sampling: orcd_shared::sampling::SamplingParams::GREEDY,
        options: JobOptions::default(),
    };
    for n in 0..u64::from(MAX_PARALLEL) {
        let mut job = spec.clone();
        job.key = JobKey(n);
        let submit = ToWorker::Submit(Box::new(job));
        stage.host.send(1, submit, Handover::nothing()).unwrap();
        let cancel = ToWorker::Cancel(JobKey(n));
        stage.host.send(1, cancel, Handover::nothing()).unwrap();
    }
    stage
        .host
        .send(1, ToWorker::Shutdown, Handover::nothing())
        .unwrap();
}

#[tokio::test]
async fn another_protocol_is_named_with_ours() {
    let mut stage = Stage::set("stranger");
    stage.spawn(1).await;
    let WorkerEvent::HandshakeFailed { message } = stage.next().await else {
        panic!("accepted")
    };
    assert!(
        message.contains(&format!("protocol {}", PROTOCOL + 1)),
        "{message}"
    );
    assert!(
        message.contains(&format!("speaks {PROTOCOL} ")),
        "{message}"
    );
}

#[tokio::test]
async fn announced_descriptors_that_never_come_leave_a_worker_without() {
    let mut stage = Stage::set("forgetful");
    stage.spawn(1).await;
    assert!(matches!(
        stage.load(1, Handover::nothing()).await,
        WorkerEvent::Ready {
            weights: None,
            pool: None,
            ..
        }
    ));
}

#[tokio::test]
async fn a_worker_that_ends_without_connecting_is_reported() {
    let mut stage = Stage::set("worker");
    std::fs::write(stage.dir.path().join("worker"), "#!/bin/sh\nexit 2\n").unwrap();
    stage.spawn(1).await;
    let end = loop {
        match stage.next().await {
            WorkerEvent::LinkLost { .. } | WorkerEvent::HandshakeFailed { .. } => {}
            other => break other,
        }
    };
    assert!(
        matches!(end, WorkerEvent::Exited(WorkerExit::Code(2))),
        "{end:?}"
    );
}

#[tokio::test]
async fn a_missing_binary_is_named() {
    let (sender, mut events) = mpsc::channel(8);
    let dir = tempfile::tempdir().unwrap();
    let base = Some(dir.path().to_path_buf());
    let mut host = ProcessHost::new("/no/such/worker".into(), base, sender).unwrap();
    host.spawn(1);
    let Some(WorkerReport {
        event: WorkerEvent::SpawnFailed { message },
        ..
    }) = events.recv().await
    else {
        panic!("it was started");
    };
    assert!(
        message.contains("/no/such/worker") && message.contains("--worker-bin"),
        "{message}"
    );
}

#[tokio::test]
async fn dropping_the_host_ends_its_workers_and_removes_its_directory() {
    let Stage {
        mut host,
        mut events,
        dir,
    } = Stage::set("worker");
    host.spawn(1);
    let Some(WorkerReport {
        event: WorkerEvent::Spawned { pid },
        ..
    }) = events.recv().await
    else {
        panic!("not started");
    };
    drop(host);
    while events.recv().await.is_some() {}
    assert!(!exists(pid));
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        1,
        "only the script is left"
    );
}
