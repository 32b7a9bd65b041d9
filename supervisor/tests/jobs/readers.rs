//! Readers that leave, are slow, or come back.

use std::time::Duration;

use orcd_shared::error::ErrorCode;
use orcd_shared::protocol::message::ToSupervisor;
use orcd_supervisor::jobs::dispatcher::DispatcherSettings;
use orcd_supervisor::jobs::{JobEvent, NewJob, NoStream};

use super::support::{Service, job, last, next, rest, text_of};

pub(super) fn lasting(name: &str) -> NewJob {
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

/// Little room for untaken events, and a short grace.
fn narrow(settings: &mut DispatcherSettings) {
    settings.bounds.reader_bytes = 16 << 10;
    settings.bounds.reader_grace = Duration::from_millis(50);
}

#[tokio::test]
async fn a_slow_reader_loses_its_job_but_still_gets_the_last_event() {
    let mut service = Service::ready_with(narrow).await;
    let (mut slow, spec) = service.run(job("a")).await;
    let (mut other, other_spec) = service.run(job("b")).await;
    service.tokens(spec.key, 0, &"x".repeat(300)).await;
    assert_eq!(service.told_to_cancel().await, spec.key);
    service.tokens(other_spec.key, 0, "y").await;
    service.eos(other_spec.key, 1).await;
    assert_eq!(text_of(&rest(&mut other).await), "y");
    let events = rest(&mut slow).await;
    assert_eq!(events.len(), 302, "nothing that was made is lost");
    assert!(matches!(
        last(&events),
        JobEvent::Error {
            code: ErrorCode::Cancelled,
            ..
        }
    ));
}

#[tokio::test]
async fn a_reader_that_comes_back_in_time_keeps_its_job() {
    let mut service = Service::ready_with(|s| {
        narrow(s);
        s.bounds.reader_grace = Duration::from_secs(60);
    })
    .await;
    let (mut stream, spec) = service.run(job("a")).await;
    for round in 0..5 {
        service
            .tokens(spec.key, round * 400, &"x".repeat(400))
            .await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut tokens = 0;
        while tokens < 400 {
            let event = next(&mut stream).await.unwrap().event;
            tokens += u32::from(matches!(event, JobEvent::Token { .. }));
        }
    }
    service.eos(spec.key, 2000).await;
    assert!(matches!(
        last(&rest(&mut stream).await),
        JobEvent::End {
            tokens_out: 2000,
            ..
        }
    ));
}

#[tokio::test]
async fn many_events_at_once_are_not_the_readers_fault() {
    let mut service = Service::ready().await;
    let (mut stream, spec) = service.run(job("a")).await;
    // What a worker has ready for a supervisor that stood still.
    service.tokens(spec.key, 0, &"x".repeat(5000)).await;
    service.eos(spec.key, 5000).await;
    service.until(|s| s.running == 0).await;
    assert_eq!(text_of(&rest(&mut stream).await).len(), 5000);
}

#[tokio::test]
async fn the_time_that_this_process_stood_still_is_not_the_readers() {
    let mut service = Service::ready_with(|s| {
        narrow(s);
        s.bounds.reader_grace = Duration::from_secs(1);
    })
    .await;
    let (mut stream, spec) = service.run(job("a")).await;
    service.tokens(spec.key, 0, &"x".repeat(400)).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    // The runtime has this one thread.
    std::thread::sleep(Duration::from_secs(2));
    // The clocks are looked at again.
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(service.pending_calls().is_empty(), "it was cancelled");
    service.eos(spec.key, 400).await;
    assert!(matches!(
        last(&rest(&mut stream).await),
        JobEvent::End { .. }
    ));
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
    let after = Some(seen.last().unwrap().id);
    let mut second = service.jobs.resume("a".into(), after).await.unwrap();
    service.eos(spec.key, 6).await;
    seen.extend(rest(&mut second).await);
    assert_eq!(text_of(&seen), "abcdef");
    let mut again = service.jobs.resume("a".into(), None).await.unwrap();
    assert_eq!(rest(&mut again).await, seen);
    let ids: Vec<u64> = seen.iter().map(|e| e.id).collect();
    assert_eq!(ids, (0..8).collect::<Vec<u64>>());
    assert!(service.pending_calls().is_empty(), "nothing was cancelled");
}

#[tokio::test]
async fn a_lasting_jobs_slow_reader_gets_everything_in_the_end() {
    let mut service = Service::ready_with(narrow).await;
    let (mut slow, spec) = service.run(lasting("a")).await;
    service.tokens(spec.key, 0, &"x".repeat(400)).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    service.eos(spec.key, 400).await;
    service.until(|s| s.running == 0).await;
    let seen = rest(&mut slow).await;
    assert_eq!(text_of(&seen).len(), 400);
    assert!(matches!(
        last(&seen),
        JobEvent::End {
            tokens_out: 400,
            ..
        }
    ));
}

#[tokio::test]
async fn each_reader_reads_from_its_own_place() {
    let mut service = Service::ready().await;
    let (mut first, spec) = service.run(lasting("a")).await;
    service.tokens(spec.key, 0, "ab").await;
    next(&mut first).await;
    let mut whole = service.jobs.resume("a".into(), None).await.unwrap();
    let mut part = service.jobs.resume("a".into(), Some(1)).await.unwrap();
    // One that leaves changes nothing for the others, nor for the job.
    drop(service.jobs.resume("a".into(), None).await.unwrap());
    service.tokens(spec.key, 2, "cd").await;
    service.eos(spec.key, 4).await;
    let all = rest(&mut whole).await;
    assert_eq!(text_of(&all), "abcd");
    assert!(matches!(last(&all), JobEvent::End { tokens_out: 4, .. }));
    assert_eq!(rest(&mut first).await, all[1..]);
    assert_eq!(rest(&mut part).await, all[2..]);
    assert!(service.pending_calls().is_empty(), "nothing was cancelled");
}

#[tokio::test]
async fn a_job_has_so_many_readers_and_each_that_leaves_makes_room() {
    let mut service = Service::ready_with(|s| s.bounds.readers_per_job = 2).await;
    let (first, spec) = service.run(lasting("a")).await;
    let second = service.jobs.resume("a".into(), None).await.unwrap();
    let crowded = NoStream::Crowded { readers: 2 };
    let refused = service.jobs.resume("a".into(), None).await;
    assert_eq!(refused.unwrap_err(), crowded);
    for reader in [first, second] {
        drop(reader);
        // The disconnect is heard in its turn.
        let mut again = service.jobs.resume("a".into(), None).await;
        while matches!(again, Err(NoStream::Crowded { .. })) {
            tokio::time::sleep(Duration::from_millis(1)).await;
            again = service.jobs.resume("a".into(), None).await;
        }
        again.unwrap();
    }
    service.eos(spec.key, 0).await;
    service.until(|s| s.running == 0).await;
}

#[tokio::test]
async fn places_that_there_are_not_are_said() {
    let mut service = Service::ready().await;
    let (mut first, spec) = service.run(lasting("a")).await;
    service.tokens(spec.key, 0, "a").await;
    for _ in ["started", "token"] {
        next(&mut first).await.unwrap();
    }
    // `started` and a token: 1 is the last event so far, and what follows is waited for.
    let mut waits = service.jobs.resume("a".into(), Some(1)).await.unwrap();
    for ahead in [2, u64::MAX] {
        let refused = service.jobs.resume("a".into(), Some(ahead)).await;
        assert_eq!(refused.unwrap_err(), NoStream::Ahead { events: 2 });
    }
    service.eos(spec.key, 1).await;
    let end = rest(&mut waits).await;
    assert_eq!((end.len(), end[0].id), (1, 2));
    let resume = async |after| service.jobs.resume("a".into(), after).await;
    assert_eq!(resume(Some(2)).await.unwrap_err(), NoStream::Complete);
    let ahead = NoStream::Ahead { events: 3 };
    assert_eq!(resume(Some(3)).await.unwrap_err(), ahead);
    assert_eq!(rest(&mut resume(Some(1)).await.unwrap()).await, end);
}

#[tokio::test(start_paused = true)]
async fn only_lasting_jobs_are_resumed_and_only_for_a_time() {
    let mut service = Service::ready_with(|s| s.resume_ttl = Duration::from_millis(400)).await;
    let (_a, _) = service.run(job("a")).await;
    let unknown = async |name: &str| {
        let answer = service.jobs.resume(name.into(), None).await;
        answer.is_err_and(|error| error == NoStream::Unknown)
    };
    assert!(unknown("a").await && unknown("nobody").await);
    let (mut b, spec) = service.run(lasting("b")).await;
    service.eos(spec.key, 0).await;
    rest(&mut b).await;
    let mut reads = service.jobs.resume("b".into(), None).await.unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    let refused = service.jobs.resume("b".into(), None).await;
    assert_eq!(refused.unwrap_err(), NoStream::Unknown);
    assert_eq!(rest(&mut reads).await.len(), 2, "who came in time reads on");
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
