//! Jobs whose worker needed their KV memory for older ones.

use orcd_shared::error::ErrorCode;
use orcd_shared::job::Finish;
use orcd_shared::protocol::message::{KvSize, ToSupervisor};
use orcd_supervisor::jobs::JobEvent;

/// By then an event that comes has come.
const SOON: std::time::Duration = std::time::Duration::from_secs(20);

use super::support::{Service, job, last, rest, text_of};

#[tokio::test]
async fn a_preempted_job_is_given_again_with_its_tokens_and_its_stream_only_pauses() {
    let mut service = Service::ready().await;
    let (mut a, spec_a) = service.run(job("a")).await;
    let (mut b, spec_b) = service.run(job("b")).await;
    service.tokens(spec_b.key, 0, "zw").await;
    service.message(ToSupervisor::Preempted(spec_b.key)).await;
    let again = service.submitted().await;
    assert_eq!((again.key, again.emitted.len()), (spec_b.key, 2));
    assert_eq!(
        (&again.prompt, again.max_tokens),
        (&spec_b.prompt, spec_b.max_tokens)
    );
    // The last token once more, and the rest.
    service.tokens(again.key, 1, "wei").await;
    service.eos(again.key, 4).await;
    service.eos(spec_a.key, 0).await;
    let events = rest(&mut b).await;
    assert_eq!(text_of(&events), "zwei");
    assert!(matches!(last(&events), JobEvent::End { replays: 0, .. }));
    rest(&mut a).await;
    let snapshot = service.jobs.snapshot();
    assert_eq!((snapshot.preemptions, snapshot.restarts), (1, 0));
}

#[tokio::test]
async fn a_preempted_job_is_cancelled_without_a_word_to_the_worker() {
    let mut service = Service::ready_with_pages(3).await;
    let (_a, spec_a) = service.run(job("a")).await;
    let (mut b, spec_b) = service.run(job("b")).await;
    // The first grows into its second page, and may need the third.
    service.tokens(spec_a.key, 0, &"x".repeat(62)).await;
    service.message(ToSupervisor::Preempted(spec_b.key)).await;
    let snapshot = service.until(|s| s.preemptions == 1).await;
    // It goes on as soon as there is room, and until then nobody begins.
    assert_eq!((snapshot.running, snapshot.free_slots), (2, 0));
    service.jobs.cancel("b".into()).await;
    let events = rest(&mut b).await;
    assert!(matches!(
        last(&events),
        JobEvent::Error {
            code: ErrorCode::Cancelled,
            ..
        }
    ));
    assert!(service.pending_calls().is_empty());
}

#[tokio::test]
async fn a_worker_that_has_no_room_for_a_job_alone_fails_it_and_is_not_asked_for_ever() {
    let mut service = Service::ready().await;
    let (mut stream, spec) = service.run(job("a")).await;
    service.message(ToSupervisor::Preempted(spec.key)).await;
    let events = rest(&mut stream).await;
    assert!(matches!(
        last(&events),
        JobEvent::Error {
            code: ErrorCode::Internal,
            ..
        }
    ));
    let (mut next, spec) = service.run(job("b")).await;
    service
        .token(spec.key, 0, b'x'.into(), Some(Finish::MaxTokens))
        .await;
    assert_eq!(text_of(&rest(&mut next).await), "x");
}

#[tokio::test]
async fn a_job_waits_in_the_queue_while_its_prompt_has_no_room() {
    let mut service = Service::ready_with_pages(3).await;
    let mut wide = job("a");
    wide.prompt = vec![9; 100];
    let (_a, spec_a) = service.run(wide).await;
    let stream = service.jobs.submit(job("b")).await.unwrap();
    let snapshot = service.until(|s| s.queued == 1).await;
    assert_eq!((snapshot.running, snapshot.free_slots), (1, 0));
    assert!(service.pending_calls().is_empty());
    service.eos(spec_a.key, 0).await;
    assert_eq!(service.submitted().await.prompt, [1, 2, 3]);
    drop(stream);
}

#[tokio::test]
async fn a_lost_worker_with_preempted_jobs_leaves_them_without_blame() {
    let mut service = Service::ready_with_pages(3).await;
    let (mut a, spec_a) = service.run(job("a")).await;
    let (mut b, spec_b) = service.run(job("b")).await;
    service.tokens(spec_a.key, 0, &"x".repeat(62)).await;
    service.message(ToSupervisor::Preempted(spec_b.key)).await;
    service.until(|s| s.preemptions == 1).await;
    // As often as makes a suspect one that is given up.
    for _ in 0..3 {
        service.crash().await;
        let load = service.bring_up().await.0;
        assert_eq!(load.kv, Some(KvSize::Pages(3)));
        let Ok(again) = tokio::time::timeout(SOON, service.submitted()).await else {
            break;
        };
        if again.key == spec_b.key {
            // The first was given up, with three crashes.
            service.eos(spec_b.key, 0).await;
            break;
        }
    }
    let events = rest(&mut a).await;
    assert!(matches!(
        last(&events),
        JobEvent::Error {
            code: ErrorCode::WorkerCrashed,
            ..
        }
    ));
    assert!(matches!(
        last(&rest(&mut b).await),
        JobEvent::End { replays: 0, .. }
    ));
}
