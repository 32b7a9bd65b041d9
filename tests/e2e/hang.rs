//! Workers that hang: it is progress that counts, not the state of a process.

use std::time::Duration;

use nix::sys::signal::Signal;
use orcd_tests::stats::Samples;
use orcd_tests::{Job, Model, Starter, Transcript, WorkerHarness, report};

/// From a hang to the next token of the stream, at most.
const BAR: Duration = Duration::from_millis(2500);
/// Whatever a test waits for is there by then, on any machine.
const SOON: Duration = Duration::from_secs(60);

fn two_jobs() -> [Job; 2] {
    [1, 2].map(|seed| Job::lasting(&format!("job-{seed}"), 60).set("seed", seed))
}

/// Runs the jobs and lets the worker do `action` to itself in the middle of them.
fn run_and_trigger(service: &WorkerHarness, jobs: &[Job], action: &str) -> Vec<Transcript> {
    let streams = service.execute_and_trigger(jobs, action, 20);
    std::thread::scope(|scope| {
        let readers: Vec<_> = streams
            .into_iter()
            .map(|stream| scope.spawn(|| stream.finish()))
            .collect();
        readers.into_iter().map(|r| r.join().unwrap()).collect()
    })
}

/// The service comes over the hang: another worker, the same bytes.
#[track_caller]
fn assert_comes_over(service: &WorkerHarness, what: &str, action: &str) {
    let jobs = two_jobs();
    let undisturbed = service.run_together(&jobs);
    let hanging = service.worker();
    let found = run_and_trigger(service, &jobs, action);
    for (expected, found) in undisturbed.iter().zip(&found) {
        assert_eq!(expected.token_bytes(), found.token_bytes());
        assert_eq!(found.end().replays, 1);
    }
    assert_ne!(service.worker(), hanging);
    assert!(hanging.is_gone_within(SOON));
    let pause = found[0].longest_pause(found[0].begin);
    report::figure(&format!("{what} to next token: {pause:.2?} (bar {BAR:?})"));
}

#[test]
fn stopped_worker_is_replaced() {
    let service = Starter::new(Model::Slow).failpoints().alone().start();
    for _ in 0..3 {
        assert_comes_over(&service, "SIGSTOP", "stop");
    }
}

#[test]
fn worker_that_spins_in_a_step_is_replaced() {
    let service = Starter::new(Model::Slow).failpoints().alone().start();
    assert_comes_over(&service, "endless step", "spin");
}

#[test]
fn worker_that_stops_reading_its_socket_is_replaced() {
    let service = Starter::new(Model::Slow).failpoints().alone().start();
    let jobs = two_jobs();
    let undisturbed = service.run_together(&jobs);
    let deaf = service.worker();
    // The next message is not taken: the second job.
    let mut first = service.execute(&jobs[0]);
    first.read_tokens(5);
    service.set_failpoint("command", "sleep");
    let second = service.execute(&jobs[1]);
    let found = [first.finish(), second.finish()];
    for (expected, found) in undisturbed.iter().zip(&found) {
        assert_eq!(expected.token_bytes(), found.token_bytes());
    }
    assert_eq!(found[1].end().replays, 1);
    assert!(deaf.is_gone_within(SOON));
}

#[test]
fn worker_that_hangs_while_it_is_idle_is_replaced_too() {
    let service = WorkerHarness::start(Model::Tiny);
    let hanging = service.worker();
    hanging.signal(Signal::SIGSTOP);
    service.wait_for_health(SOON, |h| {
        h["status"] == "healthy" && h["worker"]["restarts"] == 1
    });
    assert!(hanging.is_gone_within(SOON));
}

#[test]
fn short_stop_is_no_hang() {
    // A third of the limit, and room for a machine that is late with the signal to go on.
    let service = Starter::new(Model::Slow)
        .failpoints()
        .flag("--hang-timeout-ms", 6000);
    let service = service.alone().start();
    let job = [Job::lasting("a", 60)];
    let undisturbed = service.run_together(&job);
    let worker = service.worker();
    let stream = service.execute_and_trigger(&job, "stop", 20).remove(0);
    std::thread::sleep(Duration::from_millis(2000));
    worker.signal(Signal::SIGCONT);
    let found = stream.finish();
    assert_eq!(undisturbed[0].token_bytes(), found.token_bytes());
    assert_eq!(found.end().replays, 0);
    assert_eq!(service.worker(), worker);
}

#[test]
fn supervisor_that_was_away_blames_nobody() {
    let service = Starter::new(Model::Slow).flag("--hang-timeout-ms", 3000);
    let service = service.alone().start();
    let worker = service.worker();
    service.signal(Signal::SIGSTOP);
    worker.signal(Signal::SIGSTOP);
    std::thread::sleep(Duration::from_secs(5));
    service.signal(Signal::SIGCONT);
    std::thread::sleep(Duration::from_millis(300));
    worker.signal(Signal::SIGCONT);
    assert_eq!(service.run(&Job::lasting("a", 3)).end().replays, 0);
    assert_eq!(service.worker(), worker);
}

#[test]
fn hang_timeout_is_configurable() {
    let service = Starter::new(Model::Slow)
        .failpoints()
        .flag("--hang-timeout-ms", 500)
        .alone()
        .start();
    let job = &two_jobs()[..1];
    let pause = |_| {
        let found = run_and_trigger(&service, job, "stop");
        found[0].longest_pause(found[0].begin)
    };
    let samples = Samples::new((0..3).map(pause).collect());
    report::figure(&format!("SIGSTOP to next token at 500 ms: {samples}"));
    service.wait_for_log("for 500 ms");
}
