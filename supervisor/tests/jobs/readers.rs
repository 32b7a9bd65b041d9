//! Readers that leave, are slow, or come back.

use std::time::Duration;

use orcd_shared::error::ErrorCode;
use orcd_shared::protocol::message::ToSupervisor;
use orcd_supervisor::jobs::{JobEvent, NewJob};

use super::support::{Service, job, last, next, rest, text_of};

fn lasting(name: &str) -> NewJob {
    NewJob {
        continue_on_disconnect: true,
        ..job(name)
    }
}

#[tokio::test]
async fn a_reader_that_leaves_cancels_its_job() {
    let mut service = Service::ready().await;
    let (stream, spec) = service.run(job("a")).await;
    drop(stream);
    assert_eq!(service.told_to_cancel().await, spec.key);
    service.until(|s| s.running == 0).await;
}

#[tokio::test]
async fn a_reader_that_leaves_the_queue_frees_its_place() {
    let mut service = Service::ready_with(|s| s.queue = 1).await;
    let (_a, _) = service.run(job("a")).await;
    let (_b, _) = service.run(job("b")).await;
    drop(service.submit(job("c")).await);
    service.until(|s| s.queued == 0).await;
    service.submit(job("c")).await;
    assert!(service.pending_calls().is_empty());
}

#[tokio::test]
async fn a_slow_reader_loses_its_job_but_still_gets_the_last_event() {
    let mut service = Service::ready().await;
    let (mut slow, spec) = service.run(job("a")).await;
    let (mut other, other_spec) = service.run(job("b")).await;
    service.tokens(spec.key, 0, &"x".repeat(300)).await;
    assert_eq!(service.told_to_cancel().await, spec.key);
    service.tokens(other_spec.key, 0, "y").await;
    service.eos(other_spec.key, 1).await;
    assert_eq!(text_of(&rest(&mut other).await), "y");
    let events = rest(&mut slow).await;
    assert_eq!(events.len(), 257);
    assert!(matches!(
        last(&events),
        JobEvent::Error {
            code: ErrorCode::Cancelled,
            ..
        }
    ));
}

#[tokio::test]
async fn unread_comments_leave_room_for_events() {
    let every = Duration::from_millis(1);
    let mut service =
        Service::ready_with(|s| (s.timing.keep_alive, s.timing.tick) = (every, every)).await;
    let (_a, a) = service.run(job("a")).await;
    let (_b, _) = service.run(job("b")).await;
    let mut c = service.submit(job("c")).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    service.eos(a.key, 0).await;
    let spec = service.submitted().await;
    service.tokens(spec.key, 0, "abc").await;
    service.eos(spec.key, 3).await;
    assert_eq!(text_of(&rest(&mut c).await), "abc");
}

#[tokio::test]
async fn a_lasting_job_goes_on_without_its_reader_and_is_resumed_with_the_same_events() {
    let mut service = Service::ready().await;
    let (mut first, spec) = service.run(lasting("a")).await;
    service.tokens(spec.key, 0, "abc").await;
    let mut seen = vec![
        next(&mut first).await.unwrap(),
        next(&mut first).await.unwrap(),
    ];
    drop(first);
    service.tokens(spec.key, 3, "def").await;
    let after = seen.last().unwrap().id;
    let mut second = service.jobs.resume("a".into(), after).await.unwrap();
    service.eos(spec.key, 6).await;
    seen.extend(rest(&mut second).await);
    assert_eq!(text_of(&seen), "abcdef");
    let mut again = service.jobs.resume("a".into(), None).await.unwrap();
    assert_eq!(rest(&mut again).await, seen);
    let ids: Vec<u64> = seen.iter().filter_map(|e| e.id).collect();
    assert_eq!(ids, (0..8).collect::<Vec<u64>>());
    assert!(service.pending_calls().is_empty(), "nothing was cancelled");
}

#[tokio::test]
async fn a_lasting_jobs_slow_reader_is_only_let_go() {
    let mut service = Service::ready().await;
    let (mut slow, spec) = service.run(lasting("a")).await;
    service.tokens(spec.key, 0, &"x".repeat(400)).await;
    service.eos(spec.key, 400).await;
    service.until(|s| s.running == 0).await;
    let seen = rest(&mut slow).await;
    assert_eq!(seen.len(), 256);
    let mut second = service.jobs.resume("a".into(), seen[255].id).await.unwrap();
    let more = rest(&mut second).await;
    assert_eq!(more[0].id, Some(256));
    assert_eq!(text_of(&seen).len() + text_of(&more).len(), 400);
    assert!(matches!(
        last(&more),
        JobEvent::End {
            tokens_out: 400,
            ..
        }
    ));
}

#[tokio::test]
async fn a_second_reader_takes_over_and_the_first_ones_leaving_changes_nothing() {
    let mut service = Service::ready().await;
    let (mut first, spec) = service.run(lasting("a")).await;
    service.tokens(spec.key, 0, "ab").await;
    next(&mut first).await;
    next(&mut first).await;
    let mut second = service.jobs.resume("a".into(), None).await.unwrap();
    rest(&mut first).await;
    drop(first);
    // Long enough for the departure to be heard before the end is.
    tokio::time::sleep(Duration::from_millis(50)).await;
    service.eos(spec.key, 2).await;
    let events = rest(&mut second).await;
    assert_eq!(text_of(&events), "ab");
    assert!(matches!(last(&events), JobEvent::End { tokens_out: 2, .. }));
}

#[tokio::test(start_paused = true)]
async fn only_lasting_jobs_are_resumed_and_only_for_a_time() {
    let mut service = Service::ready_with(|s| s.resume_ttl = Duration::from_millis(400)).await;
    let (_a, _) = service.run(job("a")).await;
    assert!(service.jobs.resume("a".into(), None).await.is_none());
    assert!(service.jobs.resume("nobody".into(), None).await.is_none());
    let (mut b, spec) = service.run(lasting("b")).await;
    service.eos(spec.key, 0).await;
    rest(&mut b).await;
    assert!(
        service
            .jobs
            .resume("b".into(), Some(u64::MAX))
            .await
            .is_some()
    );
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(service.jobs.resume("b".into(), None).await.is_none());
}

#[tokio::test]
async fn nothing_is_added_to_the_events_of_an_ended_job() {
    let mut service = Service::ready().await;
    let (mut stream, spec) = service.run(lasting("a")).await;
    service.eos(spec.key, 0).await;
    let seen = rest(&mut stream).await;
    let code = ErrorCode::VramOom;
    let late = ToSupervisor::JobFailed {
        key: spec.key,
        code,
        message: "late".into(),
    };
    service.message(late).await;
    service.submit(job("b")).await;
    let mut again = service.jobs.resume("a".into(), None).await.unwrap();
    assert_eq!(rest(&mut again).await, seen);
}

#[tokio::test]
async fn an_ended_jobs_name_is_free_while_its_events_are_held() {
    let mut service = Service::ready().await;
    for text in ["one", "two"] {
        let (mut stream, spec) = service.run(lasting("a")).await;
        service.tokens(spec.key, 0, text).await;
        service.eos(spec.key, 3).await;
        rest(&mut stream).await;
        let mut held = service.jobs.resume("a".into(), None).await.unwrap();
        assert_eq!(text_of(&rest(&mut held).await), text);
    }
}
