//! Workers that die, hang and come back different.

use std::sync::atomic::Ordering;
use std::time::Duration;

use orcd_shared::error::ErrorCode;
use orcd_shared::job::{Finish, JobKey, JobSpec};
use orcd_shared::protocol::message::{LoadSource, ToSupervisor};
use orcd_supervisor::jobs::dispatcher::Outcome;
use orcd_supervisor::jobs::{JobEvent, JobStream, NewJob, Numbered, ServiceState, Snapshot};
use orcd_supervisor::worker::WorkerEvent;
use orcd_supervisor::worker::process::WorkerExit;

use super::support::{Service, info, job, last, next, rest, text_of, timeless};

/// What the model says: umlauts, so that characters are torn by a crash between their bytes.
const SPEECH: &str = "wörter über bäume, und noch mehr wörter";

fn speech(index: usize) -> u32 {
    SPEECH.as_bytes()[index].into()
}

/// Tokens of a job from where its spec stands, up to but not including `to`; the last emitted one
/// is derived again first, as a worker does.
async fn speak(service: &mut Service, spec: &JobSpec, to: usize) {
    for index in spec.emitted.len().saturating_sub(1)..to {
        service
            .token(spec.key, index as u32, speech(index), None)
            .await;
    }
}

async fn speak_to_the_end(service: &mut Service, spec: &JobSpec) {
    speak(service, spec, SPEECH.len()).await;
    service.eos(spec.key, SPEECH.len() as u32).await;
}

/// Reads until so many tokens are there.
async fn read(stream: &mut JobStream, seen: &mut Vec<Numbered>, tokens: usize) {
    let is_token = |e: &&Numbered| matches!(e.event, JobEvent::Token { .. });
    while seen.iter().filter(is_token).count() < tokens {
        seen.push(next(stream).await.unwrap());
    }
}

fn with_stop(name: &str) -> NewJob {
    NewJob {
        stop: vec!["mehr bäume".into()],
        ..job(name)
    }
}

async fn undisturbed() -> Vec<Numbered> {
    let mut service = Service::ready().await;
    let (mut stream, spec) = service.run(with_stop("a")).await;
    speak_to_the_end(&mut service, &spec).await;
    rest(&mut stream).await
}

#[tokio::test]
async fn crashes_change_no_byte_of_a_stream() {
    let expected = undisturbed().await;
    assert_eq!(text_of(&expected), SPEECH);
    // Before the first token, inside a character, inside what may become a stop sequence.
    for cut in [0, 1, 2, 3, 11, 30, SPEECH.len()] {
        let mut service = Service::ready().await;
        let (mut stream, spec) = service.run(with_stop("a")).await;
        speak(&mut service, &spec, cut).await;
        let mut seen = Vec::new();
        read(&mut stream, &mut seen, cut).await;
        service.crash().await;
        let snapshot = service.until(|s| s.last_exit.is_some()).await;
        assert_eq!(snapshot.restarts, 1);
        assert_eq!(snapshot.state, ServiceState::Recovering);
        assert_eq!(snapshot.last_exit.as_deref(), Some("signal 9 (SIGKILL)"));
        assert_eq!((snapshot.running, snapshot.awaiting_replay), (1, 1));
        service.bring_up().await;
        let again = service.submitted().await;
        let snapshot = service.until(|s| s.awaiting_replay == 0).await;
        assert_eq!(snapshot.running, 1);
        assert_eq!(again.key, spec.key);
        assert_eq!(again.prompt, spec.prompt);
        assert_eq!(again.emitted, (0..cut).map(speech).collect::<Vec<_>>());
        assert_eq!(
            (again.max_tokens, again.sampling),
            (spec.max_tokens, spec.sampling)
        );
        speak_to_the_end(&mut service, &again).await;
        seen.extend(rest(&mut stream).await);
        assert!(matches!(last(&seen), JobEvent::End { replays: 1, .. }));
        assert_eq!(
            timeless(seen),
            timeless(expected.clone()),
            "crash after {cut} tokens"
        );
    }
}

#[tokio::test]
async fn running_jobs_come_back_in_their_order_and_before_the_queue() {
    let mut service = Service::ready().await;
    let mut streams = Vec::new();
    let mut keys = Vec::new();
    for name in ["a", "b"] {
        let (stream, spec) = service.run(job(name)).await;
        streams.push(stream);
        keys.push(spec.key);
    }
    streams.push(service.submit(job("c")).await);
    service.crash().await;
    streams.push(service.submit(job("d")).await);
    assert_eq!(
        service.jobs.snapshot().queued,
        2,
        "jobs are taken and held meanwhile"
    );
    service.bring_up().await;
    for key in &keys {
        assert_eq!(service.submitted().await.key, *key);
    }
    // A slot is free, but should the worker die of a replay, that is to be known.
    service.tokens(keys[0], 0, "x").await;
    service.eos(keys[0], 1).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let early = service.pending_calls();
    assert!(early.is_empty(), "before the replays are sound: {early:?}");
    service.tokens(keys[1], 0, "x").await;
    assert_eq!(service.submitted().await.key, JobKey(3));
}

#[tokio::test]
async fn after_a_loss_without_progress_jobs_come_back_one_after_the_other() {
    let mut service = Service::ready().await;
    let mut streams = Vec::new();
    let mut keys = Vec::new();
    for name in ["a", "b"] {
        let (stream, spec) = service.run(job(name)).await;
        streams.push(stream);
        keys.push(spec.key);
    }
    streams.push(service.submit(job("c")).await);
    service.crash().await;
    service.bring_up().await;
    for key in &keys {
        assert_eq!(service.submitted().await.key, *key);
    }
    service.crash().await;
    service.bring_up().await;
    for key in &keys {
        assert_eq!(service.submitted().await.key, *key);
        tokio::time::sleep(Duration::from_millis(20)).await;
        let early = service.pending_calls();
        assert!(early.is_empty(), "before the replay is sound: {early:?}");
        service.tokens(*key, 0, "x").await;
    }
    service.eos(keys[0], 1).await;
    assert_eq!(service.submitted().await.key, JobKey(3));
}

/// A job that no worker gets any further with, and one beside it.
#[tokio::test]
async fn a_job_that_kills_every_worker_at_once_is_given_up_and_the_one_beside_it_finishes() {
    let mut service = Service::ready().await;
    let (mut poison, bad) = service.run(job("a")).await;
    let (mut innocent, good) = service.run(job("b")).await;
    service.tokens(good.key, 0, "x").await;
    service.crash().await;
    service.bring_up().await;
    for key in [bad.key, good.key] {
        assert_eq!(service.submitted().await.key, key, "together");
    }
    service.crash().await;
    service.bring_up().await;
    assert_eq!(service.submitted().await.key, bad.key, "alone");
    service.crash().await;
    let events = rest(&mut poison).await;
    assert!(matches!(
        last(&events),
        JobEvent::Error {
            code: ErrorCode::WorkerCrashed,
            ..
        }
    ));
    service.bring_up().await;
    assert_eq!(service.submitted().await.key, good.key);
    service.tokens(good.key, 0, "xy").await;
    service.eos(good.key, 2).await;
    let events = rest(&mut innocent).await;
    assert_eq!(text_of(&events), "xy");
    assert!(matches!(last(&events), JobEvent::End { replays: 2, .. }));
}

#[tokio::test]
async fn a_diverging_replay_fails_its_job_alone() {
    let mut service = Service::ready().await;
    let (mut a, spec_a) = service.run(job("a")).await;
    let (mut b, spec_b) = service.run(job("b")).await;
    service.tokens(spec_a.key, 0, "xy").await;
    service.tokens(spec_b.key, 0, "xy").await;
    service.crash().await;
    service.bring_up().await;
    service.submitted().await;
    assert_eq!(service.submitted().await.key, spec_b.key);
    service.tokens(spec_a.key, 1, "z").await;
    assert_eq!(service.told_to_cancel().await, spec_a.key);
    service.tokens(spec_b.key, 1, "yz").await;
    service.eos(spec_b.key, 3).await;
    let events = rest(&mut a).await;
    assert_eq!(text_of(&events), "xy");
    let JobEvent::Error {
        code: ErrorCode::ReplayDiverged,
        tokens_out: 2,
        ..
    } = last(&events)
    else {
        panic!("{events:?}");
    };
    assert_eq!(text_of(&rest(&mut b).await), "xyz");
}

#[tokio::test]
async fn a_replay_that_does_not_show_its_last_token_fails() {
    let mut service = Service::ready().await;
    let (mut stream, spec) = service.run(job("a")).await;
    service.tokens(spec.key, 0, "xy").await;
    service.crash().await;
    service.bring_up().await;
    service.submitted().await;
    service.tokens(spec.key, 2, "z").await;
    let events = rest(&mut stream).await;
    assert!(matches!(
        last(&events),
        JobEvent::Error {
            code: ErrorCode::Internal,
            ..
        }
    ));
}

#[tokio::test]
async fn a_job_in_three_crashes_is_the_suspect_and_others_go_on() {
    let mut service = Service::ready().await;
    let (mut suspect, first) = service.run(job("a")).await;
    for _ in 0..2 {
        service.crash().await;
        service.bring_up().await;
        service.submitted().await;
    }
    service.tokens(first.key, 0, "x").await;
    let (mut other, spec) = service.run(job("b")).await;
    service.crash().await;
    let events = rest(&mut suspect).await;
    assert!(matches!(
        last(&events),
        JobEvent::Error {
            code: ErrorCode::WorkerCrashed,
            ..
        }
    ));
    service.bring_up().await;
    assert_eq!(service.submitted().await.key, spec.key);
    service
        .token(spec.key, 0, 65, Some(Finish::MaxTokens))
        .await;
    assert!(matches!(
        last(&rest(&mut other).await),
        JobEvent::End { replays: 1, .. }
    ));
}

#[tokio::test]
async fn what_a_lost_worker_still_says_is_not_heard() {
    let mut service = Service::ready().await;
    let (mut stream, spec) = service.run(job("a")).await;
    service.tokens(spec.key, 0, "a").await;
    let old = service.generation;
    service.crash().await;
    service.bring_up().await;
    service.submitted().await;
    let step = |index| {
        let tokens = vec![orcd_shared::protocol::message::StepToken {
            key: spec.key,
            index,
            id: 90,
            finish: None,
        }];
        let report = orcd_shared::protocol::message::StepReport {
            step: 1,
            step_us: 1,
            tokens,
            logprobs: Vec::new(),
        };
        WorkerEvent::Message(ToSupervisor::Step(report))
    };
    service.emit_as(old, step(1)).await;
    service
        .emit_as(old, WorkerEvent::Exited(WorkerExit::Code(0)))
        .await;
    service.tokens(spec.key, 0, "ab").await;
    service.eos(spec.key, 2).await;
    assert_eq!(text_of(&rest(&mut stream).await), "ab");
    assert_eq!(service.jobs.snapshot().restarts, 1);
}

#[tokio::test]
async fn weights_are_handed_to_the_next_worker_with_the_hash_of_the_model() {
    let mut service = Service::start(|_| {});
    let (load, _) = service.connect().await;
    assert_eq!(load.model_hash, None, "whatever the file holds");
    let manifest = service.emit_ready_with_weights().await;
    service.crash().await;
    let (load, handover) = service.connect().await;
    assert_eq!(load.weights.as_ref(), Some(&manifest));
    assert_eq!(handover.weights.unwrap().manifest, manifest);
    assert_eq!(load.model_hash, Some(info().model_hash));
    // A worker that built no image of its own and did not take this one: it is given up.
    let mut other = info();
    other.load_source = LoadSource::File;
    service
        .emit(WorkerEvent::Ready {
            info: Box::new(other),
            weights: None,
            pool: None,
        })
        .await;
    service.served().await;
    service.until(|s| s.state == ServiceState::Ready).await;
    service.crash().await;
    service.until(|s| s.restarts == 2).await;
    let (load, handover) = service.connect().await;
    assert!(load.weights.is_none() && handover.weights.is_none());
    assert_eq!(
        load.model_hash,
        Some(info().model_hash),
        "the service's, still"
    );
}

#[tokio::test]
async fn weights_that_workers_fail_to_load_on_twice_are_given_up() {
    let mut service = Service::start(|_| {});
    service.connect().await;
    service.emit_ready_with_weights().await;
    service.crash().await;
    for _ in 0..2 {
        let (load, _) = service.connect().await;
        assert!(load.weights.is_some());
        service.crash().await;
    }
    let (load, handover) = service.connect().await;
    assert!(load.weights.is_none() && handover.weights.is_none());
}

#[tokio::test]
async fn weights_are_kept_when_only_the_file_is_bad() {
    let mut service = Service::start(|_| {});
    service.connect().await;
    service.emit_ready_with_weights().await;
    service.crash().await;
    for _ in 0..3 {
        let (load, handover) = service.connect().await;
        assert!(load.weights.is_some() && handover.weights.is_some());
        let code = ErrorCode::ModelLoadFailed;
        let failed = ToSupervisor::LoadFailed {
            code,
            message: "unreadable".into(),
        };
        service.message(failed).await;
        service
            .emit(WorkerEvent::Exited(WorkerExit::Code(11)))
            .await;
    }
}

#[tokio::test]
async fn a_job_that_the_worker_drops_unasked_fails() {
    let mut service = Service::ready().await;
    let (mut stream, spec) = service.run(job("a")).await;
    service.message(ToSupervisor::Cancelled(spec.key)).await;
    let events = rest(&mut stream).await;
    assert!(matches!(
        last(&events),
        JobEvent::Error {
            code: ErrorCode::Internal,
            ..
        }
    ));
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_says_fatal_is_given_time_to_end_and_then_killed() {
    let mut service =
        Service::ready_with(|s| s.fleet.policy.exit_grace = Duration::from_millis(20)).await;
    let (_stream, spec) = service.run(job("a")).await;
    let fatal = ToSupervisor::Fatal {
        code: ErrorCode::CudaError,
        message: "gone".into(),
    };
    service.message(fatal).await;
    let lost = service.generation;
    service.bring_up().await;
    assert_eq!(service.submitted().await.key, spec.key);
    service.killed_as(lost).await;
    let end = WorkerEvent::Exited(WorkerExit::Code(12));
    service.emit_as(lost, end).await;
    service.until(|s| s.last_exit.is_some()).await;
    assert_eq!(
        service.jobs.snapshot().last_exit.as_deref(),
        Some("exit 12")
    );
}

#[tokio::test]
async fn a_worker_that_takes_no_messages_is_killed() {
    let mut service = Service::ready().await;
    service.clogged.store(true, Ordering::Relaxed);
    let _stream = service.submit(job("a")).await;
    service.killed().await;
    service.clogged.store(false, Ordering::Relaxed);
    service
        .emit(WorkerEvent::Exited(WorkerExit::Signal(9)))
        .await;
    service.bring_up().await;
    service.submitted().await;
}

const HANG: Duration = Duration::from_millis(400);

#[tokio::test(start_paused = true)]
async fn a_silent_worker_is_killed() {
    let mut service = Service::ready_with(|s| s.fleet.timing.hang = HANG).await;
    for _ in 0..10 {
        tokio::time::sleep(HANG / 4).await;
        service.beat(0).await;
    }
    assert!(service.pending_calls().is_empty());
    service.killed().await;
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_stands_still_is_shown_killed_and_its_job_replayed() {
    let mut service = Service::ready_with(|s| s.fleet.timing.hang = HANG).await;
    let (_stream, spec) = service.run(job("a")).await;
    service.tokens(spec.key, 0, "a").await;
    let mut was_shown = false;
    let killed = loop {
        service.beat(1).await;
        tokio::time::sleep(HANG / 8).await;
        was_shown |= service.jobs.snapshot().stalled;
        if let Some(call) = service.pending_calls().into_iter().next() {
            break call;
        }
    };
    assert!(
        matches!(killed, super::support::Call::Kill(1)),
        "{killed:?}"
    );
    assert!(was_shown, "health says so before it is acted upon");
}

#[tokio::test(start_paused = true)]
async fn an_engine_without_jobs_may_stand_still() {
    let mut service = Service::ready_with(|s| s.fleet.timing.hang = HANG).await;
    let (_stream, spec) = service.run(job("a")).await;
    service.tokens(spec.key, 0, "a").await;
    service.eos(spec.key, 1).await;
    for _ in 0..16 {
        tokio::time::sleep(HANG / 8).await;
        service.beat(0).await;
    }
    assert!(!service.jobs.snapshot().stalled);
    assert!(service.pending_calls().is_empty());
    let (_stream, _) = service.run(job("b")).await;
    assert!(
        !service.jobs.snapshot().stalled,
        "its time begins with the job"
    );
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_does_not_take_its_jobs_is_killed() {
    let mut service = Service::ready_with(|s| s.fleet.timing.hang = HANG).await;
    let (_a, spec) = service.run(job("a")).await;
    let (_b, _) = service.run(job("b")).await;
    // It goes on with the first as if it had never heard of the second.
    for index in 0..100 {
        service.token(spec.key, index, 65, None).await;
        service.beat(1).await;
        tokio::time::sleep(HANG / 8).await;
        if let Some(call) = service.pending_calls().into_iter().next() {
            assert!(matches!(call, super::support::Call::Kill(1)), "{call:?}");
            return;
        }
    }
    panic!("nobody noticed");
}

#[tokio::test(start_paused = true)]
async fn an_unanswered_cancellation_is_repeated_as_a_signal_and_then_as_a_kill() {
    use super::support::Call;
    let mut service = Service::ready_with(|s| {
        s.fleet.timing.interrupt = Duration::from_millis(30);
        s.fleet.timing.cancel_limit = Duration::from_millis(100);
    })
    .await;
    let (_a, victim) = service.run(job("a")).await;
    let (mut b, bystander) = service.run(job("b")).await;
    service.tokens(bystander.key, 0, "xy").await;
    service.jobs.cancel("a".into()).await;
    assert_eq!(service.told_to_cancel().await, victim.key);
    assert!(matches!(service.call().await, Call::Interrupt(1)));
    assert!(matches!(service.call().await, Call::Kill(1)));
    service.bring_up().await;
    let again = service.submitted().await;
    assert_eq!(again.key, bystander.key);
    service.tokens(bystander.key, 1, "yz").await;
    service.eos(bystander.key, 3).await;
    assert_eq!(text_of(&rest(&mut b).await), "xyz");
}

#[tokio::test(start_paused = true)]
async fn an_answered_cancellation_costs_nothing() {
    let mut service = Service::ready_with(|s| {
        s.fleet.timing.interrupt = Duration::from_millis(30);
        s.fleet.timing.cancel_limit = Duration::from_millis(50);
    })
    .await;
    let (_a, spec) = service.run(job("a")).await;
    service.jobs.cancel("a".into()).await;
    service.told_to_cancel().await;
    service.message(ToSupervisor::Cancelled(spec.key)).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let calls = service.pending_calls();
    assert!(calls.is_empty(), "{calls:?}");
}

#[tokio::test]
async fn the_job_whose_replay_kills_the_worker_is_the_only_suspect() {
    let mut service = Service::ready().await;
    let (mut innocent, good) = service.run(job("a")).await;
    let (mut poison, bad) = service.run(job("b")).await;
    service.tokens(good.key, 0, "x").await;
    service.crash().await;
    for crash in 0..2 {
        service.bring_up().await;
        let first = service.submitted().await;
        assert_eq!(first.key, good.key, "fewest crashes first");
        service.token(good.key, crash, 120, None).await;
        service.token(good.key, crash + 1, 120, None).await;
        assert_eq!(service.submitted().await.key, bad.key);
        service.crash().await;
    }
    let events = rest(&mut poison).await;
    assert!(matches!(
        last(&events),
        JobEvent::Error {
            code: ErrorCode::WorkerCrashed,
            ..
        }
    ));
    service.bring_up().await;
    assert_eq!(service.submitted().await.key, good.key);
    service.token(good.key, 2, 120, None).await;
    service.eos(good.key, 3).await;
    let events = rest(&mut innocent).await;
    assert_eq!(text_of(&events), "xxx");
    assert!(matches!(last(&events), JobEvent::End { replays: 3, .. }));
}

#[tokio::test]
async fn a_standby_takes_over_with_the_first_message_it_gets() {
    let mut service = Service::start(|s| {
        s.fleet.policy.standby = true;
        s.fleet.policy.standby_delay = Duration::ZERO;
    });
    let (load, _) = service.connect().await;
    assert_eq!(load.engines, 2, "the first leaves room for the second");
    let manifest = service.emit_ready_with_weights().await;
    let present = service.generation;
    let (load, handover) = service.connect().await;
    assert_eq!(handover.weights.unwrap().manifest, manifest);
    assert_eq!((load.engines, load.context), (1, Some(info().context)));
    assert_eq!(
        load.parallel,
        Some(info().parallel),
        "it is to do the same work"
    );
    let standby = service.generation;
    service
        .emit(WorkerEvent::Ready {
            info: Box::new(info()),
            weights: None,
            pool: None,
        })
        .await;
    let shown = service.until(|s| s.standby.is_some_and(|s| s.ready)).await;
    assert_eq!(shown.generation, present);
    service.generation = present;
    let (mut stream, spec) = service.run(job("a")).await;
    service.tokens(spec.key, 0, "x").await;
    service.crash().await;
    service.generation = standby;
    service.served().await;
    assert_eq!(service.submitted().await.emitted, [120]);
    let shown = service.until(|s| s.generation == standby).await;
    assert_eq!((shown.state, shown.restarts), (ServiceState::Ready, 1));
    service.spawned().await;
    assert_eq!(service.generation, 3, "another standby for it");
    service.generation = standby;
    service.tokens(spec.key, 0, "xy").await;
    service.eos(spec.key, 2).await;
    assert_eq!(text_of(&rest(&mut stream).await), "xy");
}

#[tokio::test]
async fn lost_residency_is_shown_until_it_is_back() {
    let service = Service::ready().await;
    let shown = |s: &Snapshot| s.worker.as_ref().map(|w| w.resident);
    for resident in [true, false, true] {
        service.message(ToSupervisor::Residency { resident }).await;
        service.until(|s| shown(s) == Some(resident)).await;
    }
}

#[tokio::test]
async fn a_restart_that_cannot_load_is_tried_again() {
    let mut service = Service::ready().await;
    service.crash().await;
    service.connect().await;
    let code = ErrorCode::InsufficientVram;
    service
        .message(ToSupervisor::LoadFailed {
            code,
            message: "still taken".into(),
        })
        .await;
    service
        .emit(WorkerEvent::Exited(WorkerExit::Code(11)))
        .await;
    service.bring_up().await;
    assert_eq!(service.jobs.snapshot().state, ServiceState::Ready);
}

#[tokio::test]
async fn a_service_that_crashes_on_and_on_refuses_jobs() {
    let mut service = Service::ready().await;
    service.crash().await;
    for _ in 0..4 {
        service.spawned().await;
        service.emit(WorkerEvent::Spawned { pid: 1 }).await;
        service
            .emit(WorkerEvent::Exited(WorkerExit::Code(13)))
            .await;
    }
    service.until(|s| s.state == ServiceState::Unhealthy).await;
    let refusal = service.jobs.submit(job("a")).await.unwrap_err();
    assert_eq!(refusal.code, ErrorCode::WorkerUnavailable);
}

#[tokio::test]
async fn used_up_restarts_end_the_service_and_its_streams() {
    let mut service = Service::ready_with(|s| s.fleet.policy.max_restarts = Some(1)).await;
    let (mut stream, _) = service.run(job("a")).await;
    service.crash().await;
    service.bring_up().await;
    service.submitted().await;
    service.lose_link().await;
    let events = rest(&mut stream).await;
    assert!(matches!(
        last(&events),
        JobEvent::Error {
            code: ErrorCode::WorkerUnavailable,
            ..
        }
    ));
    assert!(matches!(
        service.outcome().await,
        Outcome::WorkerLost { .. }
    ));
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_comes_no_further_with_loading_is_replaced() {
    let mut service = Service::ready_with(|s| s.fleet.timing.loading_silence = HANG).await;
    service.crash().await;
    service.connect().await;
    for percent in 0..8 {
        service
            .message(ToSupervisor::LoadProgress { percent })
            .await;
        tokio::time::sleep(HANG / 4).await;
    }
    assert!(service.pending_calls().is_empty(), "it came further");
    for _ in 0..6 {
        service.beat(0).await;
        tokio::time::sleep(HANG / 4).await;
    }
    service.killed().await;
}

/// What is shown as room is what a submission finds.
#[tokio::test]
async fn slots_of_jobs_that_await_their_replay_are_not_free() {
    let mut service = Service::ready_with(|s| s.queue = 0).await;
    let (_first, _) = service.run(job("a")).await;
    let (_second, _) = service.run(job("b")).await;
    service.crash().await;
    service.bring_up().await;
    service.submitted().await;
    assert_eq!(service.jobs.snapshot().free_slots, 0);
    let refusal = service.jobs.submit(job("c")).await.unwrap_err();
    assert_eq!(refusal.code, ErrorCode::QueueFull);
}

#[tokio::test]
async fn a_cancelled_jobs_place_is_free_once_the_worker_has_let_go_of_it() {
    let mut service = Service::ready().await;
    let (_stream, spec) = service.run(job("a")).await;
    service.jobs.cancel("a".into()).await;
    assert_eq!(service.jobs.snapshot().free_slots, 1);
    assert_eq!(service.told_to_cancel().await, spec.key);
    service.message(ToSupervisor::Cancelled(spec.key)).await;
    service.until(|s| s.free_slots == 2).await;
}
