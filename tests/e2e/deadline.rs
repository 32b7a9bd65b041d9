//! Bounds on a job's time.

use std::time::Duration;

use jiff::Timestamp;
use orcd_tests::{Job, Model, Starter, WorkerHarness, report};

fn endless() -> Job {
    Job::lasting("a", 1900)
}

fn at(from_now_ms: i64) -> String {
    (Timestamp::now() + jiff::SignedDuration::from_millis(from_now_ms)).to_string()
}

/// The error of a job, wherever it stands: before the stream or in it.
fn failure(service: &WorkerHarness, deadline: &str) -> (String, bool, u64) {
    match service.try_execute(&endless(), &[("X-Deadline", deadline)]) {
        Err(reply) => {
            assert_eq!(reply.status(), 504, "{}", reply.text());
            let error = reply.error();
            (
                error["code"].as_str().unwrap().into(),
                error["retriable"] == true,
                0,
            )
        }
        Ok(stream) => {
            let error = stream.finish().error().clone();
            (error.code, error.retriable, error.tokens_out)
        }
    }
}

#[test]
fn deadline_that_passes_ends_the_job() {
    let service = Starter::new(Model::Slow).alone().start();
    let begin = std::time::Instant::now();
    let (code, retriable, tokens_out) = failure(&service, &at(800));
    report::figure(&format!(
        "a deadline 800 ms ahead ended the job after {:.0?}",
        begin.elapsed()
    ));
    assert_eq!((code.as_str(), retriable), ("INFERENCE_TIMEOUT", true));
    assert!(tokens_out > 0, "it ran until then");
    assert!(begin.elapsed() >= Duration::from_millis(790));
    service.wait_for_health(Duration::from_secs(60), |h| h["jobs"]["running"] == 0);
}

#[test]
fn deadline_in_the_past_ends_the_job_before_it_starts() {
    let service = WorkerHarness::start(Model::Slow);
    for deadline in [
        at(-1000),
        "2001-01-01T00:00:00Z".into(),
        "2001-01-01T02:00:00.5+02:00".into(),
    ] {
        let (code, retriable, tokens_out) = failure(&service, &deadline);
        assert_eq!(
            (code.as_str(), retriable, tokens_out),
            ("INFERENCE_TIMEOUT", true, 0)
        );
    }
}

#[test]
fn deadline_ahead_changes_nothing() {
    let service = WorkerHarness::start(Model::Tiny);
    let job = endless().set("max_tokens", 20);
    let expected = service.run(&job);
    for deadline in [at(60_000), "2999-12-31T23:59:59Z".into()] {
        let stream = service
            .try_execute(&job, &[("X-Deadline", &deadline)])
            .unwrap();
        assert_eq!(stream.finish().token_bytes(), expected.token_bytes());
    }
}

#[test]
fn bad_deadline_is_refused() {
    let service = WorkerHarness::start(Model::Tiny);
    for deadline in ["soon", "", "12:00", "2026-13-01T00:00:00Z", "1767225600"] {
        let reply = service
            .try_execute(&endless(), &[("X-Deadline", deadline)])
            .unwrap_err();
        assert_eq!(
            reply.refusal(),
            (400, "INVALID_REQUEST".into()),
            "{deadline:?}"
        );
        assert!(reply.text().contains("X-Deadline"), "{}", reply.text());
    }
}

#[test]
fn deadline_counts_while_the_job_waits() {
    let service = Starter::new(Model::Slow).flag("--parallel", 1).start();
    let mut running = service.execute(&endless().named("running"));
    running.read_tokens(1);
    let (code, _, tokens_out) = failure(&service, &at(300));
    assert_eq!((code.as_str(), tokens_out), ("INFERENCE_TIMEOUT", 0));
    assert!(!running.so_far().events.last().unwrap().is_terminal());
}

#[test]
fn service_bounds_every_job() {
    let service = Starter::new(Model::Slow)
        .flag("--inference-timeout-sec", 1)
        .start();
    let transcript = service.run(&endless());
    let error = transcript.error();
    assert_eq!(
        (error.code.as_str(), error.retriable),
        ("INFERENCE_TIMEOUT", true)
    );
    let took = transcript.over_at() - transcript.begin;
    assert!(took >= Duration::from_millis(900), "{took:?}");
    let (code, ..) = failure(&service, &at(60_000));
    assert_eq!(
        code, "INFERENCE_TIMEOUT",
        "a later deadline does not lift the bound"
    );
}
