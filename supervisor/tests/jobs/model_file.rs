//! A model file whose file system does not answer. A pipe that nobody writes to is one: opening it
//! waits.

use std::fs::OpenOptions;
use std::path::Path;
use std::time::Duration;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use orcd_shared::error::ErrorCode;
use orcd_shared::protocol::message::ToWorker;
use orcd_supervisor::jobs::ServiceState;
use orcd_supervisor::jobs::dispatcher::Outcome;
use orcd_supervisor::worker::WorkerEvent;

use super::support::{Call, Service, job, rest};

/// A file that can't be opened until [`answer`].
fn hanging(folder: &Path) -> String {
    let path = folder.join("model.gguf");
    mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Lets whoever opens the file have it.
fn answer(path: &str) {
    OpenOptions::new().write(true).open(path).unwrap();
}

#[tokio::test]
async fn while_the_file_system_hangs_the_worker_waits_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = hanging(folder.path());
    let mut service = Service::start(|s| s.fleet.load.model_path.clone_from(&path));
    service.spawned().await;
    service.emit(WorkerEvent::Spawned { pid: 1 }).await;
    service.emit(WorkerEvent::Connected).await;
    service
        .until(|s| s.state == ServiceState::Starting { percent: 0 })
        .await;
    for _ in 0..20 {
        assert!(service.jobs.ping().await);
        let refusal = service.jobs.submit(job("a")).await.unwrap_err();
        assert_eq!(refusal.code, ErrorCode::WorkerUnavailable);
        service.jobs.cancel("a".into()).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(
        service.pending_calls().is_empty(),
        "no load before the look"
    );
    answer(&path);
    match service.call().await {
        Call::Send(_, ToWorker::Load(request), _) => assert_eq!(request.model_path, path),
        other => panic!("{other:?} in place of the load request"),
    }
}

#[tokio::test]
async fn a_file_system_that_never_answers_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = hanging(folder.path());
    let mut service = Service::start(|s| {
        s.fleet.load.model_path.clone_from(&path);
        s.fleet.timing.model_file = Duration::from_millis(50);
    });
    service.spawned().await;
    service.emit(WorkerEvent::Spawned { pid: 1 }).await;
    service.emit(WorkerEvent::Connected).await;
    let outcome = service.outcome().await;
    answer(&path);
    let Outcome::StartupFailed { code, message } = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(code, ErrorCode::ModelLoadFailed);
    assert!(
        message.contains(&path) && message.contains("did not answer"),
        "{message}"
    );
}

#[tokio::test]
async fn a_worker_that_was_lost_meanwhile_is_not_told_to_load() {
    let mut service = Service::ready().await;
    let lost = service.generation;
    service.crash().await;
    service.bring_up().await;
    let found = Ok("/models/played.gguf".into());
    service.emit_as(lost, WorkerEvent::Looked(found)).await;
    let (mut stream, spec) = service.run(job("a")).await;
    service.eos(spec.key, 0).await;
    rest(&mut stream).await;
    let calls = service.pending_calls();
    assert!(calls.is_empty(), "{calls:?}");
}
