//! `worker-orcd check`: it finds what a start fails with, in the same words, and nothing else.

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use orcd_shared::gguf::Value;
use orcd_tests::model::rewrite;
use orcd_tests::{Exit, Model, Starter};
use regex::Regex;
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(60);

fn check(starter: Starter) -> Exit {
    starter.checked().run_to_exit(SOON)
}

#[test]
fn what_starts_is_found_to_be_fine_and_nothing_is_left_behind() {
    let folder = TempDir::new().unwrap();
    let crashes = folder.path().join("crashes");
    let exit = check(Starter::new(Model::Tiny).flag("--crash-dir", crashes.display()));
    assert_eq!(exit.status.code(), Some(0), "{exit:?}");
    for subject in [
        "settings", "address", "folders", "model", "worker", "memory",
    ] {
        let line = format!("ok      {subject}");
        assert!(exit.stdout.contains(&line), "no {line} in {}", exit.stdout);
    }
    let end = "\nnothing keeps the service from starting\n";
    assert!(exit.stdout.ends_with(end), "{}", exit.stdout);
    assert!(!exit.stdout.contains("READY"), "{}", exit.stdout);
    assert!(!crashes.exists());
}

#[test]
fn a_slip_is_warned_of_and_keeps_nothing_from_starting() {
    let exit = check(Starter::new(Model::Tiny).env("ORCD_PRT", "7"));
    assert_eq!(exit.status.code(), Some(0), "{exit:?}");
    let warning = "warning settings unknown variable \"ORCD_PRT\"";
    assert!(exit.stdout.contains(warning), "{}", exit.stdout);
}

/// What starts with `starter` fail with, and a check finds.
fn fails(code: i32, starter: impl Fn() -> Starter) {
    let started = starter().run_to_exit(SOON);
    let line = started.error_line(code);
    // Each of the two has a port, a process id and a random folder of its own.
    let number = Regex::new("[0-9a-f-]*[0-9][0-9a-f-]*").unwrap();
    let line = number.replace_all(line, "N");
    let why = line.strip_prefix("error: ").unwrap_or(&line);
    let checked = check(starter());
    assert_eq!(checked.status.code(), Some(code), "{checked:?}");
    let found = number.replace_all(&checked.stdout, "N");
    let is_found = |line: &str| line.starts_with("FAILED ") && line.contains(why);
    let is_found = found.lines().any(is_found);
    assert!(is_found, "no {why:?} in {}", checked.stdout);
    let end = "\none thing keeps the service from starting\n";
    assert!(checked.stdout.ends_with(end), "{}", checked.stdout);
}

#[test]
fn a_check_finds_what_a_start_fails_with() {
    let folder = TempDir::new().unwrap();
    let file = |name: &str| folder.path().join(name);
    let model = Model::Tiny.file(folder.path());
    let of = |path: &Path| Starter::new(Model::File(path.to_owned()));

    fails(1, || of(&file("absent.gguf")));
    let cut = file("cut.gguf");
    let bytes = std::fs::read(&model).unwrap();
    std::fs::write(&cut, &bytes[..bytes.len() - 1000]).unwrap();
    fails(1, || of(&cut));

    fails(1, || of(&model).flag("--context", 1_000_000));
    fails(1, || of(&model).flag("--crash-dir", model.display()));
    fails(2, || of(&model).flag("--host", "0.0.0.0"));
    let long = "x".repeat(120);
    let run = file(&long);
    fails(1, || of(&model).env("ORCD_CRASH_DIR", "/proc/x"));
    fails(1, || {
        Starter::bare()
            .flag("--model", model.display())
            .flag("--device", "cpu")
            .flag("--port", 0)
            .flag("--runtime-dir", run.display())
    });

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    fails(1, || {
        Starter::bare()
            .flag("--model", model.display())
            .flag("--device", "cpu")
            .flag("--port", port)
    });
}

#[test]
fn of_several_faults_the_code_is_that_of_the_first_that_a_start_meets() {
    let folder = TempDir::new().unwrap();
    // A model that was never pulled, which a start looks for before it listens where it may not.
    let starter = || {
        Starter::bare()
            .flag("--model", "hf.co/nobody/Nothing-GGUF")
            .flag("--models-dir", folder.path().display())
            .flag("--device", "cpu")
            .flag("--host", "0.0.0.0")
            .flag("--port", 0)
            .flag("--crash-dir", "/proc/x")
    };
    let started = starter().run_to_exit(SOON);
    assert_eq!(started.status.code(), Some(1), "{started:?}");
    let checked = check(starter());
    assert_eq!(checked.status.code(), Some(1), "{checked:?}");
    let found = checked.stdout.lines().map(|line| &line[..17]);
    let failed: Vec<_> = found.filter(|line| line.starts_with("FAILED")).collect();
    let expected = [
        "FAILED  model    ",
        "FAILED  address  ",
        "FAILED  folders  ",
    ];
    assert_eq!(failed, expected);
}

#[test]
fn memory_that_is_not_there_is_found_without_being_taken() {
    let folder = TempDir::new().unwrap();
    let model = Model::Tiny.file(folder.path());
    // Tera-bytes of KV memory.
    let long = folder.path().join("long.gguf");
    rewrite(&model, &long, |key, value| match key {
        "qwen2.context_length" => Some(Value::U32(4_194_304)),
        _ => Some(value.clone()),
    });
    let starter = Starter::new(Model::File(long)).flag("--parallel", 1024);
    let exit = check(starter.flag("--kv-memory", "100T"));
    assert_eq!(exit.status.code(), Some(1), "{exit:?}");
    let is_named = exit.stdout.contains("FAILED  memory   INSUFFICIENT_");
    assert!(is_named, "{}", exit.stdout);
}

#[test]
fn a_program_that_is_no_worker_is_named() {
    let exit = check(Starter::new(Model::Tiny).worker(Path::new("/bin/cat")));
    assert_eq!(exit.status.code(), Some(1), "{exit:?}");
    let named = "FAILED  worker   WORKER_UNAVAILABLE: /bin/cat is another program";
    assert!(exit.stdout.contains(named), "{}", exit.stdout);
}
