//! What jobs may take of memory, counted in bytes, and of time when there are many.

use std::time::{Duration, Instant};

use orcd_shared::error::ErrorCode;
use orcd_supervisor::jobs::{JobEvent, JobStream, NoStream};

use super::readers::lasting;
use super::support::{Service, job, last, next, rest, text_of};

/// Runs a job that goes on without readers to its end.
async fn run_to_end(service: &mut Service, name: &str, tokens: usize) -> JobStream {
    let (stream, spec) = service.run(lasting(name)).await;
    service.tokens(spec.key, 0, &"x".repeat(tokens)).await;
    service.eos(spec.key, tokens as u32).await;
    service.until(|s| s.running == 0).await;
    stream
}

/// Waits for what the next look at the clocks does.
async fn until_gone(service: &Service, name: &str) {
    let since = Instant::now();
    while service.jobs.resume(name.into(), None).await.is_ok() {
        assert!(since.elapsed() < Duration::from_secs(10), "{name} is kept");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn the_oldest_ended_jobs_make_room_for_later_events() {
    let mut service = Service::ready_with(|s| s.bounds.events_bytes = 100 << 10).await;
    // Each between thirty and forty KiB.
    for name in ["a", "b"] {
        drop(run_to_end(&mut service, name, 400).await);
    }
    assert!(service.jobs.resume("a".into(), None).await.is_ok());
    for name in ["c", "d"] {
        drop(run_to_end(&mut service, name, 400).await);
    }
    until_gone(&service, "a").await;
    let mut youngest = service.jobs.resume("d".into(), None).await.unwrap();
    assert_eq!(text_of(&rest(&mut youngest).await).len(), 400);
}

#[tokio::test]
async fn a_reader_whose_events_made_room_sees_no_end() {
    let mut service = Service::ready_with(|s| s.bounds.events_bytes = 48 << 10).await;
    let mut a = run_to_end(&mut service, "a", 400).await;
    next(&mut a).await;
    drop(run_to_end(&mut service, "b", 400).await);
    until_gone(&service, "a").await;
    assert!(rest(&mut a).await.is_empty());
    let refused = service.jobs.resume("a".into(), None).await;
    assert_eq!(refused.unwrap_err(), NoStream::Unknown);
}

#[tokio::test]
async fn events_that_nobody_takes_of_jobs_that_are_over_make_room_too() {
    let mut service = Service::ready_with(|s| s.bounds.events_bytes = 64 << 10).await;
    let mut unread = Vec::new();
    for name in ["a", "b", "c"] {
        let (stream, spec) = service.run(job(name)).await;
        service.tokens(spec.key, 0, &"x".repeat(400)).await;
        service.eos(spec.key, 400).await;
        service.until(|s| s.running == 0).await;
        unread.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(rest(&mut unread[0]).await.is_empty(), "the oldest went");
    assert_eq!(text_of(&rest(&mut unread[2]).await).len(), 400);
}

#[tokio::test]
async fn the_job_in_flight_that_holds_most_goes_when_nothing_else_can() {
    let mut service = Service::ready_with(|s| s.bounds.events_bytes = 128 << 10).await;
    let (mut small, small_spec) = service.run(lasting("small")).await;
    let (_large, spec) = service.run(lasting("large")).await;
    service.tokens(small_spec.key, 0, "abc").await;
    service.tokens(spec.key, 0, &"x".repeat(3000)).await;
    assert_eq!(service.told_to_cancel().await, spec.key);
    service.eos(small_spec.key, 3).await;
    assert_eq!(text_of(&rest(&mut small).await), "abc");
}

#[tokio::test]
async fn prompts_that_wait_are_bounded_in_bytes() {
    let mut service = Service::ready_with(|s| s.bounds.queue_bytes = 4000).await;
    let with_prompt = |name: &str, tokens: usize| {
        let mut job = job(name);
        job.prompt = vec![7; tokens];
        job
    };
    let (_a, a) = service.run(with_prompt("a", 590)).await;
    let (_b, b) = service.run(with_prompt("b", 590)).await;
    let _c = service.submit(with_prompt("c", 500)).await;
    let mut d = service.submit(with_prompt("d", 500)).await;
    let refusal = service.jobs.submit(job("e")).await.unwrap_err();
    assert_eq!(refusal.code, ErrorCode::QueueFull);
    assert!(refusal.message.contains("4000"), "{}", refusal.message);
    // Room comes back, whether a job begins or is cancelled.
    service.eos(a.key, 0).await;
    service.submitted().await;
    let _e = service.submit(with_prompt("e", 500)).await;
    let refusal = service.jobs.submit(job("f")).await.unwrap_err();
    assert_eq!(refusal.code, ErrorCode::QueueFull);
    service.jobs.cancel("d".into()).await;
    assert!(matches!(last(&rest(&mut d).await), JobEvent::Error { .. }));
    let _f = service.submit(with_prompt("f", 500)).await;
    service.eos(b.key, 0).await;
    service.submitted().await;
}

/// How long it takes to end so many jobs that wait.
async fn time_to_end(jobs: usize) -> Duration {
    let service = Service::ready_with(|s| {
        s.queue = jobs;
        s.drain_timeout = Duration::ZERO;
    })
    .await;
    let mut streams = Vec::with_capacity(jobs);
    for n in 0..jobs {
        streams.push(service.submit(job(&n.to_string())).await);
    }
    let begin = Instant::now();
    service.jobs.drain().await;
    service.until(|s| s.queued == 0).await;
    let took = begin.elapsed();
    let mut last_one = streams.pop().unwrap();
    assert!(matches!(
        last(&rest(&mut last_one).await),
        JobEvent::Error {
            code: ErrorCode::Cancelled,
            ..
        }
    ));
    took
}

#[tokio::test]
async fn ending_all_jobs_takes_time_in_proportion_to_their_number() {
    let few = time_to_end(4_000).await;
    let mut many = Duration::MAX;
    // Another process may be in the way once.
    for _ in 0..2 {
        many = many.min(time_to_end(64_000).await);
    }
    assert!(many < 60 * few, "4 000: {few:?}, 64 000: {many:?}");
}
