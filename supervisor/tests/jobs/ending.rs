//! How a job's output ends, and how the service does.

use std::time::Duration;

use orcd_shared::error::ErrorCode;
use orcd_shared::job::Finish;
use orcd_shared::protocol::message::ToWorker;
use orcd_supervisor::jobs::dispatcher::Outcome;
use orcd_supervisor::jobs::{JobEvent, Numbered, ServiceState, StopReason};
use orcd_supervisor::worker::WorkerEvent;
use orcd_supervisor::worker::process::WorkerExit;

use super::support::{CONTEXT, Call, END, Service, job, last, rest, text_of};

fn stop_of(events: &[Numbered]) -> (StopReason, Option<&str>) {
    match last(events) {
        JobEvent::End {
            stop_reason,
            stop_sequence,
            ..
        } => (*stop_reason, stop_sequence.as_deref()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn text_held_back_comes_out_with_the_last_of_max_tokens() {
    let mut service = Service::ready().await;
    let mut wanted = job("a");
    wanted.max_tokens = Some(2);
    wanted.stop = vec!["bcd".into()];
    let (mut stream, spec) = service.run(wanted).await;
    assert_eq!(spec.max_tokens, 2);
    service.token(spec.key, 0, b'a'.into(), None).await;
    service
        .token(spec.key, 1, b'b'.into(), Some(Finish::MaxTokens))
        .await;
    let events = rest(&mut stream).await;
    assert_eq!(text_of(&events), "ab");
    assert_eq!(stop_of(&events), (StopReason::MaxTokens, None));
    assert!(matches!(last(&events), JobEvent::End { tokens_out: 2, .. }));
}

#[tokio::test]
async fn text_held_back_at_the_end_token_comes_in_an_event_of_its_own() {
    let mut service = Service::ready().await;
    let mut wanted = job("a");
    wanted.stop = vec!["bcd".into()];
    let (mut stream, spec) = service.run(wanted).await;
    service.tokens(spec.key, 0, "abc").await;
    service.eos(spec.key, 3).await;
    let events = rest(&mut stream).await;
    assert_eq!(text_of(&events), "abc");
    let flushed = JobEvent::Token {
        text: "bc".into(),
        index: 3,
        id: END,
        logprob: None,
        top: None,
    };
    assert_eq!(events[4].event, flushed);
    assert_eq!(stop_of(&events), (StopReason::Eos, None));
    assert!(matches!(last(&events), JobEvent::End { tokens_out: 4, .. }));
}

#[tokio::test]
async fn unfinished_code_point_is_flushed_as_a_replacement() {
    let mut service = Service::ready().await;
    let (mut stream, spec) = service.run(job("a")).await;
    service.token(spec.key, 0, 0xe2, None).await;
    service.eos(spec.key, 1).await;
    assert_eq!(text_of(&rest(&mut stream).await), "\u{fffd}");
}

#[tokio::test]
async fn stop_sequence_ends_the_job_and_is_no_part_of_the_text() {
    let mut service = Service::ready().await;
    let mut wanted = job("a");
    wanted.stop = vec!["nope".into(), "lo w".into()];
    let (mut stream, spec) = service.run(wanted).await;
    service.tokens(spec.key, 0, "hello world").await;
    let events = rest(&mut stream).await;
    assert_eq!(text_of(&events), "hel");
    assert_eq!(stop_of(&events), (StopReason::StopSequence, Some("lo w")));
    assert!(matches!(last(&events), JobEvent::End { tokens_out: 7, .. }));
    assert_eq!(service.told_to_cancel().await, spec.key);
}

#[tokio::test]
async fn output_cut_by_the_context_says_so() {
    let mut service = Service::ready().await;
    let mut long = job("a");
    long.prompt = vec![9; CONTEXT as usize - 1];
    long.max_tokens = Some(2);
    let (mut stream, spec) = service.run(long).await;
    service
        .token(spec.key, 0, b'a'.into(), Some(Finish::MaxTokens))
        .await;
    let events = rest(&mut stream).await;
    assert_eq!(stop_of(&events), (StopReason::ContextFull, None));
}

#[tokio::test]
async fn drain_lets_jobs_finish_and_then_shuts_the_worker_down() {
    let mut service = Service::ready().await;
    let (mut a, spec_a) = service.run(job("a")).await;
    let (_b, spec_b) = service.run(job("b")).await;
    let mut c = service.submit(job("c")).await;
    service.jobs.drain().await;
    service.until(|s| s.state == ServiceState::Draining).await;
    let refusal = service.jobs.submit(job("d")).await.unwrap_err();
    assert_eq!(refusal.code, ErrorCode::Draining);
    service.tokens(spec_a.key, 0, "x").await;
    service.eos(spec_a.key, 1).await;
    assert_eq!(text_of(&rest(&mut a).await), "x");
    let spec_c = service.submitted().await;
    service.eos(spec_b.key, 0).await;
    service.eos(spec_c.key, 0).await;
    let events = rest(&mut c).await;
    assert_eq!(stop_of(&events), (StopReason::Eos, None));
    assert!(matches!(
        service.call().await,
        Call::Send(_, ToWorker::Shutdown, _)
    ));
    service.emit(WorkerEvent::Exited(WorkerExit::Code(0))).await;
    assert_eq!(service.outcome().await, Outcome::Stopped);
}

#[tokio::test]
async fn drain_that_takes_too_long_cancels_and_kills() {
    let mut service = Service::ready_with(|s| {
        s.drain_timeout = Duration::from_millis(30);
        s.fleet.policy.shutdown_grace = Duration::from_millis(20);
    })
    .await;
    let (mut stream, _) = service.run(job("a")).await;
    service.jobs.drain().await;
    let events = rest(&mut stream).await;
    let JobEvent::Error { code, .. } = last(&events) else {
        panic!("{events:?}")
    };
    assert_eq!(*code, ErrorCode::Cancelled);
    assert!(code.retriable());
    service.told_to_cancel().await;
    assert!(matches!(
        service.call().await,
        Call::Send(_, ToWorker::Shutdown, _)
    ));
    service.killed().await;
    service
        .emit(WorkerEvent::Exited(WorkerExit::Signal(9)))
        .await;
    assert_eq!(service.outcome().await, Outcome::Stopped);
}

#[tokio::test]
async fn without_handles_the_service_stops() {
    let mut service = Service::ready().await;
    let Service { jobs, .. } = &mut service;
    // The last handle goes when the other is put in its place.
    let (other, _) = orcd_supervisor::jobs::dispatcher::start_on(
        super::support::settings(),
        std::sync::Arc::default(),
        |_| Err::<super::support::PlayedHost, _>("none".into()),
    );
    *jobs = other;
    assert!(matches!(
        service.call().await,
        Call::Send(_, ToWorker::Shutdown, _)
    ));
    service.emit(WorkerEvent::Exited(WorkerExit::Code(0))).await;
    assert_eq!(service.outcome().await, Outcome::Stopped);
}
