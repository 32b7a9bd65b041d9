//! Jobs in their ordinary course: queue, start, tokens, cancellation, deadlines.

use std::time::{Duration, Instant};

use orcd_shared::error::ErrorCode;
use orcd_shared::protocol::message::{StepReport, StepToken, ToSupervisor};
use orcd_supervisor::jobs::{CancelStatus, JobEvent, ServiceState};

use super::support::{CONTEXT, Service, job, last, next, rest, text_of};

#[tokio::test]
async fn a_job_starts_streams_and_ends() {
    let mut service = Service::ready().await;
    let (mut stream, spec) = service.run(job("a")).await;
    assert_eq!(spec.prompt, [1, 2, 3]);
    assert_eq!((spec.emitted.len(), spec.max_tokens), (0, u32::MAX));
    service.tokens(spec.key, 0, "Hi!").await;
    service.eos(spec.key, 3).await;
    let events = rest(&mut stream).await;
    let ids: Vec<u64> = events.iter().map(|e| e.id).collect();
    assert_eq!(ids, [0, 1, 2, 3, 4]);
    let JobEvent::Started {
        prompt_tokens: 3,
        seed: 7,
        ..
    } = events[0].event
    else {
        panic!("{:?}", events[0]);
    };
    assert_eq!(text_of(&events), "Hi!");
    assert!(
        matches!(last(&events), JobEvent::End { tokens_out: 3, replays: 0, engine_time_us, .. }
            // Three tokens were drawn, and the end token's step was made for this job as well.
            if *engine_time_us == 400)
    );
    let snapshot = service.until(|s| s.running == 0).await;
    assert_eq!((snapshot.state, snapshot.queued), (ServiceState::Ready, 0));
}

#[tokio::test]
async fn queued_jobs_wait_and_run_in_order() {
    let mut service = Service::ready().await;
    let (_a, a) = service.run(job("a")).await;
    let (_b, _) = service.run(job("b")).await;
    let mut c = service.submit(job("c")).await;
    let mut d = service.submit(job("d")).await;
    assert_eq!(service.jobs.snapshot().queued, 2, "shown before the reply");
    assert!(service.pending_calls().is_empty());
    service.eos(a.key, 0).await;
    let spec = service.submitted().await;
    assert!(matches!(
        next(&mut c).await.unwrap().event,
        JobEvent::Started { .. }
    ));
    assert!(d.events.try_recv().is_none());
    service.eos(spec.key, 0).await;
    assert!(matches!(
        last(&rest(&mut c).await),
        JobEvent::End { tokens_out: 0, .. }
    ));
    service.submitted().await;
    assert!(matches!(
        next(&mut d).await.unwrap().event,
        JobEvent::Started { .. }
    ));
}

#[tokio::test]
async fn one_step_serves_several_jobs() {
    let mut service = Service::ready().await;
    let (mut a, spec_a) = service.run(job("a")).await;
    let (mut b, spec_b) = service.run(job("b")).await;
    let token = |key, id: u8| StepToken {
        key,
        index: 0,
        id: id.into(),
        finish: None,
    };
    let tokens = vec![token(spec_a.key, b'x'), token(spec_b.key, b'y')];
    let report = StepReport {
        step: 1,
        step_us: 5,
        tokens,
        logprobs: Vec::new(),
    };
    service.message(ToSupervisor::Step(report)).await;
    for (stream, expected) in [(&mut a, "x"), (&mut b, "y")] {
        next(stream).await;
        assert_eq!(text_of(&[next(stream).await.unwrap()]), expected);
    }
}

#[tokio::test]
async fn full_queue_and_names_in_flight_are_refused() {
    let mut service = Service::ready_with(|s| s.queue = 1).await;
    let (_a, a) = service.run(job("a")).await;
    let (_b, _) = service.run(job("b")).await;
    let _c = service.submit(job("c")).await;
    let refusal = service.jobs.submit(job("d")).await.unwrap_err();
    assert_eq!(refusal.code, ErrorCode::QueueFull);
    assert!(refusal.retry_after.is_some());
    for name in ["a", "c"] {
        let refusal = service.jobs.submit(job(name)).await.unwrap_err();
        assert_eq!(refusal.code, ErrorCode::JobExists);
    }
    service.eos(a.key, 0).await;
    service.submitted().await;
    service.submit(job("a")).await;
}

#[tokio::test]
async fn cancelled_job_gets_its_last_event_before_the_worker_answers() {
    let mut service = Service::ready().await;
    let (mut stream, spec) = service.run(job("a")).await;
    service.tokens(spec.key, 0, "ab").await;
    service.until(|s| s.running == 1).await;
    next(&mut stream).await;
    next(&mut stream).await;
    next(&mut stream).await;
    assert_eq!(
        service.jobs.cancel("a".into()).await,
        CancelStatus::Cancelling
    );
    assert_eq!(service.jobs.snapshot().running, 0, "shown before the reply");
    assert_eq!(service.told_to_cancel().await, spec.key);
    service.tokens(spec.key, 2, "late").await;
    let events = rest(&mut stream).await;
    let [only] = &events[..] else {
        panic!("{events:?}")
    };
    assert!(matches!(
        only.event,
        JobEvent::Error {
            code: ErrorCode::Cancelled,
            tokens_out: 2,
            ..
        }
    ));
    assert_eq!(service.jobs.cancel("a".into()).await, CancelStatus::Unknown);
}

#[tokio::test]
async fn the_slot_of_a_cancelled_job_is_free_once_the_worker_says_so() {
    let mut service = Service::ready().await;
    let (_a, a) = service.run(job("a")).await;
    let (_b, _) = service.run(job("b")).await;
    let _c = service.submit(job("c")).await;
    service.jobs.cancel("a".into()).await;
    service.told_to_cancel().await;
    assert!(service.pending_calls().is_empty());
    service.message(ToSupervisor::Cancelled(a.key)).await;
    service.submitted().await;
}

#[tokio::test]
async fn a_queued_job_is_cancelled_without_the_worker() {
    let mut service = Service::ready().await;
    let (_a, a) = service.run(job("a")).await;
    let (_b, _) = service.run(job("b")).await;
    let mut c = service.submit(job("c")).await;
    service.jobs.cancel("c".into()).await;
    let events = rest(&mut c).await;
    assert!(matches!(
        last(&events),
        JobEvent::Error {
            code: ErrorCode::Cancelled,
            ..
        }
    ));
    assert_eq!(events[0].id, 0);
    service.eos(a.key, 0).await;
    service.until(|s| s.running == 1).await;
    assert!(service.pending_calls().is_empty());
}

#[tokio::test]
async fn deadlines_end_running_and_queued_jobs() {
    let mut service = Service::ready().await;
    let soon = || Instant::now() + Duration::from_millis(40);
    let mut running = job("a");
    running.deadline = soon();
    let (mut a, spec) = service.run(running).await;
    let (_b, _) = service.run(job("b")).await;
    let mut queued = job("c");
    queued.deadline = soon();
    let mut c = service.submit(queued).await;
    for stream in [&mut a, &mut c] {
        let events = rest(stream).await;
        let code = ErrorCode::InferenceTimeout;
        assert!(matches!(last(&events), JobEvent::Error { code: c, .. } if *c == code));
    }
    assert_eq!(service.told_to_cancel().await, spec.key);
}

#[tokio::test]
async fn a_failed_job_leaves_others_alone() {
    let mut service = Service::ready().await;
    let (mut a, spec_a) = service.run(job("a")).await;
    let (mut b, spec_b) = service.run(job("b")).await;
    let code = ErrorCode::VramOom;
    let failed = ToSupervisor::JobFailed {
        key: spec_a.key,
        code,
        message: "full".into(),
    };
    service.message(failed).await;
    let events = rest(&mut a).await;
    assert!(matches!(
        last(&events),
        JobEvent::Error {
            code: ErrorCode::VramOom,
            ..
        }
    ));
    service.tokens(spec_b.key, 0, "z").await;
    service.eos(spec_b.key, 1).await;
    assert_eq!(text_of(&rest(&mut b).await), "z");
}

#[tokio::test]
async fn a_worker_is_told_what_the_job_asked_for_whatever_the_context_leaves() {
    let mut service = Service::ready().await;
    let mut long = job("a");
    long.prompt = vec![9; CONTEXT as usize - 2];
    long.max_tokens = Some(7);
    let (_stream, spec) = service.run(long).await;
    assert_eq!(spec.max_tokens, 7);
    let mut too_long = job("b");
    too_long.prompt = vec![9; CONTEXT as usize];
    let refusal = service.jobs.submit(too_long).await.unwrap_err();
    assert_eq!(refusal.code, ErrorCode::ContextLengthExceeded);
}

#[tokio::test]
async fn a_token_out_of_order_fails_its_job() {
    let mut service = Service::ready().await;
    let (mut stream, spec) = service.run(job("a")).await;
    service.token(spec.key, 1, 65, None).await;
    let events = rest(&mut stream).await;
    assert!(matches!(
        last(&events),
        JobEvent::Error {
            code: ErrorCode::Internal,
            ..
        }
    ));
    assert_eq!(service.told_to_cancel().await, spec.key);
}

#[tokio::test]
async fn tokens_alone_publish_no_snapshot() {
    let mut service = Service::ready().await;
    let (mut stream, spec) = service.run(job("a")).await;
    next(&mut stream).await;
    let mut shown = service.jobs.watch();
    service.until(|s| s.running == 1).await;
    shown.mark_unchanged();
    for index in 0..2 {
        service.token(spec.key, index, b'x'.into(), None).await;
        next(&mut stream).await;
        // Some ticks.
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    assert!(!shown.has_changed().unwrap());
    // But what a heartbeat says of KV memory is shown.
    service.beat(1).await;
    service
        .until(|s| (s.kv_pages().used, s.kv_pages().free) == (1, 19))
        .await;
}
