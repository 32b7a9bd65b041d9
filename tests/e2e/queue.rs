//! The queue: bounded, in order, with a sign of life for those who wait.

use orcd_tests::stream::Stream;
use orcd_tests::{Job, Model, Starter, WorkerHarness};

/// One job at a time, two may wait.
fn narrow() -> WorkerHarness {
    Starter::new(Model::Slow)
        .failpoints()
        .flag("--parallel", 1)
        .flag("--queue", 2)
        .without_hang_timeout()
        .start()
}

/// A job that goes on when it is released, not before.
fn held(service: &WorkerHarness, job: &Job) -> Stream {
    service.hold_before_step(5);
    let stream = service.execute(job);
    service.wait_for_trigger("step");
    stream
}

fn job(name: &str, max_tokens: u64) -> Job {
    Job::lasting(name, max_tokens)
}

#[test]
fn full_queue_refuses_and_says_when_to_come_back() {
    let service = narrow();
    let running = held(&service, &job("running", 80));
    let mut first = service.execute(&job("first", 2));
    first.read_anything();
    let mut second = service.execute(&job("second", 2));
    second.read_anything();
    assert!(!first.has_started() && !second.has_started());
    let jobs = &service.health()["jobs"];
    assert_eq!(
        (jobs["running"].as_u64(), jobs["queued"].as_u64()),
        (Some(1), Some(2))
    );

    let reply = service.refusal(&job("third", 2));
    assert_eq!(reply.refusal(), (503, "QUEUE_FULL".into()));
    assert_eq!(reply.error()["retriable"], true);
    let retry_after: u64 = reply
        .header("retry-after")
        .expect("Retry-After")
        .parse()
        .unwrap();
    assert!((1..=60).contains(&retry_after), "{retry_after}");
    assert_eq!(
        service.get("/health/ready").status(),
        503,
        "a job sent now is refused"
    );
    assert_eq!(service.get("/health/live").status(), 200);

    service.release();
    let (running, first, second) = (running.finish(), first.finish(), second.finish());
    assert!(running.over_at() <= first.over_at() && first.over_at() <= second.over_at());
    for transcript in [&first, &second] {
        assert_eq!(transcript.end().tokens_out, 2);
    }
    assert_eq!(
        service.run(&job("third", 2)).end().tokens_out,
        2,
        "there is room again"
    );
    assert_eq!(service.get("/health/ready").status(), 200);
}

#[test]
fn waiting_job_gets_comments_until_it_starts() {
    let service = Starter::new(Model::Slow).flag("--parallel", 1).start();
    // More work before it than the pause between two comments takes.
    let before: Vec<_> = (0..8)
        .map(|i| {
            let mut stream = service.execute(&job(&format!("before-{i}"), 1900));
            stream.read_anything();
            stream
        })
        .collect();
    let mut waiting = service.execute(&job("waiting", 2));
    waiting.read_anything();
    assert_eq!(waiting.so_far().comments, ["queued"]);
    assert!(
        waiting.read(),
        "the keep-alive comes again while nothing happens"
    );
    assert_eq!(waiting.so_far().comments, ["queued", "queued"]);
    assert!(waiting.so_far().events.is_empty());
    drop(before);
    assert_eq!(waiting.finish().end().tokens_out, 2);
}

#[test]
fn name_in_flight_is_refused_whether_running_or_queued() {
    let service = narrow();
    let running = held(&service, &job("running", 60));
    let mut queued = service.execute(&job("queued", 2));
    queued.read_anything();
    for name in ["running", "queued"] {
        let reply = service.refusal(&job(name, 2));
        assert_eq!(reply.refusal(), (409, "JOB_EXISTS".into()), "{name}");
        assert_eq!(reply.error()["retriable"], false);
    }
    service.release();
    assert_eq!(running.finish().end().tokens_out, 60, "not disturbed");
    assert_eq!(queued.finish().end().tokens_out, 2);
    assert_eq!(
        service.run(&job("running", 2)).end().tokens_out,
        2,
        "free once it ended"
    );
}
