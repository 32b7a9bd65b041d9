//! Stopping: what runs may finish, what comes is sent elsewhere.

use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};
use orcd_tests::http::request_bytes;
use orcd_tests::stream::Stream;
use orcd_tests::{Exit, Job, Model, Starter, WorkerHarness};

/// Whatever a test waits for is there by then, on any machine; shorter than the longest draining.
const SOON: Duration = Duration::from_secs(60);

fn job(name: &str, max_tokens: u64) -> Job {
    Job::lasting(name, max_tokens)
}

type Ask = fn(&WorkerHarness);

/// Ways to ask for a stop.
const ASK: [(&str, Ask); 4] = [
    ("POST /shutdown", |service| {
        assert_eq!(service.request("POST", "/shutdown", &[], b"").status(), 202);
    }),
    ("SIGTERM", |service| service.signal(Signal::SIGTERM)),
    ("SIGINT", |service| service.signal(Signal::SIGINT)),
    ("SIGHUP", |service| service.signal(Signal::SIGHUP)),
];

#[track_caller]
fn assert_clean(exit: &Exit, how: &str) {
    assert_eq!(exit.status.code(), Some(0), "{how}: {exit:#?}");
    assert!(!exit.stderr.contains("error: "), "{how}: {}", exit.stderr);
}

#[test]
fn idle_service_stops_at_once_with_code_0() {
    for (how, ask) in ASK {
        let service = WorkerHarness::start(Model::Tiny);
        ask(&service);
        let exit = service.wait_for_exit(SOON);
        assert_clean(&exit, how);
    }
}

#[test]
fn what_a_stop_has_for_a_body_is_looked_at() {
    let service = WorkerHarness::start(Model::Tiny);
    for bad in [&b"garbage"[..], b"[]", b"{\"now\":true}"] {
        let reply = service.request("POST", "/shutdown", &[], bad);
        assert_eq!(reply.refusal(), (400, "INVALID_REQUEST".into()));
    }
    assert_eq!(service.run(&job("a", 2)).end().tokens_out, 2);
    let reply = service.request("POST", "/shutdown", &[], b" {}\n");
    assert_eq!(reply.status(), 202);
    assert_clean(&service.wait_for_exit(SOON), "{}");
}

#[test]
fn running_job_finishes_and_new_ones_are_sent_elsewhere() {
    for (how, ask) in ASK {
        let service = Starter::new(Model::Slow)
            .failpoints()
            .flag("--drain-timeout-sec", 600)
            .without_hang_timeout()
            .start();
        let expected = service.run(&job("a", 80));
        service.hold_before_step(10);
        let stream = service.execute(&job("a", 80));
        service.wait_for_trigger("step");
        ask(&service);
        service.wait_for_health(SOON, |h| h["status"] == "draining");
        assert_eq!(service.get("/health").status(), 503);
        assert_eq!(service.get("/health/ready").status(), 503);
        assert_eq!(service.get("/health/live").status(), 200);
        let reply = service.refusal(&job("b", 2));
        assert_eq!(reply.refusal(), (503, "DRAINING".into()), "{how}");
        assert!(reply.header("retry-after").is_some());
        assert_eq!(reply.error()["retriable"], true);
        service.release();
        assert_eq!(
            stream.finish().token_bytes(),
            expected.token_bytes(),
            "{how}"
        );
        assert_clean(&service.wait_for_exit(SOON), how);
    }
}

#[test]
fn interrupt_that_reaches_the_worker_too_lets_jobs_finish() {
    // Ctrl-C in a terminal goes to every process of the group.
    let service = Starter::new(Model::Slow)
        .flag("--drain-timeout-sec", 600)
        .start();
    let expected = service.run(&job("a", 60));
    let mut stream = service.execute(&job("a", 60));
    stream.read_tokens(3);
    service.worker().signal(Signal::SIGINT);
    service.signal(Signal::SIGINT);
    let transcript = stream.finish();
    assert_eq!(transcript.token_bytes(), expected.token_bytes());
    assert_eq!(transcript.end().replays, 0);
    assert_clean(&service.wait_for_exit(SOON), "SIGINT");
}

#[test]
fn job_that_is_not_done_in_time_is_cancelled() {
    let service = Starter::new(Model::Slow)
        .flag("--drain-timeout-sec", 1)
        .start();
    let mut stream = service.execute(&job("a", 1500));
    stream.read_tokens(3);
    service.signal(Signal::SIGTERM);
    let transcript = stream.finish();
    let error = transcript.error();
    assert_eq!((error.code.as_str(), error.retriable), ("CANCELLED", true));
    assert_clean(&service.wait_for_exit(SOON), "SIGTERM");
}

#[test]
fn worker_that_dies_while_draining_loses_no_stream() {
    let service = Starter::new(Model::Slow)
        .failpoints()
        .flag("--drain-timeout-sec", 600)
        .without_hang_timeout()
        .start();
    let expected = service.run(&job("a", 60));
    let job = [job("a", 60)];
    let stream = service.execute_and_trigger(&job, "sleep", 10).remove(0);
    service.signal(Signal::SIGTERM);
    service.wait_for_health(SOON, |h| h["status"] == "draining");
    service.kill_worker();
    assert_eq!(stream.finish().token_bytes(), expected.token_bytes());
    assert_clean(&service.wait_for_exit(SOON), "SIGTERM");
}

/// Asks a service to stop that can't finish its job, and expects a clean end nevertheless.
fn stop_while(what: &str, trigger: impl FnOnce(&WorkerHarness)) {
    let service = Starter::new(Model::Slow)
        .failpoints()
        .flag("--drain-timeout-sec", 1)
        .without_hang_timeout()
        .start();
    let mut stream = service.execute(&job("a", 1500));
    stream.read_tokens(3);
    trigger(&service);
    service.signal(Signal::SIGTERM);
    let exit = std::thread::scope(|scope| {
        let reader = scope.spawn(|| stream.finish());
        let exit = service.wait_for_exit(SOON);
        let transcript = reader.join().unwrap();
        let error = transcript.error();
        assert_eq!((error.code.as_str(), error.retriable), ("CANCELLED", true));
        exit
    });
    assert_clean(&exit, what);
}

#[test]
fn stop_is_clean_while_the_worker_hangs() {
    stop_while("SIGTERM while the worker is stopped", |service| {
        service.worker().signal(Signal::SIGSTOP);
    });
    stop_while("SIGTERM while the worker spins", |service| {
        service.set_failpoint("step", "spin");
    });
}

#[test]
fn stop_is_clean_while_the_service_recovers() {
    for point in ["start", "load", "loaded"] {
        stop_while("SIGTERM while a worker starts", |service| {
            service.set_failpoint(point, "sleep");
            service.kill_worker();
            service.wait_for_health(SOON, |h| h["status"] == "recovering");
            let taken = || !service.is_failpoint_set(point);
            assert!(orcd_tests::proc::wait_until(SOON, taken));
        });
    }
}

/// A service that is being drained and has a minute for it, with so many running streams.
fn draining(streams: u64) -> (WorkerHarness, Vec<Stream>) {
    let service = Starter::new(Model::Slow)
        .flag("--drain-timeout-sec", 600)
        .flag("--parallel", streams)
        .start();
    let execute = |n: u64| service.execute(&job(&n.to_string(), 1500));
    let mut streams: Vec<_> = (0..streams).map(execute).collect();
    for stream in &mut streams {
        stream.read_tokens(1);
    }
    service.signal(Signal::SIGINT);
    service.wait_for_health(SOON, |h| h["status"] == "draining");
    (service, streams)
}

#[test]
fn second_interrupt_ends_each_stream_and_then_the_process() {
    let (service, streams) = draining(3);
    service.signal(Signal::SIGINT);
    for stream in streams {
        let transcript = stream.finish();
        let error = transcript.error();
        assert_eq!((error.code.as_str(), error.retriable), ("CANCELLED", true));
    }
    let exit = service.wait_for_exit(SOON);
    assert_clean(&exit, "second SIGINT");
    assert!(exit.stdout.starts_with("READY ") && exit.stdout.lines().count() == 1);
}

#[test]
fn second_interrupt_does_not_wait_for_a_worker_that_hangs() {
    let (service, streams) = draining(1);
    service.worker().signal(Signal::SIGSTOP);
    service.signal(Signal::SIGINT);
    for stream in streams {
        assert_eq!(stream.finish().error().code, "CANCELLED");
    }
    assert_clean(&service.wait_for_exit(SOON), "SIGINT");
}

#[test]
fn client_that_reads_nothing_does_not_hold_up_a_second_interrupt() {
    let service = Starter::new(Model::Verbose)
        .flag("--max-tokens-out", 16_000)
        .flag("--drain-timeout-sec", 60)
        .start();
    let unread = job("unread", 16_000).body();
    let mut connection = service.connect();
    setsockopt(connection.socket(), sockopt::RcvBuf, &2048).unwrap();
    connection
        .send(&request_bytes("POST", "/execute", &[], &unread))
        .unwrap();
    service.wait_for_health(SOON, |h| h["jobs"]["running"] == 1);
    for _ in 0..2 {
        service.signal(Signal::SIGINT);
        service.wait_for_log("SIGINT");
    }
    let exit = service.wait_for_exit(SOON);
    assert_clean(&exit, "second SIGINT");
    drop(connection);
}
