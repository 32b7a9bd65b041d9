//! The worker never outlives its supervisor.

use std::time::Duration;

use nix::sys::signal::Signal;
use orcd_tests::{Job, Model, Starter, WorkerHarness};

fn assert_worker_goes_with_it(service: WorkerHarness) {
    let worker = service.worker();
    assert_eq!(worker.name(), "cuda-worker");
    service.signal(Signal::SIGKILL);
    assert!(worker.is_gone_within(Duration::from_secs(10)), "an orphan");
}

#[test]
fn idle_worker_dies_with_its_supervisor() {
    assert_worker_goes_with_it(WorkerHarness::start(Model::Tiny));
}

#[test]
fn busy_worker_dies_with_its_supervisor() {
    let service = WorkerHarness::start(Model::Slow);
    let mut stream = service.execute(&Job::lasting("a", 1500));
    stream.read_tokens(5);
    assert_worker_goes_with_it(service);
    let cut = std::iter::repeat_with(|| stream.try_read()).find(|read| *read != Ok(true));
    assert!(
        matches!(cut, Some(Err(_))),
        "a stream that is cut is no complete stream"
    );
}

#[test]
fn stopped_worker_dies_with_its_supervisor() {
    let service = WorkerHarness::start(Model::Tiny);
    service.worker().signal(Signal::SIGSTOP);
    assert_worker_goes_with_it(service);
}

#[test]
fn replaced_worker_dies_with_its_supervisor() {
    let service = Starter::new(Model::Tiny).start();
    service.kill_worker();
    service.wait_for_health(Duration::from_secs(60), |h| {
        h["status"] == "healthy" && h["worker"]["restarts"] == 1
    });
    assert_worker_goes_with_it(service);
}
