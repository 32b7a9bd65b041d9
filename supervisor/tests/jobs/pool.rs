//! KV memory that outlives workers: who is given it, who is told that it is his own, and what he is told
//! of those before him.

use std::time::Duration;

use orcd_shared::protocol::message::{KvSize, ToWorker};
use orcd_supervisor::jobs::ServiceState;
use orcd_supervisor::worker::WorkerEvent;
use orcd_supervisor::worker::handles::PoolHandle;
use orcd_supervisor::worker::process::WorkerExit;

use super::support::{Call, KV_PAGES, Service, job, pool};

/// By then a message that comes has come.
const SOON: Duration = Duration::from_millis(50);

/// With a worker that serves on this pool.
async fn on_pool(pool: &PoolHandle) -> Service {
    let mut service = Service::start(|_| {});
    service.connect().await;
    service.emit_ready_with_pool(pool).await;
    assert!(service.served().await.settled);
    service
}

/// With a standby too, that was given this pool and reported the other.
async fn with_standby(given: &PoolHandle, reported: &PoolHandle) -> (Service, u64, u64) {
    let mut service = Service::start(|s| {
        s.fleet.policy.standby = true;
        s.fleet.policy.standby_delay = Duration::ZERO;
    });
    service.connect().await;
    service.emit_ready_with_pool(given).await;
    service.served().await;
    let present = service.generation;
    add_standby(&mut service, given, reported).await;
    let standby = service.generation;
    service.generation = present;
    (service, present, standby)
}

async fn add_standby(service: &mut Service, given: &PoolHandle, reported: &PoolHandle) {
    assert_eq!(connect(service).await, Some(id(given)));
    service.emit_ready_with_pool(reported).await;
    service.until(|s| s.standby.is_some_and(|s| s.ready)).await;
}

fn id(pool: &PoolHandle) -> [u8; 16] {
    pool.manifest.id
}

/// Plays a worker from its spawning until it loads, and tells which pool it was given.
async fn connect(service: &mut Service) -> Option<[u8; 16]> {
    let (load, handover) = service.connect().await;
    let given = handover.pool.map(|pool| pool.manifest);
    assert_eq!(load.pool, given, "what is said and what is sent");
    given.map(|given| given.id)
}

async fn ended(service: &Service, generation: u64) {
    let end = WorkerEvent::Exited(WorkerExit::Signal(9));
    service.emit_as(generation, end).await;
}

async fn assert_told_nothing(service: &mut Service) {
    tokio::time::sleep(SOON).await;
    let calls = service.pending_calls();
    assert!(calls.is_empty(), "{calls:?}");
}

#[tokio::test]
async fn a_worker_is_told_to_serve_before_its_first_job() {
    let mut service = Service::start(|_| {});
    assert_eq!(connect(&mut service).await, None);
    let pool = pool();
    service.emit_ready_with_pool(&pool).await;
    service.until(|s| s.state == ServiceState::Ready).await;
    let _stream = service.submit(job("a")).await;
    let first = service.served().await;
    assert!(first.keep && first.settled, "nobody had it before");
    service.submitted().await;
    service.crash().await;
    let (load, handover) = service.connect().await;
    assert_eq!(load.kv, Some(KvSize::Pages(KV_PAGES)));
    assert_eq!(handover.pool.unwrap().manifest, pool.manifest);
    assert_told_nothing(&mut service).await;
    service.emit_ready_with_pool(&pool).await;
    let second = service.served().await;
    assert!(second.keep && second.settled, "the first was reaped");
    assert_eq!(second.epoch, first.epoch + 1);
    service.submitted().await;
}

#[tokio::test]
async fn all_is_settled_when_the_worker_before_was_reaped() {
    let pool = pool();
    let mut service = on_pool(&pool).await;
    let (_stream, _) = service.run(job("a")).await;
    let lost = service.generation;
    service.lose_link().await;
    connect(&mut service).await;
    service.emit_ready_with_pool(&pool).await;
    assert!(!service.served().await.settled);
    service.submitted().await;
    assert_told_nothing(&mut service).await;
    ended(&service, lost).await;
    service.told_that_all_is_settled().await;
    ended(&service, lost).await;
    assert_told_nothing(&mut service).await;
}

#[tokio::test]
async fn a_worker_that_does_not_serve_yet_is_told_with_its_serve() {
    let pool = pool();
    let mut service = on_pool(&pool).await;
    let lost = service.generation;
    service.lose_link().await;
    connect(&mut service).await;
    ended(&service, lost).await;
    assert_told_nothing(&mut service).await;
    service.emit_ready_with_pool(&pool).await;
    assert!(service.served().await.settled);
}

#[tokio::test]
async fn the_last_of_several_lost_workers_settles_it() {
    let pool = pool();
    let mut service = on_pool(&pool).await;
    let first = service.generation;
    service.lose_link().await;
    connect(&mut service).await;
    service.emit_ready_with_pool(&pool).await;
    assert!(!service.served().await.settled);
    let second = service.generation;
    service.lose_link().await;
    connect(&mut service).await;
    service.emit_ready_with_pool(&pool).await;
    assert!(!service.served().await.settled);
    ended(&service, second).await;
    assert_told_nothing(&mut service).await;
    ended(&service, first).await;
    service.told_that_all_is_settled().await;
}

#[tokio::test]
async fn nothing_is_settled_while_a_worker_is_stuck_in_its_driver() {
    let pool = pool();
    let mut service = Service::start(|s| s.fleet.policy.abandon_after = Duration::from_millis(10));
    service.connect().await;
    service.emit_ready_with_pool(&pool).await;
    service.served().await;
    let stuck = service.generation;
    service.lose_link().await;
    connect(&mut service).await;
    // By now nobody waits for it any more.
    tokio::time::sleep(SOON).await;
    service.emit_ready_with_pool(&pool).await;
    assert!(!service.served().await.settled);
    let unknown = WorkerEvent::Exited(WorkerExit::Unknown);
    service.emit_as(stuck, unknown).await;
    service.crash().await;
    connect(&mut service).await;
    service.emit_ready_with_pool(&pool).await;
    assert!(!service.served().await.settled);
    assert_told_nothing(&mut service).await;
    // Unless it comes out of it.
    ended(&service, stuck).await;
    service.told_that_all_is_settled().await;
}

#[tokio::test]
async fn pages_are_believed_until_a_worker_is_lost_in_the_middle_of_replays() {
    let pool = pool();
    let mut service = on_pool(&pool).await;
    let (_a, a) = service.run(job("a")).await;
    let (_b, b) = service.run(job("b")).await;
    assert!(replaced(&mut service, &pool).await, "a first loss");
    assert_eq!(service.submitted().await.key, a.key);
    assert_eq!(service.submitted().await.key, b.key, "together");
    assert!(!replaced(&mut service, &pool).await, "without progress");
    assert_eq!(service.submitted().await.key, a.key);
    assert_told_nothing(&mut service).await;
    service.tokens(a.key, 0, "x").await;
    assert_eq!(service.submitted().await.key, b.key, "one by one");
    service.tokens(b.key, 0, "x").await;
    assert!(replaced(&mut service, &pool).await, "all had gone on");
}

/// The present worker is lost, and another serves; whether that believes what is in the pages.
async fn replaced(service: &mut Service, pool: &PoolHandle) -> bool {
    service.crash().await;
    assert_eq!(connect(service).await, Some(id(pool)));
    service.emit_ready_with_pool(pool).await;
    service.served().await.keep
}

#[tokio::test(start_paused = true)]
async fn an_unhealthy_service_believes_no_pages() {
    let pool = pool();
    let mut service = on_pool(&pool).await;
    for losses in 1..=5 {
        let keep = replaced(&mut service, &pool).await;
        assert_eq!(keep, losses < 5, "{losses}");
    }
}

#[tokio::test]
async fn a_standby_is_told_to_serve_when_it_takes_over_and_its_predecessor_is_killed_before() {
    let pool = pool();
    let (mut service, present, standby) = with_standby(&pool, &pool).await;
    let (_stream, _) = service.run(job("a")).await;
    let message = "closed".into();
    service.emit(WorkerEvent::LinkLost { message }).await;
    service.generation = standby;
    service.killed_as(present).await;
    let serve = service.served().await;
    assert!(serve.keep && !serve.settled);
    service.submitted().await;
    service.spawned().await;
    service.generation = standby;
    ended(&service, present).await;
    service.told_that_all_is_settled().await;
}

#[tokio::test]
async fn a_pool_that_a_standby_made_for_itself_is_held_once_it_serves() {
    let (used, own) = (pool(), pool());
    let (mut service, present, standby) = with_standby(&used, &own).await;
    assert_told_nothing(&mut service).await;
    // It is lost; the next one is given what the present worker uses.
    ended(&service, standby).await;
    add_standby(&mut service, &used, &own).await;
    let standby = service.generation;
    service.generation = present;
    service.lose_link().await;
    service.generation = standby;
    assert!(service.served().await.settled, "nobody else has that pool");
    assert_eq!(connect(&mut service).await, Some(id(&own)));
    ended(&service, present).await;
    assert_told_nothing(&mut service).await;
}

#[tokio::test]
async fn a_worker_without_a_pool_that_can_outlive_it_leaves_none() {
    let pool = pool();
    let mut service = on_pool(&pool).await;
    service.crash().await;
    assert_eq!(connect(&mut service).await, Some(id(&pool)));
    let ready = WorkerEvent::Ready {
        info: Box::new(super::support::info()),
        weights: None,
        pool: None,
    };
    service.emit(ready).await;
    service.served().await;
    service.crash().await;
    service.until(|s| s.restarts == 2).await;
    assert_eq!(connect(&mut service).await, None);
}

#[tokio::test]
async fn a_pool_that_workers_fail_to_load_with_twice_is_given_up() {
    let pool = pool();
    let mut service = on_pool(&pool).await;
    service.crash().await;
    for _ in 0..2 {
        assert_eq!(connect(&mut service).await, Some(id(&pool)));
        service.crash().await;
    }
    assert_eq!(connect(&mut service).await, None);
}

#[tokio::test]
async fn what_a_standby_takes_of_memory_is_without_the_pool_that_it_shares() {
    let shared = pool();
    let (service, ..) = with_standby(&shared, &shared).await;
    let standby = service.jobs.snapshot().standby.unwrap();
    assert_eq!(standby.memory_bytes, 0);
    let (service, ..) = with_standby(&shared, &pool()).await;
    let standby = service.jobs.snapshot().standby.unwrap();
    assert_eq!(standby.memory_bytes, super::support::info().memory_used);
}

/// One that takes no messages is lost, and no job is lost with it.
#[tokio::test]
async fn a_worker_that_does_not_take_its_serve_is_replaced() {
    use std::sync::atomic::Ordering;
    let pool = pool();
    let mut service = on_pool(&pool).await;
    let (_stream, spec) = service.run(job("a")).await;
    service.crash().await;
    connect(&mut service).await;
    service.clogged.store(true, Ordering::Relaxed);
    service.emit_ready_with_pool(&pool).await;
    service.killed().await;
    service.clogged.store(false, Ordering::Relaxed);
    connect(&mut service).await;
    service.emit_ready_with_pool(&pool).await;
    service.served().await;
    match service.call().await {
        Call::Send(_, ToWorker::Submit(again), _) => assert_eq!(again.key, spec.key),
        other => panic!("{other:?}"),
    }
}
