//! Signs of life for systemd: only while everything answers; and time to load, while it goes on.

use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use orcd_shared::protocol::message::ToWorker;
use orcd_supervisor::jobs::dispatcher::start_on;
use orcd_supervisor::metrics::Metrics;
use orcd_supervisor::systemd::{LivenessProbe, Notifier, ProbeError, Report, feed_watchdog};
use orcd_supervisor::worker::handles::Handover;
use orcd_supervisor::worker::{LinkClogged, WorkerHost};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use super::support::{Service, settings};

const LIMIT: Duration = Duration::from_millis(200);

/// A host in which the dispatcher gets stuck until it is told to go on.
struct Swamp {
    go_on: mpsc::Receiver<()>,
}

impl WorkerHost for Swamp {
    fn spawn(&mut self, _generation: u64) {
        self.go_on.recv().unwrap();
    }

    fn send(
        &mut self,
        _generation: u64,
        _message: ToWorker,
        _handover: Handover,
    ) -> Result<(), LinkClogged> {
        Ok(())
    }

    fn interrupt(&mut self, _generation: u64) {}

    fn kill(&mut self, _generation: u64) {}
}

fn accept_loop() -> AbortHandle {
    tokio::spawn(std::future::pending::<()>()).abort_handle()
}

fn probe(service: &Service, router: Router) -> LivenessProbe {
    LivenessProbe {
        jobs: service.jobs.clone(),
        router,
        accepting: accept_loop(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stuck_dispatcher_gives_no_sign_of_life() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let double = UnixDatagram::bind(&path).unwrap();
    double.set_nonblocking(true).unwrap();
    let (release, go_on) = mpsc::channel();
    let (jobs, _task) = start_on(settings(), Arc::new(Metrics::new()), |_| {
        Ok(Swamp { go_on })
    });
    let probe = LivenessProbe {
        jobs,
        router: Router::new(),
        accepting: accept_loop(),
    };
    let notifier = Notifier::new(Some(path.as_os_str()));
    tokio::spawn(feed_watchdog(notifier, LIMIT * 3, probe));
    tokio::time::sleep(LIMIT * 5).await;
    let mut buffer = [0; 64];
    assert!(double.recv(&mut buffer).is_err(), "a sign while stuck");
    release.send(()).unwrap();
    let sign = async {
        loop {
            match double.recv(&mut buffer) {
                Ok(n) => return buffer[..n].to_vec(),
                Err(_) => tokio::time::sleep(LIMIT / 10).await,
            }
        }
    };
    let sign = tokio::time::timeout(Duration::from_secs(10), sign).await;
    assert_eq!(sign.unwrap(), b"WATCHDOG=1\n");
}

#[tokio::test]
async fn routes_that_do_not_answer_are_no_life() {
    let service = Service::ready().await;
    let stuck = Router::new().route("/health", get(std::future::pending::<()>));
    let silence = probe(&service, stuck).check(LIMIT).await;
    assert_eq!(silence, Err(ProbeError::TooLate(LIMIT)));
    let answers = probe(&service, Router::new());
    assert_eq!(answers.check(LIMIT * 10).await, Ok(()));
}

#[tokio::test]
async fn an_accept_loop_that_ended_is_no_life() {
    let service = Service::ready().await;
    let probe = probe(&service, Router::new());
    probe.accepting.abort();
    tokio::task::yield_now().await;
    assert_eq!(probe.check(LIMIT * 10).await, Err(ProbeError::NotAccepting));
}

#[tokio::test]
async fn time_is_asked_for_again_and_again_while_loading_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let double = UnixDatagram::bind(&path).unwrap();
    double.set_nonblocking(true).unwrap();
    let notifications = || {
        let mut buffer = [0; 4096];
        let next = || double.recv(&mut buffer).map(|n| buffer[..n].to_vec());
        let messages = std::iter::repeat_with(next).map_while(Result::ok);
        messages
            .map(|message| String::from_utf8(message).unwrap())
            .collect::<Vec<_>>()
    };
    let mut service = Service::start(|_| {});
    service.connect().await;
    let report = Report {
        notifier: Notifier::new(Some(path.as_os_str())),
        jobs: service.jobs.clone(),
        drain: CancellationToken::new(),
        model: "m.gguf".into(),
        drain_timeout: Duration::from_secs(1),
    };
    tokio::spawn(report.run());
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(16)).await;
    let loading = notifications();
    assert!((3..=5).contains(&loading.len()), "{loading:?}");
    for message in &loading {
        assert!(message.contains("EXTEND_TIMEOUT_USEC="), "{loading:?}");
    }
    assert!(loading[0].starts_with("STATUS=Loading m.gguf: 0 %"));
    tokio::time::resume();
    service.emit_ready_with_weights().await;
    tokio::time::pause();
    // More than a beat, and not so long that the worker counts as lost.
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(notifications(), ["READY=1\nSTATUS=Ready: serving m.gguf\n"]);
}
