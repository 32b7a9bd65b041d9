//! Files that change under the service: its worker's program and its model.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use orcd_shared::protocol::version::PROTOCOL;
use orcd_tests::{Job, Model, Starter, WorkerHarness, paths, report};

const SOON: Duration = Duration::from_secs(60);

/// Says Hello with another protocol version than it has, then waits: frames are a little-endian
/// length and a bincode message, here variant 0 with the version and a build's name.
const LIAR: &str = r#"
import socket, sys, time
link = socket.socket(socket.AF_UNIX)
link.connect(sys.argv[2])
body = bytes([0, VERSION, 4]) + b"liar"
link.sendall(len(body).to_bytes(4, "little") + body)
time.sleep(60)
"#;

fn liar(folder: &Path, version: u32) -> PathBuf {
    let path = folder.join("liar");
    let body = LIAR.replace("VERSION", &version.to_string());
    fs::write(&path, format!("#!/usr/bin/env python3\n{body}")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn worker_of_another_protocol_is_a_startup_error_that_names_both() {
    if std::process::Command::new("python3")
        .arg("--version")
        .output()
        .is_err()
    {
        return report::skipped("python3, which plays the worker, is not here");
    }
    let folder = tempfile::tempdir().unwrap();
    for version in [0, PROTOCOL + 1, 250] {
        let exit = Starter::new(Model::Tiny)
            .worker(&liar(folder.path(), version))
            .run_to_exit(SOON);
        let line = exit.error_line(1);
        for named in [format!("protocol {version}"), format!("speaks {PROTOCOL} ")] {
            assert!(line.contains(&named), "no {named:?} in {line}");
        }
        assert_eq!(exit.stdout, "", "READY was said");
    }
}

#[test]
fn worker_program_replaced_by_another_version_is_refused_and_the_right_one_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("worker");
    std::os::unix::fs::symlink(paths::worker_with_failpoints(), &program).unwrap();
    let service = Starter::new(Model::Slow).failpoints().worker(&program);
    let service = service.without_hang_timeout().start();
    let job = Job::lasting("a", 100);
    let undisturbed = service.run(&job);
    let stream = service.execute_and_trigger(&[job], "sleep", 15).remove(0);
    swap(&program, &liar(folder.path(), PROTOCOL + 1));
    service.kill_worker();
    service.wait_for_health(SOON, |h| {
        h["worker"]["restarts"].as_u64() > Some(1) && h["status"] != "healthy"
    });
    service.wait_for_log("no link to the worker");
    swap(&program, &paths::worker_with_failpoints());
    assert_eq!(stream.finish().token_bytes(), undisturbed.token_bytes());
}

/// Points the link elsewhere, at once.
fn swap(link: &Path, to: &Path) {
    let draft = link.with_extension("draft");
    std::os::unix::fs::symlink(to, &draft).unwrap();
    fs::rename(draft, link).unwrap();
}

/// Kills the worker in the middle of a stream, after `change`.
#[track_caller]
fn assert_old_bytes(service: &WorkerHarness, change: impl FnOnce(&Path)) {
    let job = Job::lasting("a", 100);
    let undisturbed = service.run(&job);
    let stream = service.execute_and_trigger(&[job], "sleep", 15).remove(0);
    change(service.model());
    service.kill_worker();
    let found = stream.finish();
    assert_eq!(found.token_bytes(), undisturbed.token_bytes());
    assert_eq!(found.end().replays, 1);
}

#[test]
fn model_replaced_by_another_changes_no_byte_of_a_running_service() {
    let service = Starter::new(Model::Slow)
        .failpoints()
        .without_hang_timeout()
        .start();
    assert_old_bytes(&service, |path| {
        let folder = tempfile::tempdir_in(path.parent().unwrap()).unwrap();
        let other = Model::Llama.file(folder.path());
        fs::rename(other, path).unwrap();
    });
}

#[test]
fn model_overwritten_in_place_is_not_served_under_the_old_name() {
    let service = Starter::new(Model::Slow)
        .failpoints()
        .without_hang_timeout()
        .start();
    let job = Job::lasting("a", 100);
    let undisturbed = service.run(&job);
    let running = std::slice::from_ref(&job);
    let stream = service.execute_and_trigger(running, "sleep", 15).remove(0);
    let file = OpenOptions::new()
        .write(true)
        .open(service.model())
        .unwrap();
    let length = file.metadata().unwrap().len();
    // Weights, after the header: it parses as before.
    let noise = vec![0x5a; usize::try_from(length / 2).unwrap()];
    file.write_all_at(&noise, length / 2).unwrap();
    service.kill_worker();
    // Nothing is left that could serve the model that the service began with.
    service.wait_for_health(SOON, |h| h["status"] == "unhealthy");
    let refusal = service.refusal(&job.clone().named("b"));
    assert_eq!(refusal.refusal(), (503, "WORKER_UNAVAILABLE".into()));
    service.wait_for_log("was written to since");
    assert_eq!(service.cancel("a"), "cancelling");
    let found = stream.finish();
    assert!(found.ids().len() < undisturbed.ids().len());
    assert!(undisturbed.token_bytes().starts_with(&found.token_bytes()));
}

#[test]
fn model_that_was_only_touched_or_written_with_the_same_bytes_goes_on() {
    let service = Starter::new(Model::Slow).failpoints().start();
    let before = service.health();
    assert_old_bytes(&service, |path| {
        let file = OpenOptions::new().write(true).open(path).unwrap();
        let content = fs::read(path).unwrap();
        file.write_all_at(&content, 0).unwrap();
    });
    let after = service.health();
    // Its image was kept: the file was read to see that it is the same, and not loaded.
    assert_eq!(after["load_source"], "handle");
    assert_eq!(before["model_hash"], after["model_hash"]);
    let hash = before["model_hash"].as_str().unwrap();
    assert_eq!(hash.len(), "blake3:".len() + 64, "{hash}");
}
