//! Flags, their variables, the READY line and the exit codes of usage.

use std::time::Duration;

use orcd_tests::{Exit, Model, Starter};

const AT_ONCE: Duration = Duration::from_secs(60);

fn run(arguments: &[&str]) -> Exit {
    arguments
        .iter()
        .fold(Starter::bare(), |starter, a| starter.arg(a))
        .run_to_exit(AT_ONCE)
}

#[test]
fn help_shows_defaults_and_an_example() {
    let exit = run(&["--help"]);
    assert_eq!(exit.status.code(), Some(0));
    for text in [
        "--model",
        "--device",
        "--gpu-device",
        "--host",
        "127.0.0.1",
        "--port",
        "8080",
        "--worker-id",
        "--callback-url",
        "--max-tokens-out",
        "2048",
        "--context",
        "--queue",
        "64",
        "--parallel",
        "--kv-memory",
        "--prefix-cache",
        "--standby",
        "--inference-timeout-sec",
        "300",
        "--drain-timeout-sec",
        "5",
        "--resume-ttl-sec",
        "60",
        "--worker-bin",
        "--runtime-dir",
        "--log-format",
        "text",
        "ORCD_MODEL",
        "ORCD_MAX_TOKENS_OUT",
        "Example",
        "curl",
    ] {
        assert!(exit.stdout.contains(text), "no {text:?} in {}", exit.stdout);
    }
    assert_eq!(exit.stderr, "");
}

#[test]
fn version_names_revision_protocol_and_devices() {
    let exit = run(&["--version"]);
    assert_eq!(exit.status.code(), Some(0));
    assert!(exit.stdout.starts_with("worker-orcd 0."), "{}", exit.stdout);
    for text in ["revision", "protocol", "cpu"] {
        assert!(exit.stdout.contains(text), "no {text:?} in {}", exit.stdout);
    }
}

#[test]
fn wrong_usage_exits_with_code_2_and_names_the_flag() {
    let model = ["--model", "m.gguf"];
    let cases: [(&[&str], &str); 14] = [
        (&["--modle", "x"], "--modle"),
        (&["stray"], "stray"),
        (&["--port", "65536"], "--port"),
        (&["--port", "http"], "--port"),
        (&["--device", "tpu"], "--device"),
        (&["--device", "cuda:x"], "--device"),
        (&["--device", "cpu", "--gpu-device", "0"], "--gpu-device"),
        (&["--worker-id", "seven"], "--worker-id"),
        (&["--callback-url", "not a url"], "--callback-url"),
        (&["--max-tokens-out", "0"], "--max-tokens-out"),
        (&["--context", "1"], "--context"),
        (&["--queue", "many"], "--queue"),
        (&["--inference-timeout-sec", "0"], "--inference-timeout-sec"),
        (&["--log-format", "xml"], "--log-format"),
    ];
    for (arguments, named) in cases {
        let exit = run(&[&model, arguments].concat());
        let line = exit.error_line(2);
        assert!(
            line.starts_with("error: USAGE: ") && line.contains(named),
            "{arguments:?}: {line}"
        );
        assert_eq!(exit.stdout, "");
    }
    assert!(run(&[]).error_line(2).contains("--model"));
}

#[test]
fn variables_set_what_flags_leave_open_and_flags_win() {
    let starter = Starter::new(Model::Tiny)
        .env("ORCD_MAX_TOKENS_OUT", "9")
        .env("ORCD_CONTEXT", "99");
    let service = starter.flag("--context", 300).start();
    assert_eq!(service.health()["context_length"], 300);
    let transcript = service.run(&orcd_tests::Job::new("a", "x").set("top_k", 64));
    assert_eq!(transcript.end().tokens_out, 9);

    let exit = Starter::bare()
        .env("ORCD_MODEL", "m.gguf")
        .env("ORCD_PORT", "x")
        .run_to_exit(AT_ONCE);
    let line = exit.error_line(2);
    assert!(
        line.contains("ORCD_PORT"),
        "{line} does not name the variable"
    );
}

#[test]
fn ready_line_names_the_worker_id_that_was_given() {
    let id = "0190b2a4-7c1d-4f6e-9a3b-5d2c8e1f0a47";
    let service = Starter::new(Model::Tiny).flag("--worker-id", id).start();
    assert_eq!(service.worker_id(), id);
    let expected = format!("READY http://{} worker_id={id}\n", service.address());
    assert_eq!(service.stdout(), expected);
    assert!(service.address().ip().is_loopback());
    assert_ne!(service.address().port(), 0);
    assert_eq!(
        service.get("/health/ready").status(),
        200,
        "READY means ready"
    );
}

#[test]
fn every_instance_gets_an_id_of_its_own() {
    let [a, b] = [(); 2].map(|()| Starter::new(Model::Tiny).start());
    assert_ne!(a.worker_id(), b.worker_id());
    assert_ne!(a.address(), b.address());
}

#[test]
fn logs_go_to_stderr_as_text_or_one_json_object_per_line() {
    let text = Starter::new(Model::Tiny).start();
    text.wait_for_log("INFO");
    let json = Starter::new(Model::Tiny)
        .flag("--log-format", "json")
        .start();
    json.wait_for_log("}\n");
    let log = json.stderr();
    // The last line may be under way.
    let whole = log.rfind('\n').map_or("", |end| &log[..end]);
    for line in whole.lines() {
        assert!(
            serde_json::from_str::<serde_json::Value>(line).is_ok_and(|v| v.is_object()),
            "{line}"
        );
    }
}

#[test]
fn runtime_directory_is_private_and_removed() {
    use std::os::unix::fs::PermissionsExt;

    let service = Starter::new(Model::Tiny).start();
    let run = service.folder().join("run");
    let made: Vec<_> = std::fs::read_dir(&run)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    assert_eq!(made.len(), 1, "one private directory: {made:?}");
    let mode = made[0].metadata().unwrap().permissions().mode() & 0o777;
    assert!(made[0].is_dir() && mode == 0o700, "{mode:o}");
    service.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(
        orcd_tests::proc::wait_until(AT_ONCE, || !made[0].exists()),
        "left behind"
    );
}
