//! KV memory that outlives the supervisor: what the next one takes over of what systemd kept, and what it has removed.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use orcd_shared::claim;
use orcd_tests::notify::Notification;
use orcd_tests::proc::Process;
use orcd_tests::{Job, Model, NotifyDouble, Starter, WorkerHarness, paths};

/// More than a busy machine needs.
const SOON: Duration = Duration::from_secs(60);
/// What is in the store: image and record, memory, ledger and record.
const ALL: usize = 5;
/// Tokens of [`job`]'s prompt that a worker finds, which has the pool: the last one is always computed.
const CACHED: u64 = 319;

/// Five pages, and an output that would show the smallest difference.
fn job(name: &str) -> Job {
    let ids: Vec<_> = (0..320).map(|i| 100 + (i * i * 7 + i * 31) % 400).collect();
    Job::of_ids(name, &ids)
        .set("max_tokens", 40)
        .set("temperature", 1.1)
        .set("seed", 3)
}

/// A model that stays where it is over several services.
fn model_of(model: &Model) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = model.file(folder.path());
    (folder, path)
}

fn under(double: &NotifyDouble, model: &Path) -> Starter {
    Starter::new(Model::File(model.to_owned())).env("NOTIFY_SOCKET", double.address())
}

/// As it is started with what the store holds, or what a test makes of that.
fn passing(starter: Starter, stored: impl IntoIterator<Item = (String, OwnedFd)>) -> Starter {
    let pass = |starter: Starter, (name, fd): (String, _)| starter.pass(&name, fd);
    stored.into_iter().fold(starter, pass)
}

fn is_of_pool(name: &str) -> bool {
    name.starts_with("orcd-kv-")
}

fn wait_for_stored(double: &NotifyDouble) {
    let all = |d: &NotifyDouble| d.stored_names().len() == ALL;
    double.wait_until("weights and pool stored", SOON, all);
}

fn kill(service: WorkerHarness) {
    service.signal(Signal::SIGKILL);
    drop(service);
}

/// The messages since the last start, up to the one that follows what was removed.
fn since_opening(double: &NotifyDouble) -> Vec<Notification> {
    let notifications = double.notifications();
    let is_opening = |n: &Notification| n.lines[0].ends_with(": tokenizer");
    let opening = notifications.iter().rposition(is_opening).unwrap();
    notifications[opening + 1..].to_vec()
}

/// Names that were removed before systemd was asked whether it has done that, with which the start goes on.
fn removed_first(double: &NotifyDouble) -> Vec<String> {
    let messages = since_opening(double).into_iter();
    let removals = messages.take_while(|n| n.lines[0] == "FDSTOREREMOVE=1");
    let name = |n: Notification| n.lines[1].strip_prefix("FDNAME=").unwrap().to_owned();
    removals.map(name).collect()
}

#[test]
fn what_was_computed_outlives_a_killed_and_a_stopped_supervisor() {
    for standby in [false, true] {
        let double = NotifyDouble::default();
        let (_folder, model) = model_of(&Model::Tiny);
        let starter = || {
            let starter = under(&double, &model);
            if standby {
                starter.arg("--standby")
            } else {
                starter
            }
        };
        let start = || {
            let service = passing(starter(), double.stored()).start();
            service.wait_for_health(SOON, |h| h["standby"] == standby);
            service
        };
        let first = start();
        wait_for_stored(&double);
        let names = double.stored_names();
        let expected = first.run(&job("a"));
        assert_eq!(expected.end().cached_tokens, 0);
        kill(first);

        let second = start();
        let found = second.run(&job("a"));
        assert_eq!(found.token_bytes(), expected.token_bytes());
        assert_eq!(found.end().cached_tokens, CACHED);
        // The pool is good for later workers of this supervisor too.
        second.kill_worker();
        second.wait_for_health(SOON, |h| {
            h["status"] == "healthy" && h["worker"]["restarts"] == 1
        });
        assert_eq!(second.run(&job("a")).end().cached_tokens, CACHED);
        second.signal(Signal::SIGTERM);
        assert_eq!(second.wait_for_exit(SOON).status.code(), Some(0));
        assert_eq!(double.stored_names(), names, "nothing new, nothing removed");

        let third = start();
        let found = third.run(&job("a"));
        assert_eq!(found.token_bytes(), expected.token_bytes());
        assert_eq!(found.end().cached_tokens, CACHED);
        assert_eq!(third.health()["load_source"], "handle");
    }
}

/// A job has the same number in both runs, and is not told what the other one's was.
#[test]
fn what_a_job_shares_with_nobody_is_not_found_by_the_next_runs_jobs() {
    let double = NotifyDouble::default();
    let (_folder, model) = model_of(&Model::Brisk);
    let alone = job("a").set("cache", false).set("max_tokens", 400);
    let first = under(&double, &model).start();
    wait_for_stored(&double);
    // It is killed with all its pages.
    let mut stream = first.execute(&alone);
    stream.read_tokens(80);
    first.signal(Signal::SIGKILL);
    drop((stream, first));
    let second = passing(under(&double, &model), double.stored()).start();
    assert_eq!(second.run(&alone).end().cached_tokens, 0);
    assert_eq!(double.stored_names().len(), ALL);
}

#[test]
fn a_pool_that_does_not_fit_what_is_asked_for_leaves_the_store_before_anything_else() {
    type Change = fn(Starter) -> Starter;
    let changes: [(&str, Change, usize); 4] = [
        ("context", |s| s.flag("--context", 1000), ALL),
        ("size", |s| s.flag("--kv-memory", "0.3"), ALL),
        ("sequences", |s| s.flag("--parallel", 3), ALL),
        // Nobody would look into it.
        ("cache", |s| s.flag("--prefix-cache", "off"), 2),
    ];
    let (_folder, model) = model_of(&Model::Tiny);
    for (what, change, stored) in changes {
        let double = NotifyDouble::default();
        let first = under(&double, &model).start();
        wait_for_stored(&double);
        let expected = first.run(&job("a"));
        let old = double.stored_names();
        kill(first);
        let second = passing(change(under(&double, &model)), double.stored()).start();
        let removed = removed_first(&double);
        assert_eq!(removed.len(), 3, "{what}: {removed:?}");
        assert!(removed.iter().all(|name| is_of_pool(name)), "{removed:?}");
        assert_eq!(second.health()["load_source"], "handle", "{what}");
        let found = second.run(&job("a"));
        assert_eq!(found.token_bytes(), expected.token_bytes(), "{what}");
        assert_eq!(found.end().cached_tokens, 0, "{what}");
        let replaced = |d: &NotifyDouble| d.stored_names().len() == stored;
        double.wait_until("its own pool stored, or none", SOON, replaced);
        let now = double.stored_names();
        let kept = |name: &&String| is_of_pool(name) && old.contains(name);
        assert_eq!(now.iter().find(kept), None, "{what}");
    }
}

#[test]
fn a_pool_of_which_something_is_missing_or_torn_leaves_the_store() {
    let (_folder, model) = model_of(&Model::Tiny);
    let broken: [(&str, bool); 5] = [
        ("orcd-kv-memory-", false),
        ("orcd-kv-ledger-", false),
        ("orcd-kv-record-", false),
        ("orcd-kv-record-", true),
        ("orcd-kv-ledger-", true),
    ];
    for (part, is_torn) in broken {
        let double = NotifyDouble::default();
        let first = under(&double, &model).start();
        wait_for_stored(&double);
        let expected = first.run(&job("a"));
        kill(first);
        let stored = double.stored().into_iter().filter_map(|(name, fd)| {
            if !name.starts_with(part) {
                return Some((name, fd));
            }
            // No file in memory, as all that is ours.
            is_torn.then(|| (name, tempfile::tempfile().unwrap().into()))
        });
        let second = passing(under(&double, &model), stored).start();
        let removed = removed_first(&double);
        assert!(removed.iter().all(|name| is_of_pool(name)), "{removed:?}");
        assert_eq!(removed.len(), if is_torn { 3 } else { 2 }, "{part}");
        let found = second.run(&job("a"));
        assert_eq!(found.token_bytes(), expected.token_bytes(), "{part}");
        assert_eq!(found.end().cached_tokens, 0, "{part}");
    }
}

#[test]
fn a_pool_leaves_the_store_with_its_weights_or_with_the_workers_program() {
    for is_model in [true, false] {
        let double = NotifyDouble::default();
        let (folder, model) = model_of(&Model::Tiny);
        let worker = folder.path().join("worker");
        fs::copy(paths::worker(), &worker).unwrap();
        let first = under(&double, &model).worker(&worker).start();
        wait_for_stored(&double);
        first.run(&job("a"));
        kill(first);
        // Equal bytes, another file.
        let copy = folder.path().join("copy");
        let replaced = if is_model { &model } else { &worker };
        fs::copy(replaced, &copy).unwrap();
        fs::rename(&copy, replaced).unwrap();
        let starter = under(&double, &model).worker(&worker);
        let second = passing(starter, double.stored()).start();
        let removed = removed_first(&double);
        assert_eq!(removed.len(), if is_model { ALL } else { 3 }, "{removed:?}");
        assert_eq!(second.run(&job("a")).end().cached_tokens, 0);
        wait_for_stored(&double);
    }
}

/// The program that is started only starts another one, which is replaced.
#[test]
fn a_pool_that_only_the_worker_can_judge_is_replaced_by_its_own() {
    let double = NotifyDouble::default();
    let (folder, model) = model_of(&Model::Tiny);
    let [program, real] = ["worker", "real"].map(|name| folder.path().join(name));
    fs::copy(paths::worker(), &real).unwrap();
    let script = format!("#!/bin/sh\nexec {} \"$@\"\n", real.display());
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let first = under(&double, &model).worker(&program).start();
    wait_for_stored(&double);
    let expected = first.run(&job("a"));
    let old = double.stored_names();
    kill(first);
    let copy = folder.path().join("copy");
    fs::copy(&real, &copy).unwrap();
    fs::rename(&copy, &real).unwrap();
    let starter = under(&double, &model).worker(&program);
    let second = passing(starter, double.stored()).start();
    let found = second.run(&job("a"));
    assert_eq!(found.token_bytes(), expected.token_bytes());
    assert_eq!(found.end().cached_tokens, 0);
    let replaced = |d: &NotifyDouble| {
        let names = d.stored_names();
        let is_new = |name: &String| is_of_pool(name) && !old.contains(name);
        names.len() == ALL && names.iter().filter(|name| is_new(name)).count() == 3
    };
    double.wait_until("its own pool in place of the old", SOON, replaced);
}

/// Numbers of a process's descriptors whose targets `are_meant`.
fn descriptors(process: Process, are_meant: impl Fn(&str) -> bool) -> Vec<u32> {
    let entries = fs::read_dir(format!("/proc/{}/fd", process.pid)).unwrap();
    let paths = entries.flatten().map(|entry| entry.path());
    let target = |path: &Path| fs::read_link(path).is_ok_and(|to| are_meant(to.to_str().unwrap()));
    let number = |path: PathBuf| path.file_name()?.to_str()?.parse().ok();
    paths
        .filter(|path| target(path))
        .filter_map(number)
        .collect()
}

#[test]
fn a_worker_that_is_there_shows_at_the_ledger_until_its_device_is_released() {
    let double = NotifyDouble::default();
    let (_folder, model) = model_of(&Model::Tiny);
    let service = under(&double, &model).start();
    wait_for_stored(&double);
    let stored = double.stored().into_iter();
    let mut ledgers = stored.filter(|(name, _)| name.starts_with("orcd-kv-ledger-"));
    let (_, ledger) = ledgers.next().unwrap();
    assert!(!claim::is_free(&ledger).unwrap());
    // Linux releases descriptors from the last to the first.
    let worker = service.worker();
    let lock = descriptors(worker, |to| to.starts_with("/memfd:orcd-kv-ledger"));
    let others = descriptors(worker, |to| {
        to.starts_with("/dev/nvidia")
            || to.starts_with("/memfd:orcd-kv ")
            || to.starts_with("/memfd:orcd-weights")
    });
    assert!(lock.len() > 1 && !others.is_empty(), "{lock:?}, {others:?}");
    assert!(
        lock.iter().min() < others.iter().min(),
        "{lock:?}, {others:?}"
    );
    kill(service);
    assert!(worker.is_gone_within(SOON));
    // A GPU's process counts as gone some time before all that it had is released.
    let is_free = || claim::is_free(&ledger).unwrap();
    assert!(orcd_tests::proc::wait_until(SOON, is_free));
}

#[test]
fn a_pool_on_which_workers_were_lost_is_not_offered_again() {
    let double = NotifyDouble::default();
    let (_folder, model) = model_of(&Model::Tiny);
    let service = under(&double, &model).flag("--max-restarts", 0).start();
    wait_for_stored(&double);
    service.kill_worker();
    assert_eq!(service.wait_for_exit(SOON).status.code(), Some(3));
    let weights_alone = |d: &NotifyDouble| {
        let names = d.stored_names();
        names.len() == 2 && !names.iter().any(|name| is_of_pool(name))
    };
    double.wait_until("weights without a pool", SOON, weights_alone);
}
