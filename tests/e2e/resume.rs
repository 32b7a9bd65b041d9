//! Streams that outlive their reader.

use std::time::Duration;

use orcd_tests::{Job, Model, Starter, WorkerHarness};

fn lasting(name: &str, max_tokens: u64) -> Job {
    Job::lasting(name, max_tokens).set("on_disconnect", "continue")
}

fn raw(transcript: &orcd_tests::Transcript) -> Vec<&str> {
    transcript
        .events
        .iter()
        .map(|event| event.raw.as_str())
        .collect()
}

#[track_caller]
fn assert_gone(service: &WorkerHarness, job_id: &str) {
    let reply = service
        .resume(job_id, None)
        .expect_err("no stream to resume");
    assert_eq!(reply.status(), 404);
    reply.error();
}

#[test]
fn resumed_stream_goes_on_after_the_last_event() {
    let service = WorkerHarness::start(Model::Slow);
    let undisturbed = service.run(&lasting("a", 60));
    let mut first = service.execute(&lasting("b", 60));
    first.read_tokens(10);
    let seen = first.so_far().clone();
    drop(first);
    let last_id = seen.events.last().unwrap().id;
    let rest = service.resume("b", Some(last_id)).unwrap().finish();
    assert_eq!(
        seen.token_bytes() + &rest.token_bytes(),
        undisturbed.token_bytes()
    );
    assert_eq!(rest.end().tokens_out, 60);
}

#[test]
fn ended_stream_can_be_read_again_from_any_event() {
    let service = WorkerHarness::start(Model::Tiny);
    let first = service.run(&lasting("a", 20));
    let from_the_start = service.resume("a", None).unwrap().finish();
    assert_eq!(
        raw(&from_the_start),
        raw(&first),
        "the ids and bytes are those of the first stream"
    );
    let count = first.events.len();
    for after in [0, 1, count / 2, count - 2] {
        let rest = service.resume("a", Some(after as u64)).unwrap().finish();
        assert_eq!(raw(&rest), raw(&first)[after + 1..], "after event {after}");
    }
}

#[test]
fn several_readers_see_the_same_stream_through_a_crash() {
    let service = WorkerHarness::start(Model::Slow);
    let undisturbed = service.run(&lasting("a", 60));
    let mut first = service.execute(&lasting("b", 60));
    first.read_tokens(5);
    let second = service.resume("b", None).unwrap();
    let third = service.resume("b", Some(3)).unwrap();
    service.kill_worker();
    let readers = [first, second, third];
    let [first, second, third] = std::thread::scope(|scope| {
        let running = readers.map(|stream| scope.spawn(|| stream.finish()));
        running.map(|reader| reader.join().unwrap())
    });
    assert_eq!(first.token_bytes(), undisturbed.token_bytes());
    assert_eq!(raw(&second), raw(&first));
    assert_eq!(raw(&third), raw(&first)[4..]);
}

#[test]
fn after_the_last_event_there_is_nothing_more() {
    let service = WorkerHarness::start(Model::Tiny);
    let last = service.run(&lasting("a", 5)).events.last().unwrap().id;
    let after = |id: u64| {
        let id = id.to_string();
        service.request("GET", "/jobs/a/events", &[("Last-Event-ID", &id)], b"")
    };
    let reply = after(last);
    assert_eq!((reply.status(), reply.body.len()), (204, 0));
    assert_eq!(after(last + 1).refusal(), (400, "INVALID_REQUEST".into()));
}

#[test]
fn job_goes_on_without_a_reader_and_through_a_crash() {
    let service = Starter::new(Model::Slow)
        .failpoints()
        .without_hang_timeout()
        .start();
    let undisturbed = service.run(&lasting("a", 60));
    drop(service.execute_and_trigger(&[lasting("b", 60)], "sleep", 10));
    service.kill_worker();
    service.wait_for_health(Duration::from_secs(60), |h| h["jobs"]["running"] == 0);
    let resumed = service.resume("b", None).unwrap().finish();
    assert_eq!(resumed.token_bytes(), undisturbed.token_bytes());
    assert_eq!(resumed.end().replays, 1);
}

#[test]
fn stream_is_not_kept_unless_asked_for() {
    let service = WorkerHarness::start(Model::Tiny);
    assert_gone(&service, "never-seen");
    service.run(&lasting("ended", 5).set("on_disconnect", "cancel"));
    assert_gone(&service, "ended");
    service.run(&Job::lasting("default", 5));
    assert_gone(&service, "default");
}

#[test]
fn stream_is_kept_as_long_as_promised() {
    let service = Starter::new(Model::Tiny)
        .flag("--resume-ttl-sec", 5)
        .start();
    service.run(&lasting("a", 5));
    assert!(service.resume("a", None).is_ok());
    let gone = || service.resume("a", None).is_err();
    assert!(
        orcd_tests::proc::wait_until(Duration::from_secs(60), gone),
        "kept for ever"
    );
    assert_gone(&service, "a");
}

#[test]
fn cancelled_job_without_a_reader_ends_as_cancelled() {
    let service = WorkerHarness::start(Model::Slow);
    let mut stream = service.execute(&lasting("a", 1500));
    stream.read_tokens(3);
    drop(stream);
    assert_eq!(service.cancel("a"), "cancelling");
    let resumed = service.resume("a", None).unwrap().finish();
    assert_eq!(resumed.error().code, "CANCELLED");
    assert!(resumed.error().tokens_out >= 3);
}

#[test]
fn bad_last_event_id_is_refused() {
    let service = WorkerHarness::start(Model::Tiny);
    service.run(&lasting("a", 5));
    for value in ["x", "-1", "1.5", "99999999999999999999"] {
        let reply = service.request("GET", "/jobs/a/events", &[("Last-Event-ID", value)], b"");
        assert_eq!(reply.refusal(), (400, "INVALID_REQUEST".into()), "{value}");
    }
}
