//! How long a worker or a reader is waited for: as long as its steps take, and not a moment less because this
//! process itself stood still. Time here goes on only when everybody waits for it.

use std::time::Duration;

use orcd_shared::error::ErrorCode;
use orcd_shared::job::JobKey;
use orcd_shared::protocol::message::{StepReport, ToSupervisor};
use orcd_supervisor::jobs::{JobEvent, NewJob};
use orcd_supervisor::worker::WorkerEvent;

use super::support::{Call, PARALLEL, Service, job, last, rest, text_of};

const HANG: Duration = Duration::from_millis(1500);
/// Far beyond every limit.
const ABSENCE: Duration = Duration::from_secs(1000);

async fn watched() -> Service {
    Service::ready_with(|s| s.fleet.timing.hang = HANG).await
}

/// A worker whose steps take this long, in the middle of a job.
async fn with_steps_of(step: Duration) -> (Service, JobKey) {
    let mut service = watched().await;
    let (stream, spec) = service.run(lasting("a")).await;
    drop(stream);
    let report = StepReport {
        step: 1,
        step_us: u32::try_from(step.as_micros()).unwrap(),
        tokens: vec![],
        logprobs: Vec::new(),
    };
    service.message(ToSupervisor::Step(report)).await;
    (service, spec.key)
}

/// A job that needs no reader.
fn lasting(name: &str) -> NewJob {
    NewJob {
        continue_on_disconnect: true,
        ..job(name)
    }
}

/// Time passes, and the worker's heart beats.
async fn pass(service: &Service, time: Duration, running: u32) {
    let beat = Duration::from_millis(125);
    for _ in 0..time.as_millis() / beat.as_millis() {
        service.beat(running).await;
        tokio::time::sleep(beat).await;
    }
}

/// Nobody runs, neither timers nor this process; then it goes on.
async fn stand_still(service: &Service) {
    // What was sent before is heard before.
    tokio::time::sleep(Duration::from_millis(10)).await;
    tokio::time::advance(ABSENCE).await;
    service.beat(1).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
}

#[track_caller]
fn assert_left_alone(service: &mut Service) {
    let calls = service.pending_calls();
    assert!(calls.is_empty(), "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn a_second_job_may_wait_as_long_as_the_first_ones_step_takes() {
    let (mut service, _) = with_steps_of(Duration::from_millis(2500)).await;
    service.run(lasting("b")).await;
    // One step goes on; between two of them it would have taken the second job.
    pass(&service, 2 * HANG, 1).await;
    assert_left_alone(&mut service);
    pass(&service, Duration::from_secs(60), 1).await;
    service.killed().await;
}

#[tokio::test(start_paused = true)]
async fn a_cancellation_may_wait_as_long_as_a_step_takes() {
    let (mut service, key) = with_steps_of(Duration::from_millis(2500)).await;
    service.jobs.cancel("a".into()).await;
    assert_eq!(service.told_to_cancel().await, key);
    assert!(matches!(service.call().await, Call::Interrupt(1)));
    pass(&service, Duration::from_millis(4500), 1).await;
    assert_left_alone(&mut service);
    pass(&service, Duration::from_secs(2), 1).await;
    service.killed().await;
}

#[tokio::test(start_paused = true)]
async fn the_client_waits_for_no_answer_to_its_cancellation() {
    let mut service = watched().await;
    let (mut stream, spec) = service.run(job("a")).await;
    let begin = tokio::time::Instant::now();
    service.jobs.cancel("a".into()).await;
    let events = rest(&mut stream).await;
    assert!(matches!(last(&events), JobEvent::Error { .. }));
    let waited = begin.elapsed();
    assert!(waited < Duration::from_millis(50), "{waited:?}");
    assert_eq!(service.told_to_cancel().await, spec.key);
}

#[tokio::test(start_paused = true)]
async fn a_cancellation_is_not_overdue_because_nobody_heard_the_answer() {
    let (mut service, _) = with_steps_of(Duration::from_millis(1)).await;
    service.jobs.cancel("a".into()).await;
    service.told_to_cancel().await;
    stand_still(&service).await;
    assert!(matches!(service.call().await, Call::Interrupt(1)));
    pass(&service, Duration::from_millis(250), 1).await;
    assert_left_alone(&mut service);
    // It is waited for as long as ever, and no longer.
    pass(&service, Duration::from_millis(500), 1).await;
    service.killed().await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_starts_is_not_late_because_nobody_heard_it() {
    let mut service = Service::start(|_| {});
    service.spawned().await;
    service.emit(WorkerEvent::Spawned { pid: 4711 }).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    tokio::time::advance(ABSENCE).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    service.emit(WorkerEvent::Connected).await;
    assert!(matches!(service.call().await, Call::Send(..)), "Load");
    // It loads in silence; the limit for that is a minute.
    tokio::time::sleep(Duration::from_secs(30)).await;
    tokio::time::advance(ABSENCE).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_left_alone(&mut service);
    service.emit_ready_with_weights().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_worker_keeps_its_time_to_end_in_its_own_way() {
    let mut service = watched().await;
    let lost = service.generation;
    let fatal = ToSupervisor::Fatal {
        code: ErrorCode::CudaError,
        message: "gone".into(),
    };
    service.message(fatal).await;
    service.spawned().await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    tokio::time::advance(ABSENCE).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_left_alone(&mut service);
    service.killed_as(lost).await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_keeps_its_time_to_come_back() {
    let mut service = watched().await;
    let (stream, spec) = service.run(lasting("a")).await;
    drop(stream);
    service.tokens(spec.key, 0, "abc").await;
    service.eos(spec.key, 3).await;
    stand_still(&service).await;
    let mut again = service.jobs.resume("a".into(), None).await.unwrap();
    assert_eq!(text_of(&rest(&mut again).await), "abc");
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert!(service.jobs.resume("a".into(), None).await.is_err());
}

/// The bound of the messages to a worker is made for this.
#[tokio::test(start_paused = true)]
async fn a_worker_that_takes_nothing_is_sent_two_messages_a_slot_at_most() {
    let mut service = watched().await;
    let mut streams = Vec::new();
    for name in ["a", "b"] {
        streams.push(service.run(job(name)).await);
    }
    for name in ["c", "d", "e", "f"] {
        streams.push((service.submit(job(name)).await, streams[0].1.clone()));
    }
    let mut messages = 0;
    // What it still says makes room; what it was sent it has not read.
    for (_, spec) in &streams[..2] {
        service.eos(spec.key, 0).await;
    }
    for name in ["c", "d", "e", "f"] {
        tokio::time::sleep(Duration::from_millis(10)).await;
        service.jobs.cancel(name.into()).await;
    }
    tokio::time::sleep(Duration::from_millis(10)).await;
    for call in service.pending_calls() {
        assert!(
            matches!(call, Call::Send(..) | Call::Interrupt(_)),
            "{call:?}"
        );
        messages += u32::from(matches!(call, Call::Send(..)));
    }
    assert_eq!(messages, 2 * PARALLEL);
}
