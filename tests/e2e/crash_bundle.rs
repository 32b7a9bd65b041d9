//! What a crash leaves on disk, and that it can be run again.

use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use orcd_tests::start::small_disk_refused;
use orcd_tests::{Job, Model, Starter, WorkerHarness, paths, proc, report};
use serde_json::{Value, json};

fn bundles(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut found: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|e| e == "json"));
    found.sort();
    found
}

/// Crashes a worker with a running job by a signal to itself; the bundle it leaves.
fn crash(service: &WorkerHarness, dir: &Path) -> (PathBuf, Value) {
    let job = Job::lasting("secretive", 60).set("prompt", "a secret");
    let stream = service.execute_and_trigger(&[job], "segv", 25).remove(0);
    assert_eq!(stream.finish().end().replays, 1);
    let written = || !bundles(dir).is_empty();
    assert!(proc::wait_until(Duration::from_secs(60), written));
    let path = bundles(dir).remove(0);
    let text = std::fs::read(&path).unwrap();
    (path, serde_json::from_slice(&text).unwrap())
}

fn replay(bundle: &Path) -> Output {
    let mut command = Command::new(paths::worker());
    command.arg("--replay").arg(bundle).stdin(Stdio::null());
    command.output().unwrap()
}

#[test]
fn crash_leaves_a_private_bundle_without_prompts() {
    let dir = tempfile::tempdir().unwrap();
    let crashes = dir.path().join("crashes");
    let service = Starter::new(Model::Slow)
        .failpoints()
        .flag("--crash-dir", crashes.display())
        .start();
    let (path, bundle) = crash(&service, &crashes);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(bundle["exit"], "signal 11 (SIGSEGV)");
    assert_eq!(bundle["hung"], false);
    assert_eq!(bundle["model"], service.model().to_str().unwrap());
    assert!(
        !bundle["log"].as_array().unwrap().is_empty(),
        "its last lines"
    );
    let job = &bundle["jobs"][0];
    assert_eq!(
        (&job["job_id"], &job["suspect"]),
        (&"secretive".into(), &true.into())
    );
    assert_eq!(job["prompt"], Value::Null);
    assert!(job["prompt_tokens"].as_u64().unwrap() > 0);
    assert!(job["emitted"].as_array().unwrap().len() >= 10);
    assert_eq!(job["sampling"]["seed"], 1);
    assert_replay(&path, 2, "--crash-include-prompts");
}

/// The replay ends with `code` and says why.
#[track_caller]
fn assert_replay(path: &Path, code: i32, why: &str) {
    let output = replay(path);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(why), "{said}");
}

#[test]
fn bundle_with_prompts_is_replayed_by_one_command() {
    let dir = tempfile::tempdir().unwrap();
    let service = Starter::new(Model::Slow)
        .failpoints()
        .flag("--crash-dir", dir.path().display())
        .arg("--crash-include-prompts")
        .start();
    let (path, bundle) = crash(&service, dir.path());
    assert_replay(&path, 0, "its last token came out again");

    // A token that this job never drew: the replay must say so.
    let mut other = bundle;
    let emitted = other["jobs"][0]["emitted"].as_array_mut().unwrap();
    let last = emitted.last_mut().unwrap();
    *last = Value::from(last.as_u64().unwrap() ^ 1);
    std::fs::write(&path, other.to_string()).unwrap();
    assert_replay(&path, 13, "CAME OUT DIFFERENTLY");
}

#[test]
fn bundle_of_a_deadly_job_kills_its_replay_too() {
    let dir = tempfile::tempdir().unwrap();
    let service = Starter::new(Model::Tiny)
        .failpoints()
        .flag("--crash-dir", dir.path().display())
        .arg("--crash-include-prompts")
        .start();
    service.set_failpoint("poison", "666");
    let error = service.run(&Job::lasting("poison", 5).set("seed", 666));
    assert_eq!(error.error().code, "WORKER_CRASHED");
    let three = || bundles(dir.path()).len() == 3;
    assert!(proc::wait_until(Duration::from_secs(60), three));
    for path in bundles(dir.path()) {
        let bundle: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        assert_eq!(bundle["jobs"][0]["job_id"], "poison");
    }
}

/// The worker is killed in the middle of a stream: the same bytes come, and no bundle is left.
#[track_caller]
fn assert_only_the_bundle_is_lost(service: &WorkerHarness) {
    let job = Job::lasting("a", 60);
    let undisturbed = service.run(&job);
    let stream = service.execute_and_trigger(&[job], "kill", 15).remove(0);
    assert_eq!(stream.finish().token_bytes(), undisturbed.token_bytes());
    service.wait_for_log("no crash bundle");
}

/// Writes until there is no room.
fn fill(path: &Path) {
    let mut file = std::fs::File::create(path).unwrap();
    let error = (0..1 << 10).find_map(|_| file.write_all(&[1; 1 << 10]).err());
    assert_eq!(error.unwrap().kind(), ErrorKind::StorageFull);
}

#[test]
fn full_disk_costs_the_bundle_and_no_stream() {
    if let Some(why) = small_disk_refused() {
        return report::skipped(&format!("no file system of its own for the service: {why}"));
    }
    let dir = tempfile::tempdir().unwrap();
    let service = Starter::new(Model::Slow)
        .failpoints()
        .flag("--crash-dir", dir.path().display())
        .small_disk(dir.path())
        .start();
    // The same folder as the service sees it.
    let root = format!("/proc/{}/root", service.supervisor().pid);
    let crashes = Path::new(&root).join(dir.path().strip_prefix("/").unwrap());
    let filler = crashes.join("filler");
    fill(&filler);
    assert_only_the_bundle_is_lost(&service);
    let left: Vec<_> = std::fs::read_dir(&crashes).unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "the filler alone: {left:?}");
    // With room again the next crash leaves its bundle.
    std::fs::remove_file(&filler).unwrap();
    crash(&service, &crashes);
}

#[test]
fn directory_that_vanishes_costs_no_stream() {
    let dir = tempfile::tempdir().unwrap();
    let crashes = dir.path().join("crashes");
    let service = Starter::new(Model::Slow)
        .failpoints()
        .flag("--crash-dir", crashes.display())
        .start();
    std::fs::remove_dir(&crashes).unwrap();
    // A file in its place: nothing can be created in it, not even by root.
    std::fs::write(&crashes, "").unwrap();
    assert_only_the_bundle_is_lost(&service);
}

#[test]
fn directory_that_cannot_be_made_is_a_startup_error() {
    let exit = Starter::new(Model::Tiny)
        .flag("--crash-dir", "/dev/null/crashes")
        .run_to_exit(Duration::from_secs(10));
    let line = exit.error_line(1);
    assert!(line.contains("--crash-dir"), "{line}");
}

/// What its output has to be is as much a client's as its prompt is.
#[test]
fn a_constrained_job_is_run_again_and_its_constraint_shown_with_prompts_alone() {
    for includes in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let starter = Starter::new(Model::Slow)
            .failpoints()
            .flag("--crash-dir", dir.path().display());
        let service = match includes {
            true => starter.arg("--crash-include-prompts").start(),
            false => starter.start(),
        };
        let format = json!({"type": "regex", "pattern": "(a-secret-word-){40}"});
        let job = Job::lasting("job", 60).set("response_format", format);
        let stream = service
            .execute_and_trigger(&[job], "segv", 25)
            .remove(0)
            .finish();
        assert!("a-secret-word-".repeat(40).starts_with(&stream.text()));
        let written = || !bundles(dir.path()).is_empty();
        assert!(proc::wait_until(Duration::from_secs(60), written));
        let path = bundles(dir.path()).remove(0);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.contains("secret-word"), includes, "{text}");
        if includes {
            let output = replay(&path);
            let said = String::from_utf8(output.stdout).unwrap();
            assert!(output.status.success(), "{said}");
            assert!(said.contains("its last token came out again"), "{said}");
        }
    }
}
