//! Workers that hang: it is progress that counts, not the state of a process.

use std::time::Duration;

use nix::sys::signal::Signal;
use orcd_tests::stats::Samples;
use orcd_tests::{Job, Model, Starter, Transcript, WorkerHarness, place, report};

/// From a hang to the next token of the stream, at most.
const BAR: Duration = Duration::from_millis(2500);
/// The same with room for a busy machine: what the test insists on.
const LIMIT: Duration = Duration::from_secs(10);

fn two_jobs() -> [Job; 2] {
    [1, 2].map(|seed| Job::lasting(&format!("job-{seed}"), 60).set("seed", seed))
}

/// Runs the jobs and lets `strike` do its worst once the first shows ten tokens.
fn run_struck(service: &WorkerHarness, jobs: &[Job], strike: impl FnOnce()) -> Vec<Transcript> {
    let mut streams: Vec<_> = jobs.iter().map(|job| service.execute(job)).collect();
    streams[0].read_tokens(10);
    strike();
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
fn assert_comes_over(service: &WorkerHarness, what: &str, strike: impl FnOnce()) {
    let jobs = two_jobs();
    let undisturbed = service.run_together(&jobs);
    let hanging = service.worker();
    let found = run_struck(service, &jobs, strike);
    for (expected, found) in undisturbed.iter().zip(&found) {
        assert_eq!(expected.token_bytes(), found.token_bytes());
        assert_eq!(found.end().replays, 1);
    }
    assert_ne!(service.worker(), hanging);
    assert!(hanging.is_gone_within(Duration::from_secs(2)));
    let pause = found[0].longest_pause(found[0].begin);
    report::figure(&format!("{what} to next token: {pause:.2?} (bar {BAR:?})"));
    assert!(pause < LIMIT, "{pause:?}");
}

#[test]
fn stopped_worker_is_replaced() {
    let service = Starter::new(Model::Slow).alone().start();
    for _ in 0..3 {
        assert_comes_over(&service, "SIGSTOP", || {
            service.worker().signal(Signal::SIGSTOP);
        });
    }
}

#[test]
fn worker_that_spins_in_a_step_is_replaced() {
    let service = Starter::new(Model::Slow).alone().start();
    assert_comes_over(&service, "endless step", || service.fault("step", "spin"));
}

#[test]
fn worker_that_stops_reading_its_socket_is_replaced() {
    let service = Starter::new(Model::Slow).alone().start();
    let jobs = two_jobs();
    let undisturbed = service.run_together(&jobs);
    let deaf = service.worker();
    // The next message is not taken: the second job.
    let mut first = service.execute(&jobs[0]);
    first.read_tokens(5);
    service.fault("command", "sleep");
    let second = service.execute(&jobs[1]);
    let found = [first.finish(), second.finish()];
    for (expected, found) in undisturbed.iter().zip(&found) {
        assert_eq!(expected.token_bytes(), found.token_bytes());
    }
    assert_eq!(found[1].end().replays, 1);
    assert!(deaf.is_gone_within(Duration::from_secs(2)));
}

#[test]
fn worker_that_hangs_while_it_is_idle_is_replaced_too() {
    let service = WorkerHarness::start(Model::Tiny);
    let hanging = service.worker();
    hanging.signal(Signal::SIGSTOP);
    service.wait_for_health(LIMIT, |h| {
        h["status"] == "healthy" && h["worker"]["restarts"] == 1
    });
    assert!(hanging.is_gone_within(Duration::from_secs(2)));
}

#[test]
fn short_stop_is_no_hang() {
    let service = Starter::new(Model::Slow).alone().start();
    let job = [Job::lasting("a", 60)];
    let undisturbed = service.run_together(&job);
    let worker = service.worker();
    let found = run_struck(&service, &job, || {
        worker.signal(Signal::SIGSTOP);
        std::thread::sleep(Duration::from_millis(500));
        worker.signal(Signal::SIGCONT);
    });
    assert_eq!(undisturbed[0].token_bytes(), found[0].token_bytes());
    assert_eq!(found[0].end().replays, 0);
    assert_eq!(service.worker(), worker);
}

#[test]
fn supervisor_that_was_away_blames_nobody() {
    let service = Starter::new(Model::Slow).alone().start();
    let worker = service.worker();
    service.signal(Signal::SIGSTOP);
    worker.signal(Signal::SIGSTOP);
    std::thread::sleep(Duration::from_secs(3));
    service.signal(Signal::SIGCONT);
    std::thread::sleep(Duration::from_millis(300));
    worker.signal(Signal::SIGCONT);
    assert_eq!(service.run(&Job::lasting("a", 3)).end().replays, 0);
    assert_eq!(service.worker(), worker);
}

#[test]
fn hang_timeout_is_configurable() {
    let service = Starter::new(Model::Slow)
        .flag("--hang-timeout-ms", 500)
        .alone()
        .start();
    let mut pauses = Vec::new();
    let jobs = &two_jobs()[..1];
    for _ in 0..3 {
        let found = run_struck(&service, jobs, || service.worker().signal(Signal::SIGSTOP));
        pauses.push(found[0].longest_pause(found[0].begin));
    }
    let samples = Samples::new(pauses);
    report::figure(&format!("SIGSTOP to next token at 500 ms: {samples}"));
    // The default's 1500 ms would show, also where a restart makes a CUDA context.
    let limit = if place::device() == "cpu" { 1400 } else { 1900 };
    assert!(samples.median() < Duration::from_millis(limit), "{samples}");
}
