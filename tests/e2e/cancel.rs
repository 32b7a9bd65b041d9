//! Cancellation: at once for the job, not at all for its neighbors.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use orcd_tests::stats::Samples;
use orcd_tests::stream::Stream;
use orcd_tests::{Job, Model, Starter, Transcript, WorkerHarness, report};
use serde_json::json;

/// Bound of the contract, for a machine that has nothing else to do.
const WITHIN: Duration = Duration::from_millis(100);
/// Whatever a test waits for is there by then, on any machine.
const SOON: Duration = Duration::from_secs(60);

fn endless(name: &str) -> Job {
    Job::lasting(name, 1500)
}

/// Cancels and reads to the end; how long that took.
fn cancel(service: &WorkerHarness, job_id: &str, stream: Stream) -> (Duration, Transcript) {
    let begin = Instant::now();
    let transcript = std::thread::scope(|scope| {
        let reader = scope.spawn(|| stream.finish());
        assert_eq!(service.cancel(job_id), "cancelling");
        reader.join().unwrap()
    });
    let error = transcript.error();
    assert_eq!((error.code.as_str(), error.retriable), ("CANCELLED", true));
    (
        transcript.over_at().saturating_duration_since(begin),
        transcript,
    )
}

/// The quickest tells of the service; how much longer the others took, of the machine.
#[track_caller]
fn assert_prompt(what: &str, samples: Vec<Duration>) {
    let quickest = *samples.iter().min().expect("samples");
    let samples = Samples::new(samples);
    report::figure(&format!("{what}: {samples}"));
    assert!(quickest <= WITHIN, "{what}: {samples}");
}

#[test]
fn cancelled_stream_ends_within_100_ms() {
    let service = Starter::new(Model::Slow).alone().start();
    let times = (0..9).map(|round| {
        let name = format!("generating-{round}");
        let mut stream = service.execute(&endless(&name));
        stream.read_tokens(3 + round);
        let (time, transcript) = cancel(&service, &name, stream);
        assert!(transcript.error().tokens_out < 1500);
        time
    });
    assert_prompt("cancel while generating", times.collect());
}

#[test]
fn cancelled_stream_ends_within_100_ms_while_its_prompt_is_processed() {
    let service = Starter::new(Model::Slow).alone().start();
    let prompt = "the sea and ".repeat(250);
    let times = (0..5).map(|round| {
        let name = format!("prefilling-{round}");
        let mut stream = service.execute(&Job::new(&name, &prompt));
        stream.read_anything();
        let (time, transcript) = cancel(&service, &name, stream);
        (transcript.error().tokens_out == 0).then_some(time)
    });
    // One that was cancelled after its prompt says nothing.
    assert_prompt("cancel while prefilling", times.flatten().collect());
}

/// Cancels a job on a worker that `trigger` makes hang: at once for its client, and by the ladder
/// for its neighbor, before the hang is noticed otherwise.
fn cancel_while_hanging(what: &str, trigger: impl Fn(&WorkerHarness)) {
    // Only the ladder can be it.
    let service = Starter::new(Model::Slow)
        .failpoints()
        .without_hang_timeout()
        .alone()
        .start();
    // Not over before the ladder is at its end.
    let neighbor = Job::lasting("neighbor", 600).set("seed", 3);
    let undisturbed = service.run(&neighbor);
    let mut stream = service.execute(&endless("a"));
    stream.read_tokens(3);
    let mut beside = service.execute(&neighbor);
    beside.read_tokens(3);
    let hanging = service.worker();
    trigger(&service);
    std::thread::sleep(Duration::from_millis(50));
    let (time, _) = cancel(&service, "a", stream);
    report::figure(&format!("cancel while the worker {what}: {time:.2?}"));
    let cancelled = Instant::now();
    let beside = beside.finish();
    assert_eq!(beside.token_bytes(), undisturbed.token_bytes());
    assert_eq!(beside.end().replays, 1, "the hanging worker was replaced");
    assert!(hanging.is_gone_within(SOON));
    let pause = beside.longest_pause(cancelled);
    report::figure(&format!(
        "cancel while the worker {what}: neighbor goes on after {pause:.2?}"
    ));
}

#[test]
fn cancelled_stream_ends_within_100_ms_though_the_worker_is_stopped() {
    cancel_while_hanging("is stopped", |service| {
        service.worker().signal(Signal::SIGSTOP);
    });
}

#[test]
fn cancelled_stream_ends_within_100_ms_though_the_worker_spins() {
    cancel_while_hanging("spins", |service| service.set_failpoint("step", "spin"));
}

#[test]
fn cancelled_stream_ends_within_100_ms_though_the_worker_does_not_read() {
    cancel_while_hanging("does not read", |service| {
        service.set_failpoint("command", "sleep")
    });
}

#[test]
fn cancelled_stream_ends_within_100_ms_though_the_worker_is_dead() {
    let service = Starter::new(Model::Slow).alone().start();
    let times = (0..5).map(|round| {
        let name = format!("dead-{round}");
        let mut stream = service.execute(&endless(&name));
        stream.read_tokens(3);
        service.kill_worker();
        let (time, _) = cancel(&service, &name, stream);
        service.wait_for_health(SOON, |h| {
            h["status"] == "healthy" && h["worker"]["restarts"] == round + 1
        });
        assert_eq!(
            service
                .run(&endless("next").set("max_tokens", 1))
                .end()
                .replays,
            0
        );
        time
    });
    assert_prompt("cancel while the worker is dead", times.collect());
}

#[test]
fn worker_asked_to_abandon_its_step_changes_no_byte() {
    let service = WorkerHarness::start(Model::Slow);
    let prompt = "the sea and ".repeat(100);
    let job = Job::new("a", &prompt)
        .set("max_tokens", 40)
        .set("top_k", 64)
        .set("seed", 5);
    let undisturbed = service.run(&job);
    let stream = service.execute(&job);
    let worker = service.worker();
    // What the service does when an answer takes long: also in vain, and too early.
    for round in 0..20 {
        let name = format!("victim-{round}");
        let victim = service.execute(&endless(&name));
        worker.signal(Signal::SIGUSR1);
        assert_eq!(service.cancel(&name), "cancelling");
        worker.signal(Signal::SIGUSR1);
        assert_eq!(victim.finish().error().code, "CANCELLED");
    }
    let found = stream.finish();
    assert_eq!(found.token_bytes(), undisturbed.token_bytes());
    assert_eq!(found.end().replays, 0);
}

#[test]
fn cancelled_job_leaves_its_neighbors_alone() {
    let service = WorkerHarness::start(Model::Slow);
    let jobs: Vec<_> = (0..3)
        .map(|i| Job::lasting(&format!("neighbor-{i}"), 60).set("seed", i))
        .collect();
    let undisturbed = service.run_together(&jobs);
    let mut victim = service.execute(&endless("victim"));
    let disturbed = std::thread::scope(|scope| {
        let neighbors = scope.spawn(|| service.run_together(&jobs));
        victim.read_tokens(15);
        cancel(&service, "victim", victim);
        neighbors.join().unwrap()
    });
    for (expected, found) in undisturbed.iter().zip(&disturbed) {
        assert_eq!(expected.token_bytes(), found.token_bytes());
        assert_eq!(found.end().replays, 0);
    }
}

#[test]
fn cancelling_again_is_safe_and_frees_the_name() {
    let service = WorkerHarness::start(Model::Slow);
    let mut stream = service.execute(&endless("a"));
    stream.read_tokens(2);
    cancel(&service, "a", stream);
    for _ in 0..3 {
        let status = service.cancel("a");
        assert!(
            ["cancelling", "unknown"].contains(&status.as_str()),
            "{status}"
        );
    }
    assert_eq!(
        service
            .run(&endless("a").set("max_tokens", 2))
            .end()
            .tokens_out,
        2
    );
}

#[test]
fn cancelling_an_unknown_job_says_so() {
    let service = WorkerHarness::start(Model::Tiny);
    assert_eq!(service.cancel("never-seen"), "unknown");
    service.run(&Job::new("over", "x").set("max_tokens", 1));
    assert_eq!(service.cancel("over"), "unknown");
}

#[test]
fn cancel_refuses_bad_bodies() {
    let service = WorkerHarness::start(Model::Tiny);
    for (body, field) in [
        (json!({}), "job_id"),
        (json!({"job_id": 7}), "job_id"),
        (json!({"job_id": "a", "reason": "x"}), "reason"),
    ] {
        let reply = service.post("/cancel", &body);
        assert_eq!(reply.refusal(), (400, "INVALID_REQUEST".into()), "{body}");
        assert!(
            reply.text().contains(field),
            "{} does not name {field}",
            reply.text()
        );
    }
}

#[test]
fn cancelled_while_queued_it_never_starts() {
    let service = Starter::new(Model::Slow).failpoints().flag("--parallel", 1);
    let service = service.without_hang_timeout().start();
    service.hold_before_step(5);
    let running = service.execute(&endless("running").set("max_tokens", 60));
    service.wait_for_trigger("step");
    let mut queued = service.execute(&endless("queued"));
    queued.read_anything();
    assert!(!queued.has_started());
    let (_, transcript) = cancel(&service, "queued", queued);
    assert_eq!(transcript.events.len(), 1, "only the error");
    assert_eq!(transcript.error().tokens_out, 0);
    service.release();
    assert_eq!(running.finish().end().tokens_out, 60);
}

#[test]
fn client_that_goes_away_cancels_its_job_within_100_ms() {
    let service = Starter::new(Model::Slow).alone().start();
    let times = (0..9).map(|round| {
        let mut stream = service.execute(&endless(&format!("gone-{round}")));
        stream.read_tokens(3);
        assert_eq!(service.health()["jobs"]["running"], 1);
        drop(stream);
        let begin = Instant::now();
        service.wait_for_health(SOON, |h| h["jobs"]["running"] == 0);
        begin.elapsed()
    });
    assert_prompt("cancel by going away", times.collect());
}

#[test]
fn device_is_free_for_the_next_job_after_a_cancellation() {
    let service = Starter::new(Model::Slow)
        .flag("--parallel", 1)
        .alone()
        .start();
    let times = (0..5).map(|round| {
        let name = format!("a-{round}");
        let mut stream = service.execute(&endless(&name));
        stream.read_tokens(3);
        cancel(&service, &name, stream);
        service
            .run(&endless("next").set("max_tokens", 1))
            .time_to_first_token()
    });
    let samples = Samples::new(times.collect());
    report::figure(&format!("first token of the next job: {samples}"));
    assert_eq!(service.health()["worker"]["restarts"], 0);
}
