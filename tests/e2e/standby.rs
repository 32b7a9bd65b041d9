//! A second worker that waits, and takes over.

use std::time::Duration;

use nix::sys::signal::Signal;
use orcd_tests::stats::Samples;
use orcd_tests::{Job, Model, Starter, Transcript, WorkerHarness, report};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);

fn with_standby(model: Model) -> WorkerHarness {
    started(Starter::new(model).failpoints().without_hang_timeout())
}

fn started(starter: Starter) -> WorkerHarness {
    let service = starter.arg("--standby").alone().start();
    service.wait_for_health(SOON, |h| h["standby"] == true);
    service
}

/// The present worker's number and pid, and the standby's pid.
fn pids(health: &Value) -> (u64, u64, u64) {
    let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{health:#}"));
    (
        number(&health["worker"]["generation"]),
        number(&health["worker"]["pid"]),
        number(&health["standby_worker"]["pid"]),
    )
}

/// Runs the job and calls `trigger` when the worker stands in the middle of it.
fn run_and_trigger(service: &WorkerHarness, job: &Job, trigger: impl FnOnce()) -> Transcript {
    let job = std::slice::from_ref(job);
    let stream = service.execute_and_trigger(job, "sleep", 20).remove(0);
    trigger();
    stream.finish()
}

#[test]
fn standby_takes_over_and_another_comes_after_it() {
    let service = with_standby(Model::Slow);
    let job = Job::lasting("a", 60);
    let undisturbed = service.run(&job);
    for round in 1..=3_u64 {
        let (_, worker, standby) = pids(&service.health());
        let found = run_and_trigger(&service, &job, || {
            service.kill_worker();
        });
        assert_eq!(undisturbed.token_bytes(), found.token_bytes());
        assert_eq!(found.end().replays, 1);
        let health = service.wait_for_health(SOON, |h| h["standby"] == true);
        let (_, present, next) = pids(&health);
        assert_eq!(present, standby, "it is the standby that took over");
        assert!(next != standby && next != worker);
        assert_eq!(health["worker"]["restarts"], round);
    }
}

#[test]
fn standby_shows_its_cost() {
    let service = with_standby(Model::Tiny);
    let health = service.health();
    let cost = health["standby_worker"]["vram_bytes"].as_u64().unwrap();
    let used = health["vram_bytes_used"].as_u64().unwrap();
    assert!(cost > 0 && cost < used, "{cost} of {used}");
    let reply = service.get("/metrics");
    let scrape = reply.text();
    assert!(scrape.contains("orcd_standby_ready 1"), "{scrape}");
}

#[test]
fn hang_is_answered_by_the_standby() {
    let service = started(Starter::new(Model::Slow).failpoints());
    let job = Job::lasting("a", 60);
    let undisturbed = service.run(&job);
    service.set_failpoint("step", "stop 20");
    let found = service.run(&job);
    assert_eq!(undisturbed.token_bytes(), found.token_bytes());
    assert_eq!(found.end().replays, 1);
}

#[test]
fn lost_standby_is_replaced_and_nobody_notices() {
    let service = with_standby(Model::Slow);
    let job = Job::lasting("a", 200);
    let (generation, worker, standby) = pids(&service.health());
    service.hold_before_step(20);
    let stream = service.execute(&job);
    service.wait_for_trigger("step");
    let process = u32::try_from(standby).unwrap();
    let process = orcd_tests::proc::Process::find(process).unwrap();
    process.signal(Signal::SIGKILL);
    assert!(process.is_gone_within(SOON));
    service.release();
    assert_eq!(stream.finish().end().replays, 0);
    let health = service.wait_for_health(SOON, |h| {
        h["standby"] == true && h["standby_worker"]["pid"] != standby
    });
    let (generation_now, worker_now, _) = pids(&health);
    assert_eq!((generation, worker), (generation_now, worker_now));
    assert_eq!(health["worker"]["restarts"], 0);
}

#[test]
fn standby_that_dies_with_the_worker_costs_a_restart_and_no_byte() {
    let service = with_standby(Model::Slow);
    let job = Job::lasting("a", 60);
    let undisturbed = service.run(&job);
    let found = run_and_trigger(&service, &job, || {
        for worker in service.supervisor().children() {
            worker.signal(Signal::SIGKILL);
        }
    });
    assert_eq!(undisturbed.token_bytes(), found.token_bytes());
    service.wait_for_health(SOON, |h| h["standby"] == true);
}

#[test]
fn standby_that_dies_of_its_promotion_changes_no_byte() {
    let service = with_standby(Model::Slow);
    let job = Job::lasting("a", 60);
    let undisturbed = service.run(&job);
    let found = run_and_trigger(&service, &job, || {
        // The next message to any worker is the replay, to the standby.
        service.set_failpoint("command", "kill");
        service.kill_worker();
    });
    assert!(!service.is_failpoint_set("command"));
    assert_eq!(undisturbed.token_bytes(), found.token_bytes());
    assert_eq!(found.end().replays, 2);
}

#[test]
fn both_workers_go_with_the_service() {
    let service = with_standby(Model::Tiny);
    assert_eq!(service.supervisor().children().len(), 2);
    service.signal(Signal::SIGTERM);
    assert_eq!(service.wait_for_exit(SOON).status.code(), Some(0));
    let service = with_standby(Model::Tiny);
    let workers = service.supervisor().children();
    service.signal(Signal::SIGKILL);
    for worker in workers {
        assert!(worker.is_gone_within(SOON), "{worker:?}");
    }
}

/// The pauses of streams over a SIGKILL, from the kill to the first token after it, the replay of
/// prompt and tokens included.
fn pauses(service: &WorkerHarness, standby: bool) -> Samples {
    let job = Job::new("a", "Count to twenty").set("temperature", 0);
    let undisturbed = service.run(&job);
    let pause = |_| {
        service.wait_for_health(SOON, |h| {
            h["status"] == "healthy" && (!standby || h["standby"] == true)
        });
        let job = std::slice::from_ref(&job);
        let stream = service.execute_and_trigger(job, "sleep", 12).remove(0);
        service.kill_worker();
        let killed = std::time::Instant::now();
        let found = stream.finish();
        assert_eq!(found.token_bytes(), undisturbed.token_bytes());
        assert_eq!(found.end().replays, 1);
        found.longest_pause(killed)
    };
    Samples::new((0..15).map(pause).collect())
}

#[test]
fn failover_is_quick() {
    let service = Starter::new(Model::Haiku)
        .failpoints()
        .flag("--max-restarts", 1000)
        .without_hang_timeout()
        .alone()
        .start();
    let without = pauses(&service, false);
    drop(service);
    let service = with_standby(Model::Haiku);
    let with = pauses(&service, true);
    report::figure(&format!(
        "SIGKILL to next token, without standby: {without} (bar 60 ms)"
    ));
    report::figure(&format!(
        "SIGKILL to next token, with standby: {with} (bar 10 ms)"
    ));
}
