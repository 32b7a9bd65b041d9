//! From nothing to ready, and not.

use std::sync::Arc;

use orcd_shared::error::ErrorCode;
use orcd_shared::protocol::message::{KvSize, ToSupervisor};
use orcd_supervisor::jobs::ServiceState;
use orcd_supervisor::jobs::dispatcher::{Outcome, start_on};
use orcd_supervisor::worker::WorkerEvent;
use orcd_supervisor::worker::handles::{Handover, WeightsHandle};
use orcd_supervisor::worker::retained::Retained;

use super::support::{END, PlayedHost, Service, job, manifest, pool, settings};

#[tokio::test]
async fn jobs_are_refused_until_the_first_worker_is_ready() {
    let mut service = Service::start(|_| {});
    let (load, _) = service.connect().await;
    assert_eq!(load.end_tokens, [END]);
    assert!(load.weights.is_none());
    service
        .message(ToSupervisor::LoadProgress { percent: 25 })
        .await;
    service
        .until(|s| s.state == ServiceState::Starting { percent: 25 })
        .await;
    let refusal = service.jobs.submit(job("a")).await.unwrap_err();
    assert_eq!(refusal.code, ErrorCode::WorkerUnavailable);
    assert!(refusal.retry_after.is_some());
}

#[tokio::test]
async fn weights_of_an_earlier_supervisor_go_to_the_first_worker() {
    let (manifest, image) = (manifest(), tempfile::tempfile().unwrap());
    let earlier = WeightsHandle::new(manifest, image.into());
    let retained = Retained::starting_with(Handover {
        weights: Some(earlier.clone()),
        pool: None,
    });
    let mut service = Service::start(|settings| settings.fleet.retained = retained.clone());
    let (load, offered) = service.connect().await;
    assert_eq!(load.weights.as_ref(), Some(&earlier.manifest));
    assert!(offered.weights.unwrap().is_same(&earlier));
    assert!(load.pool.is_none() && offered.pool.is_none());
    // The played worker loads from the file all the same: its own weights are retained from then on.
    service.emit_ready_with_weights().await;
    assert!(!retained.present().weights.unwrap().is_same(&earlier));
}

#[tokio::test]
async fn a_pool_of_an_earlier_supervisor_says_how_many_pages_the_first_worker_makes() {
    for is_taken in [true, false] {
        let earlier = pool();
        let retained = Retained::starting_with(Handover {
            weights: None,
            pool: Some(earlier.clone()),
        });
        let mut service = Service::start(|settings| {
            settings.fleet.retained = retained.clone();
            settings.fleet.load.kv = Some(KvSize::Share(0.5));
        });
        let (load, offered) = service.connect().await;
        assert_eq!(load.pool.as_ref(), Some(&earlier.manifest));
        assert!(offered.pool.unwrap().is_same(&earlier));
        assert_eq!(load.kv, Some(KvSize::Pages(earlier.manifest.pages)));
        let reported = if is_taken { earlier.clone() } else { pool() };
        service.emit_ready_with_pool(&reported).await;
        let served = service.served().await;
        assert!(served.settled && served.keep);
        // What it made itself takes the place of what it was offered.
        assert!(retained.present().pool.unwrap().is_same(&reported));
    }
}

#[tokio::test]
async fn a_first_worker_that_cannot_load_ends_the_service_with_its_reason() {
    let mut service = Service::start(|_| {});
    service.connect().await;
    let code = ErrorCode::InsufficientVram;
    let message = String::from("needs 3, has 2");
    service
        .message(ToSupervisor::LoadFailed {
            code,
            message: message.clone(),
        })
        .await;
    assert_eq!(
        service.outcome().await,
        Outcome::StartupFailed { code, message }
    );
}

#[tokio::test]
async fn another_protocol_ends_the_service() {
    let mut service = Service::start(|_| {});
    service.spawned().await;
    service.emit(WorkerEvent::Spawned { pid: 1 }).await;
    service
        .emit(WorkerEvent::HandshakeFailed {
            message: "protocol 9 here, 1 there".into(),
        })
        .await;
    let outcome = service.outcome().await;
    assert!(
        matches!(&outcome, Outcome::StartupFailed { message, .. } if message.contains("protocol 9")),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn a_host_that_cannot_begin_is_a_failed_start() {
    let (jobs, task) = start_on(settings(), Arc::default(), |_| {
        Err::<PlayedHost, _>("no directory".into())
    });
    assert!(
        matches!(task.await, Outcome::StartupFailed { message, .. } if message == "no directory")
    );
    assert!(jobs.submit(job("a")).await.is_err());
}

#[tokio::test]
async fn stopping_before_the_worker_is_ready_is_a_clean_stop() {
    let mut service = Service::start(|_| {});
    service.spawned().await;
    service.jobs.drain().await;
    service.killed().await;
    service
        .emit(WorkerEvent::SpawnFailed {
            message: "never".into(),
        })
        .await;
    assert_eq!(service.outcome().await, Outcome::Stopped);
}
