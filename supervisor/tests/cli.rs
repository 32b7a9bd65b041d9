//! The program's command line and its ends before a service exists.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is a failing test with a place

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use orcd_shared::gguf::write;

#[path = "samples/vocabulary.rs"]
mod vocabulary;

use vocabulary::metadata;

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_worker-orcd"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ORCD_") {
            command.env_remove(name);
        }
    }
    command.args(["--port", "0"]);
    command
}

/// Runs to the end; the code and the one `error:` line.
#[track_caller]
fn failure(command: &mut Command) -> (i32, String) {
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<_> = stderr.lines().filter(|l| l.starts_with("error:")).collect();
    assert_eq!(lines.len(), 1, "{stderr}");
    assert!(output.stdout.is_empty());
    (output.status.code().unwrap(), lines[0].to_owned())
}

#[track_caller]
fn shown(output: Output) -> String {
    assert_eq!(output.status.code(), Some(0));
    String::from_utf8(output.stdout).unwrap()
}

/// A file with a vocabulary of all bytes and an end token, and no tensors.
fn model(dir: &Path) -> PathBuf {
    let path = dir.join("m.gguf");
    std::fs::write(&path, write::layout(&metadata(), &[]).unwrap().header).unwrap();
    path
}

#[test]
fn help_and_version_go_to_stdout() {
    assert!(shown(program().arg("--help").output().unwrap()).contains("--max-tokens-out"));
    let version = shown(program().arg("--version").output().unwrap());
    for part in ["worker-orcd ", "revision: ", "protocol: ", "devices: cpu"] {
        assert!(version.contains(part), "{version}");
    }
}

#[test]
fn usage_errors_end_with_2() {
    let (code, line) = failure(&mut program());
    assert_eq!(code, 2);
    assert!(
        line.starts_with("error: USAGE: ") && line.contains("--model"),
        "{line}"
    );
    let (code, line) = failure(program().args(["--model", "m", "--queue", "none"]));
    assert_eq!(code, 2);
    assert!(line.contains("--queue"), "{line}");
}

#[test]
fn every_flag_may_come_from_the_environment_and_the_flag_wins() {
    let (code, line) = failure(program().env("ORCD_MODEL", "m").env("ORCD_QUEUE", "none"));
    assert_eq!(code, 2);
    assert!(line.contains("ORCD_QUEUE"), "{line}");
    let mut both = program();
    both.args(["--model", "flag.gguf", "--device", "cpu"]);
    let (code, line) = failure(
        both.env("ORCD_MODEL", "variable.gguf")
            .env("ORCD_DEVICE", "cuda:0"),
    );
    assert_eq!(code, 1);
    assert!(
        line.contains("flag.gguf") && !line.contains("variable.gguf"),
        "{line}"
    );
    let mut numbered = program();
    let line = failure(
        numbered
            .args(["--model", "m", "--device", "cpu"])
            .env("ORCD_GPU_DEVICE", "0"),
    )
    .1;
    assert!(line.starts_with("error: MODEL_LOAD_FAILED: "), "{line}");
}

#[test]
fn an_empty_variable_is_an_unset_one() {
    let mut command = program();
    for name in ["ORCD_QUEUE", "ORCD_STANDBY", "ORCD_HOST", "ORCD_DEVICE"] {
        command.env(name, "");
    }
    let (code, line) = failure(command.args(["--model", "absent.gguf", "--device", "cpu"]));
    assert_eq!(code, 1);
    assert!(line.contains("absent.gguf"), "{line}");
    let (code, line) = failure(program().env("ORCD_MODEL", ""));
    assert_eq!(code, 2);
    assert!(line.contains("no model was given"), "{line}");
}

#[test]
fn the_model_by_position_wins_over_the_environment() {
    let mut command = program();
    command.env("ORCD_MODEL", "variable.gguf");
    let line = failure(command.args(["bare.gguf", "--device", "cpu"])).1;
    assert!(
        line.contains("bare.gguf") && !line.contains("variable.gguf"),
        "{line}"
    );
}

#[test]
fn a_variable_that_sets_nothing_is_warned_of_by_name_alone() {
    let mut command = program();
    command
        .env("ORCD_MODLE", "the-value")
        .env("ORCD_TEST_FAILPOINTS", "/nowhere")
        .args(["--model", "absent.gguf", "--device", "cpu"]);
    let stderr = String::from_utf8(command.output().unwrap().stderr).unwrap();
    let warnings: Vec<_> = stderr.lines().filter(|l| l.contains("WARN")).collect();
    assert_eq!(warnings.len(), 1, "{stderr}");
    assert!(
        warnings[0].contains("ORCD_MODLE") && warnings[0].contains("ORCD_MODEL"),
        "{stderr}"
    );
    assert!(!stderr.contains("the-value"), "{stderr}");
}

#[test]
fn a_log_filter_that_cannot_be_read_is_warned_of() {
    let mut command = program();
    command.env("RUST_LOG", "warn,orcd_supervisor=loud").args([
        "--model",
        "absent.gguf",
        "--device",
        "cpu",
    ]);
    let stderr = String::from_utf8(command.output().unwrap().stderr).unwrap();
    let warnings: Vec<_> = stderr.lines().filter(|l| l.contains("WARN")).collect();
    assert_eq!(warnings.len(), 1, "{stderr}");
    assert!(warnings[0].contains("`orcd_supervisor=loud`"), "{stderr}");
}

#[cfg(not(feature = "cuda"))]
#[test]
fn a_device_that_is_not_built_in_is_no_other_device() {
    for device in [["--device", "cuda:0"], ["--gpu-device", "0"]] {
        let (code, line) = failure(program().args(["--model", "m"]).args(device));
        assert_eq!(code, 2);
        assert!(
            line.starts_with("error: CUDA_ERROR: ") && line.contains("no CUDA"),
            "{line}"
        );
    }
}

#[test]
fn models_that_cannot_be_read_are_named_with_the_place() {
    let dir = tempfile::tempdir().unwrap();
    let run = |path: &Path| failure(program().args(["--device", "cpu", "--model"]).arg(path));
    let (code, line) = run(&dir.path().join("absent.gguf"));
    assert_eq!(code, 1);
    assert!(line.starts_with("error: MODEL_LOAD_FAILED: "), "{line}");
    assert_eq!(line.matches("absent.gguf").count(), 1, "{line}");
    let path = model(dir.path());
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let (code, line) = run(&path);
    assert_eq!(code, 1);
    assert!(
        line.contains("m.gguf: ") && line.contains(" offset "),
        "{line}"
    );
}

#[test]
fn a_missing_worker_program_ends_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = program();
    command.args([
        "--device",
        "cpu",
        "--worker-bin",
        "/nowhere/cuda-worker",
        "--model",
    ]);
    let (code, line) = failure(
        command
            .arg(model(dir.path()))
            .arg("--runtime-dir")
            .arg(dir.path()),
    );
    assert_eq!(code, 1);
    assert!(
        line.contains("/nowhere/cuda-worker") && line.contains("--worker-bin"),
        "{line}"
    );
    // The private directory is gone.
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_taken_port_ends_the_start() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_worker-orcd"));
    // A file that is there, whatever is in it: the port is asked for before it is read.
    let model = env!("CARGO_BIN_EXE_worker-orcd");
    let (code, line) =
        failure(command.args(["--model", model, "--device", "cpu", "--port", &port]));
    assert_eq!(code, 1);
    assert!(
        line.starts_with("error: LISTEN_FAILED: ") && line.contains(&port),
        "{line}"
    );
}
