//! The scripts of `make`: what they say where something is missing, and that the small ones run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use orcd_tests::{lock, paths, report};

/// The script, if the sources are here.
fn script(name: &str) -> Option<PathBuf> {
    let path = paths::repository().join(name);
    if !path.is_file() {
        report::skipped(&format!("{} is not here", path.display()));
        return None;
    }
    Some(path)
}

fn run(command: &mut Command) -> (Option<i32>, String, String) {
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ORCD_")) {
        if !command.get_envs().any(|(set, _)| set == name.as_str()) {
            command.env_remove(name);
        }
    }
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

/// A program that says this. Written by another process: one that this one has open for writing, or
/// that a test beside it hands to a child, could not be run.
fn program(folder: &Path, says: &str) -> PathBuf {
    let path = folder.join("program");
    let script = r#"printf '#!/bin/sh\necho "%s"\n' "$1" >"$0" && chmod +x "$0""#;
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(&path).arg(says);
    assert!(command.status().unwrap().success());
    path
}

#[test]
fn what_a_build_lacks_is_said_in_one_sentence() {
    let Some(script) = script("tools/ci/requirements") else {
        return;
    };
    if let Some(why) = paths::cargo_missing() {
        return report::skipped(&why);
    }
    let folder = tempfile::tempdir().unwrap();
    let (code, _, stderr) = run(&mut Command::new(&script));
    assert_eq!(
        (code, stderr.as_str()),
        (Some(0), ""),
        "this machine builds"
    );

    let refused = |command: &mut Command, named: &[&str]| {
        let (code, stdout, stderr) = run(command);
        assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        for word in named {
            assert!(stderr.contains(word), "no {word} in {stderr}");
        }
    };
    let old = program(folder.path(), "cargo 1.63.0");
    refused(
        Command::new(&script).arg(&old),
        &["1.89", "1.63.0", "rustup"],
    );
    refused(
        Command::new(&script).arg("/nowhere/cargo"),
        &["1.89", "/nowhere/cargo", "rustup"],
    );
    for newer in [
        "cargo 1.89.0 (abc 2025-01-01)",
        "cargo 1.100.0",
        "cargo 1.97.0-nightly (abc)",
    ] {
        let newer = program(folder.path(), newer);
        assert_eq!(
            run(Command::new(&script).arg(&newer)).0,
            Some(0),
            "{newer:?}"
        );
    }
    if cfg!(target_arch = "x86_64") {
        let proc = folder.path().join("proc");
        fs::create_dir(&proc).unwrap();
        fs::write(proc.join("cpuinfo"), "flags : fpu sse2 avx\n").unwrap();
        refused(
            Command::new(&script).env("ORCD_ROOT", folder.path()),
            &["AVX2"],
        );
    }
}

#[test]
fn a_reference_model_that_cannot_be_fetched_is_one_sentence_with_what_to_do() {
    let Some(original) = script("tools/fetch-reference") else {
        return;
    };
    // A place of its own: here the file may have been fetched.
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("tools/fetch-reference");
    fs::create_dir(folder.path().join("tools")).unwrap();
    fs::copy(original, &copy).unwrap();
    // Nobody listens at port 1.
    let url = "http://127.0.0.1:1/model.gguf";
    let (code, stdout, stderr) = run(Command::new("bash")
        .arg(&copy)
        .env("ORCD_REFERENCE_URL", url));
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    for word in [url, "ORCD_REFERENCE_URL", ".test-models/qwen/", ".gguf"] {
        assert!(stderr.contains(word), "no {word} in {stderr}");
    }
}

#[test]
fn run_on_gpu_outside_a_bundle_says_so_and_leaves_nothing() {
    let Some(script) = script("tests/run-on-gpu") else {
        return;
    };
    if paths::repository().join("work").is_dir() {
        return report::skipped("this is a bundle");
    }
    for arguments in [&["--check"][..], &[], &["ops"]] {
        let (code, _, stderr) = run(Command::new(&script).args(arguments));
        assert_eq!(code, Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains("gpu-bundle"), "{stderr}");
    }
    assert!(
        !paths::repository().join("log").exists(),
        "a folder was left"
    );
}

#[test]
fn the_benchmark_runs() {
    let Some(script) = script("tools/bench/run") else {
        return;
    };
    let binaries = paths::supervisor().parent().unwrap().to_owned();
    let engine = binaries.join("examples/bench_engine");
    if !engine.is_file() {
        return report::skipped(&format!("{} was not built", engine.display()));
    }
    let _place = lock::take(false);
    let (code, stdout, stderr) = run(Command::new(&script)
        .arg("--quick")
        .arg("--bin")
        .arg(&binaries));
    assert_eq!(code, Some(0), "{stdout}\n{stderr}");
    for figure in [
        "start to READY, ms",
        "first token, ms",
        "prefill    16",
        "decode      1",
    ] {
        assert!(stdout.contains(figure), "no {figure} in {stdout}");
    }
}

/// `make run` on machines that this one is not: programs that only say how they were called.
#[test]
fn run_takes_the_gpu_where_there_is_one_and_says_what_it_took() {
    let Some(original) = script("tools/demo/run") else {
        return;
    };
    let cpu = ["make build", "demo.py"];
    let cuda = "demo.py --bin target/with-cuda/release";
    for (programs, built, said, called) in [
        (&[][..], false, "on the CPU: nvidia-smi finds no GPU", &cpu),
        (
            &["nvcc", "nvidia-smi"],
            false,
            "on the GPU: nvidia-smi",
            &["make build-cuda", cuda],
        ),
        (
            &["nvidia-smi"],
            true,
            "on the GPU: nvidia-smi",
            &["with the programs in target/with-cuda/release", cuda],
        ),
        (
            &["nvidia-smi"],
            false,
            "'make cuda-toolkit' brings one",
            &cpu,
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path();
        let bin = place.join("bin");
        fs::create_dir_all(place.join("tools/demo")).unwrap();
        fs::create_dir(&bin).unwrap();
        fs::copy(&original, place.join("tools/demo/run")).unwrap();
        for name in ["make", "python3"].iter().chain(programs) {
            fs::rename(program(&bin, &format!("{name} $*")), bin.join(name)).unwrap();
        }
        if built {
            let release = place.join("target/with-cuda/release");
            fs::create_dir_all(&release).unwrap();
            fs::rename(program(&release, ""), release.join("worker-orcd")).unwrap();
        }
        for name in ["bash", "sh", "dirname", "head"] {
            let found = ["/usr/bin", "/bin"].map(|dir| Path::new(dir).join(name));
            let found = found.iter().find(|path| path.is_file()).unwrap();
            std::os::unix::fs::symlink(found, bin.join(name)).unwrap();
        }
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", "exec bash \"$0\""])
            .arg(place.join("tools/demo/run"));
        command
            .env("PATH", &bin)
            .env_remove("NVCC")
            .env_remove("CUDA_HOME");
        let (code, stdout, stderr) = run(&mut command);
        assert_eq!(code, Some(0), "{stdout}\n{stderr}");
        for words in [&[said][..], called].concat() {
            assert!(
                stdout.contains(words),
                "{programs:?}: no {words:?} in {stdout}"
            );
        }
    }
}
