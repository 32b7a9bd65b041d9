//! Under systemd: what it is told, what it keeps, and what it passes on.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use orcd_tests::notify::Notification;
use orcd_tests::proc::Process;
use orcd_tests::{Job, Model, NotifyDouble, Starter, paths, report};

/// More than a busy machine needs.
const SOON: Duration = Duration::from_secs(60);

fn under(double: &NotifyDouble, model: Model) -> Starter {
    Starter::new(model).env("NOTIFY_SOCKET", double.address())
}

/// A model that stays where it is over several services.
fn tiny_model() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = Model::Tiny.file(folder.path());
    (folder, path)
}

/// A service that gets what the store holds.
fn restarted(double: &NotifyDouble, model: &Path) -> Starter {
    let starter = under(double, Model::File(model.to_owned()));
    let pass = |starter: Starter, (name, fd): (String, _)| starter.pass(&name, fd);
    double.stored().into_iter().fold(starter, pass)
}

/// A worker program that takes its time once the file beside it is there.
fn slow_worker(folder: &Path) -> (PathBuf, PathBuf) {
    let (program, slow) = (folder.join("worker"), folder.join("slow"));
    let (slow_path, worker) = (slow.display(), paths::worker());
    let script = format!(
        "#!/bin/sh\n[ -e {slow_path} ] && sleep 1\nexec {} \"$@\"\n",
        worker.display()
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    (program, slow)
}

#[track_caller]
fn wait_for_status(double: &NotifyDouble, start: &str) {
    let seen = |d: &NotifyDouble| d.values("STATUS").iter().any(|s| s.starts_with(start));
    double.wait_until(start, SOON, seen);
}

/// What is stored: the image and the record that describes it; the pool's memory, its ledger and its record.
const STORED: usize = 5;

fn wait_for_stored_weights(double: &NotifyDouble) {
    let all = |d: &NotifyDouble| d.stored_names().len() == STORED;
    double.wait_until("weights and pool stored", SOON, all);
}

#[test]
fn start_recovery_and_stop_are_told_in_order() {
    let double = NotifyDouble::default();
    let folder = tempfile::tempdir().unwrap();
    let (worker, slow) = slow_worker(folder.path());
    let service = under(&double, Model::Tiny).worker(&worker).start();
    wait_for_status(&double, "Ready");
    let notifications = double.notifications();
    let ready = notifications
        .iter()
        .position(|n| n.lines.iter().any(|line| line == "READY=1"));
    let before = &notifications[..ready.expect("READY=1 comes with the status")];
    for line in ["STATUS=Loading tiny-qwen2.gguf", "EXTEND_TIMEOUT_USEC="] {
        let mut lines = before.iter().flat_map(|n| &n.lines);
        assert!(
            lines.any(|l| l.starts_with(line)),
            "no {line} in {before:?}"
        );
    }
    fs::write(slow, "").unwrap();
    service.kill_worker();
    wait_for_status(&double, "Recovering");
    let back = |d: &NotifyDouble| {
        let last = d.values("STATUS").pop();
        last.is_some_and(|status| status.starts_with("Ready"))
    };
    double.wait_until("ready again", SOON, back);
    assert_eq!(double.values("READY"), ["1"], "once for good");
    assert!(double.values("STOPPING").is_empty());
    service.signal(Signal::SIGTERM);
    assert_eq!(service.wait_for_exit(SOON).status.code(), Some(0));
    assert!(!double.values("STOPPING").is_empty());
}

#[test]
fn why_a_start_failed_is_told() {
    let double = NotifyDouble::default();
    let missing = Model::File("/nonexistent/missing.gguf".into());
    let exit = under(&double, missing).run_to_exit(SOON);
    exit.error_line(1);
    wait_for_status(&double, "error: MODEL_LOAD_FAILED: ");
    assert!(double.values("READY").is_empty());
}

#[test]
fn time_to_finish_running_jobs_is_asked_for() {
    let double = NotifyDouble::default();
    let service = under(&double, Model::Slow)
        .flag("--drain-timeout-sec", 100)
        .start();
    let mut stream = service.execute(&Job::lasting("a", 2000));
    stream.read_tokens(3);
    service.signal(Signal::SIGTERM);
    wait_for_status(&double, "Draining: 1 running");
    service.cancel("a");
    stream.finish();
    assert_eq!(service.wait_for_exit(SOON).status.code(), Some(0));
    let stop = double.notifications().into_iter();
    let mut stop = stop.filter(|n| n.lines.iter().any(|line| line == "STOPPING=1"));
    let usec = stop.find_map(|n| {
        let asked = n
            .lines
            .iter()
            .find_map(|l| l.strip_prefix("EXTEND_TIMEOUT_USEC="));
        asked.map(|usec| usec.parse::<u64>().unwrap())
    });
    assert!(usec > Some(100_000_000), "{usec:?}");
}

#[test]
fn signs_of_life_stop_with_the_supervisor_and_come_again() {
    let double = NotifyDouble::default();
    let service = under(&double, Model::Tiny)
        .env("WATCHDOG_USEC", "1500000")
        .start();
    let signs = |d: &NotifyDouble| d.values("WATCHDOG").len();
    let more_than = |n| move |d: &NotifyDouble| signs(d) > n;
    double.wait_until("two signs of life", SOON, more_than(1));
    service.signal(Signal::SIGSTOP);
    // What was under way is read.
    std::thread::sleep(Duration::from_millis(300));
    let at_stop = signs(&double);
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(
        signs(&double),
        at_stop,
        "signs of life of a stopped process"
    );
    service.signal(Signal::SIGCONT);
    double.wait_until("signs again", SOON, more_than(at_stop));
}

#[test]
fn watchdog_of_another_process_is_not_fed() {
    let double = NotifyDouble::default();
    let service = under(&double, Model::Tiny)
        .env("WATCHDOG_USEC", "300000")
        .env("WATCHDOG_PID", "1")
        .start();
    wait_for_status(&double, "Ready");
    std::thread::sleep(Duration::from_millis(1000));
    assert!(double.values("WATCHDOG").is_empty());
    drop(service);
}

#[test]
fn weights_outlive_a_killed_and_a_stopped_supervisor() {
    let double = NotifyDouble::default();
    let (_folder, model) = tiny_model();
    let job = Job::lasting("a", 40);
    let first = under(&double, Model::File(model.clone())).start();
    assert_eq!(first.health()["load_source"], "file");
    wait_for_stored_weights(&double);
    let expected = first.run(&job);
    let names = double.stored_names();
    first.signal(Signal::SIGKILL);
    drop(first);

    let second = restarted(&double, &model).start();
    assert_eq!(second.health()["load_source"], "handle");
    assert_eq!(second.run(&job).token_bytes(), expected.token_bytes());
    // The image is good for later workers of this supervisor too.
    second.kill_worker();
    second.wait_for_health(SOON, |h| {
        h["status"] == "healthy" && h["worker"]["restarts"] == 1
    });
    assert_eq!(second.health()["load_source"], "handle");
    second.signal(Signal::SIGTERM);
    assert_eq!(second.wait_for_exit(SOON).status.code(), Some(0));
    assert_eq!(double.stored_names(), names, "nothing new, nothing removed");

    let third = restarted(&double, &model).start();
    assert_eq!(third.health()["load_source"], "handle");
    assert_eq!(third.run(&job).token_bytes(), expected.token_bytes());
}

#[test]
fn weights_of_a_model_file_that_was_replaced_are_thrown_out() {
    let double = NotifyDouble::default();
    let (folder, model) = tiny_model();
    let first = under(&double, Model::File(model.clone())).start();
    wait_for_stored_weights(&double);
    let old = double.stored_names();
    first.signal(Signal::SIGKILL);
    drop(first);

    // Equal bytes, another file: its time says so.
    let copy = folder.path().join("copy.gguf");
    fs::copy(&model, &copy).unwrap();
    fs::rename(&copy, &model).unwrap();
    let second = restarted(&double, &model).start();
    assert_eq!(second.health()["load_source"], "file");
    let replaced = |d: &NotifyDouble| {
        let names = d.stored_names();
        names.len() == STORED && names.iter().all(|name| !old.contains(name))
    };
    double.wait_until("the new image in place of the old", SOON, replaced);
    // Thrown out before anything else was done, not after loading: there may be no room for two.
    let notifications = double.notifications();
    let is_opening = |n: &Notification| n.lines[0].ends_with(": tokenizer");
    let opening = notifications.iter().rposition(is_opening).unwrap();
    for removal in &notifications[opening + 1..=opening + STORED] {
        assert_eq!(removal.lines[0], "FDSTOREREMOVE=1", "{notifications:#?}");
    }
}

#[test]
fn weights_on_which_a_start_fails_are_not_offered_again() {
    let double = NotifyDouble::default();
    let (_folder, model) = tiny_model();
    let first = under(&double, Model::File(model.clone())).start();
    wait_for_stored_weights(&double);
    first.signal(Signal::SIGKILL);
    drop(first);

    let exit = restarted(&double, &model)
        .worker(Path::new("/bin/false"))
        .run_to_exit(SOON);
    exit.error_line(1);
    let emptied = |d: &NotifyDouble| d.stored_names().is_empty();
    double.wait_until("an empty store", SOON, emptied);
}

#[test]
fn passed_socket_is_listened_on_and_keeps_connections_over_a_restart() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let start = || {
        let socket = socket.try_clone().unwrap();
        Starter::new(Model::Tiny).pass("http", socket).start()
    };
    let first = start();
    assert_eq!(first.address(), address);
    assert_eq!(first.get("/health").status(), 200);
    first.signal(Signal::SIGTERM);
    assert_eq!(first.wait_for_exit(SOON).status.code(), Some(0));
    // Nobody serves at present; the connection waits in the socket.
    let mut waiting = orcd_tests::http::Connection::open(address);
    let second = start();
    assert_eq!(second.address(), address);
    assert_eq!(
        waiting.request("GET", "/health/live", &[], b"").status(),
        200
    );
}

#[test]
fn passed_sockets_that_are_of_no_use_are_a_startup_error() {
    let tcp = || TcpListener::bind("127.0.0.1:0").unwrap();
    let two = Starter::new(Model::Tiny).pass("a", tcp()).pass("b", tcp());
    let line = two.run_to_exit(SOON).error_line(1).to_owned();
    assert!(line.starts_with("error: LISTEN_FAILED: 2 "), "{line}");
}

#[test]
fn systemd_socket_activate_starts_it_on_the_first_connection() {
    let program = "systemd-socket-activate";
    if Command::new(program).arg("--version").output().is_err() {
        return report::skipped("systemd-socket-activate is not installed");
    }
    // A port that was free a moment ago: the program takes no port 0.
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap();
    drop(port);
    let service = Starter::new(Model::Tiny).activated_at(address).start();
    assert_eq!(service.address(), address);
    assert_eq!(service.get("/health/ready").status(), 200);
}

/// What systemd says to the supervisor is not for the worker.
#[test]
fn worker_learns_nothing_of_systemd() {
    let double = NotifyDouble::default();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let service = under(&double, Model::Tiny)
        .env("WATCHDOG_USEC", "60000000")
        .env("FDSTORE", "4")
        .pass("http", socket.try_clone().unwrap())
        .start();
    let worker = service.worker();
    let variables = variables(worker);
    assert!(variables.contains("PATH"), "{variables:?}");
    let leaked: Vec<_> = variables
        .iter()
        .filter(|name| {
            let starts = |start| name.starts_with(start);
            ["NOTIFY_", "WATCHDOG_", "LISTEN_", "FDSTORE"]
                .into_iter()
                .any(starts)
        })
        .collect();
    assert!(leaked.is_empty(), "{leaked:?}");
    let ours = descriptors(service.supervisor());
    let inode = fs::read_link(format!("/proc/self/fd/{}", raw(&socket))).unwrap();
    assert!(
        ours.contains(&inode),
        "the supervisor listens on {inode:?}: {ours:?}"
    );
    let theirs = descriptors(worker);
    assert!(
        !theirs.contains(&inode),
        "the worker has {inode:?}: {theirs:?}"
    );
}

fn raw(socket: &TcpListener) -> i32 {
    use std::os::fd::AsRawFd as _;
    socket.as_raw_fd()
}

fn variables(process: Process) -> BTreeSet<String> {
    let environ = fs::read(format!("/proc/{}/environ", process.pid)).unwrap();
    let names = environ
        .split(|byte| *byte == 0)
        .filter_map(|variable| variable.split(|byte| *byte == b'=').next());
    names
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect()
}

fn descriptors(process: Process) -> BTreeSet<PathBuf> {
    let folder = format!("/proc/{}/fd", process.pid);
    let entries = fs::read_dir(folder).unwrap().flatten();
    entries
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .collect()
}

#[test]
fn logs_stay_lines_where_stderr_is_no_journal() {
    // The variable is there, but stderr is the harness's pipe.
    let service = Starter::new(Model::Tiny)
        .env("JOURNAL_STREAM", "1:2")
        .start();
    service.wait_for_log("INFO orcd_supervisor");
}

#[test]
fn an_address_that_the_passed_socket_overrides_is_warned_of() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let service = Starter::new(Model::Tiny)
        .pass("http", socket)
        .env("ORCD_HOST", "127.0.0.2")
        .start();
    assert_eq!(service.address(), address);
    service.wait_for_log("ListenStream=");
    let warned = |line: &str| line.contains("WARN") && line.contains("ListenStream=");
    let log = service.stderr();
    let line = log.lines().find(|line| warned(line));
    let line = line.unwrap_or_else(|| panic!("no warning in {log}"));
    assert!(
        line.contains(&address.to_string()) && line.contains("ORCD_PORT"),
        "{line}"
    );
}

/// Without systemd it stops the service, see `shutdown.rs`.
#[test]
fn hangup_does_not_stop_a_service_of_systemd() {
    let double = NotifyDouble::default();
    let service = under(&double, Model::Tiny).start();
    service.signal(Signal::SIGHUP);
    // A service that is about to stop would refuse it.
    assert_eq!(service.run(&Job::lasting("a", 5)).end().tokens_out, 5);
    assert_eq!(service.health()["status"], "healthy");
    service.signal(Signal::SIGTERM);
    let exit = service.wait_for_exit(SOON);
    assert_eq!(exit.status.code(), Some(0));
    assert!(!exit.stderr.contains("SIGHUP"), "{}", exit.stderr);
}
