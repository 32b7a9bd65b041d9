//! What whoever runs the service finds in the log: each thing once, and as loud as it is.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use orcd_tests::{Job, Model, Starter, WorkerHarness, paths};

/// Whatever a test waits for is there by then, on any machine.
const SOON: Duration = Duration::from_secs(60);

/// The notices of this level that say `text`.
fn lines(log: &str, level: &str, text: &str) -> usize {
    let level = format!(" {level} ");
    let words = [&level, "fleet::notices", text];
    let is_one = |line: &&str| words.iter().all(|word| line.contains(word));
    log.lines().filter(is_one).count()
}

#[test]
fn lost_worker_is_one_warning_and_no_error() {
    let service = WorkerHarness::start(Model::Tiny);
    service.kill_worker();
    service.wait_for_health(SOON, |h| {
        h["status"] == "healthy" && h["worker"]["restarts"] == 1
    });
    service.wait_for_log("worker ended: signal 9");
    let log = service.stderr();
    assert_eq!(lines(&log, "WARN", ""), 1, "{log}");
    assert_eq!(lines(&log, "WARN", "worker ended"), 1, "{log}");
    assert_eq!(lines(&log, "ERROR", ""), 0, "{log}");
}

#[test]
fn hang_is_an_error_while_it_lasts_and_one_warning() {
    let service = Starter::new(Model::Slow).failpoints().start();
    service.run(&Job::lasting("before", 20));
    service.set_failpoint("step", "spin 5");
    assert_eq!(service.run(&Job::lasting("a", 20)).end().replays, 1);
    service.wait_for_log("worker ended");
    service.wait_for_log("healthy again");
    let log = service.stderr();
    assert_eq!(lines(&log, "ERROR", ""), 1, "{log}");
    assert_eq!(lines(&log, "ERROR", "unhealthy"), 1, "{log}");
    assert_eq!(lines(&log, "WARN", ""), 1, "{log}");
    assert_eq!(lines(&log, "WARN", "worker is killed"), 1, "{log}");
    assert_eq!(lines(&log, "INFO", "healthy again"), 1, "{log}");
}

#[test]
fn stop_that_was_asked_for_is_no_loss() {
    let service = WorkerHarness::start(Model::Tiny);
    service.signal(nix::sys::signal::Signal::SIGTERM);
    let log = service.wait_for_exit(SOON).stderr;
    assert_eq!(lines(&log, "INFO", "worker ended"), 1, "{log}");
    assert_eq!(
        lines(&log, "WARN", "") + lines(&log, "ERROR", ""),
        0,
        "{log}"
    );
}

#[test]
fn service_that_becomes_unhealthy_is_one_error_and_says_when_it_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken");
    let worker = folder.path().join("worker");
    let script = format!(
        "#!/bin/sh\n[ -e {broken:?} ] && exit 7\nexec {:?} \"$@\"\n",
        paths::worker()
    );
    fs::write(&worker, script).unwrap();
    fs::set_permissions(&worker, fs::Permissions::from_mode(0o755)).unwrap();
    let service = Starter::new(Model::Tiny).worker(&worker).start();
    fs::write(&broken, "").unwrap();
    service.kill_worker();
    service.wait_for_health(SOON, |h| h["status"] == "unhealthy");
    service.wait_for_log("unhealthy: ");
    fs::remove_file(&broken).unwrap();
    service.wait_for_log("healthy again");
    let log = service.stderr();
    assert_eq!(lines(&log, "ERROR", ""), 1, "{log}");
    assert_eq!(lines(&log, "ERROR", "unhealthy: "), 1, "{log}");
    assert_eq!(lines(&log, "INFO", "healthy again"), 1, "{log}");
    assert!(lines(&log, "WARN", "worker ended: exit 7") >= 4, "{log}");
}

#[test]
fn failed_start_is_said_once() {
    let missing = Starter::new(Model::Tiny)
        .worker(Path::new("/nonexistent/cuda-worker"))
        .run_to_exit(SOON);
    let said = missing.stderr.matches("can't be started").count();
    assert_eq!(said, 1, "{}", missing.stderr);
}
