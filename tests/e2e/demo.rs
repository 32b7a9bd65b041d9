//! `make run`'s demo: what it shows, and that its service ends with it.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use orcd_tests::proc::{Process, wait_until};
use orcd_tests::{lock, paths, report};

/// Why there is no demo here.
fn missing() -> Option<String> {
    let script = script();
    if !script.is_file() {
        return Some(format!("{} is not here", script.display()));
    }
    let python = Command::new("python3").arg("--version").output();
    python.is_err().then(|| "python3 is not installed".into())
}

fn script() -> PathBuf {
    paths::repository().join("tools/demo/demo.py")
}

/// The demo with the programs under test, on any free port.
fn demo() -> Command {
    let mut command = Command::new("python3");
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ORCD_")) {
        command.env_remove(name);
    }
    let binaries = paths::supervisor();
    command
        .arg(script())
        .arg("--bin")
        .arg(binaries.parent().unwrap())
        .env("ORCD_PORT", "0")
        .env("ORCD_DEVICE", paths::device());
    command
}

#[test]
fn it_kills_the_worker_in_mid_stream_and_compares_the_text() {
    if let Some(why) = missing() {
        return report::skipped(&why);
    }
    let _place = lock::take(false);
    let output = demo().arg("--once").output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stdout}\n{stderr}");
    let verdict = stdout
        .lines()
        .find(|line| line.starts_with("[killed at token "));
    let verdict = verdict.unwrap_or_else(|| panic!("no kill in {stdout}"));
    assert!(
        verdict.contains("next token after ") && verdict.contains("text identical"),
        "{verdict}"
    );
    // Log lines are in their file, not among the text.
    assert!(
        !stdout.contains("INFO") && stderr.is_empty(),
        "{stdout}\n{stderr}"
    );
    assert!(stdout.contains("its log: "), "{stdout}");
}

/// Starts it and waits until it is up: it, its service and the worker.
fn up() -> (Child, Vec<Process>) {
    let mut child = demo()
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let is_up = lines
        .map_while(Result::ok)
        .any(|line| line.contains("Ctrl-C stops it"));
    assert!(is_up, "it ended: {:?}", child.wait());
    let service = Process::find(child.id()).unwrap().children();
    let workers = service.iter().flat_map(|service| service.children());
    let all: Vec<_> = service.iter().copied().chain(workers).collect();
    assert!(all.len() >= 2, "a service and its worker: {all:?}");
    (child, all)
}

#[test]
fn its_service_ends_with_it_whatever_ends_it() {
    if let Some(why) = missing() {
        return report::skipped(&why);
    }
    for signal in [
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGKILL,
    ] {
        let _place = lock::take(false);
        let (mut child, service) = up();
        Process::find(child.id()).unwrap().signal(signal);
        let ended = wait_until(Duration::from_secs(30), || {
            child.try_wait().unwrap().is_some()
        });
        assert!(ended, "{signal}: the demo goes on");
        for process in service {
            let gone = process.is_gone_within(Duration::from_secs(30));
            assert!(gone, "{signal}: {process:?} was left running");
        }
    }
}
