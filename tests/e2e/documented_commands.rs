//! Every command in README, docs and `make help`: those that can run here do, the others stand in a
//! list with the reason. A command that is in neither fails.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use orcd_tests::documents::{commands, documents};
use orcd_tests::{Exit, Model, Starter, WorkerHarness, paths, report};

/// What can be done with a command here.
enum Here {
    /// A request to the service.
    Request,
    /// A start of the service.
    Service,
    /// A recipe of the Makefile: it is there, and so is what it calls.
    Recipe,
    /// A program that knows `--help`; it knows the flags too.
    Program(&'static str),
    /// Nothing, for this reason.
    No(&'static str),
}

use Here::{No, Program, Recipe, Request, Service};

const PRIVILEGE: &str = "it changes the system, as root";
const SYSTEMD: &str = "it asks a running systemd for the installed service";
const TESTED: &str = "it is a part of `make test` already";

/// Beginnings of commands, the first that fits counts.
static KNOWN: [(&str, Here); 40] = [
    ("curl ", Request),
    ("target/release/worker-orcd ", Service),
    ("worker-orcd ", Service),
    (
        "target/with-cuda/release/worker-orcd ",
        No("it needs a GPU and a build with CUDA"),
    ),
    ("ORCD_TEST_DEVICE=cuda:0 make ", No("it needs a GPU")),
    ("make ", Recipe),
    (
        "tools/bench/failover.py ",
        Program("tools/bench/failover.py"),
    ),
    ("tools/bench/serve.py ", Program("tools/bench/serve.py")),
    (
        "tools/bench/replica_faults.py ",
        Program("tools/bench/replica_faults.py"),
    ),
    ("tools/bench/run", Program("tools/bench/run")),
    ("tools/bench/peer/build", Program("tools/bench/peer/build")),
    ("tools/demo/demo.py", Program("tools/demo/demo.py")),
    ("tools/gpu/leak-check ", Program("tools/gpu/leak-check")),
    ("tools/gpu/", Program("tools/gpu/op-tests")),
    (
        "python3 gpu-bundle/bench/peer/compare.py",
        Program("tools/bench/peer/compare.py"),
    ),
    ("gpu-bundle/tests/run-on-gpu", Program("tests/run-on-gpu")),
    ("tests/run-on-gpu", Program("tests/run-on-gpu")),
    ("bench_engine ", Program("bench_engine")),
    ("target/release/synth-model ", Program("synth-model")),
    ("bench-load ", Program("bench-load")),
    ("target/op-tests/", No("it needs a GPU")),
    (
        "tar xJf gpu-bundle",
        No("a bundle takes a build with CUDA, minutes of it"),
    ),
    ("llama-server ", No("it is the peer's program")),
    (
        "smg ",
        No("it is a router's program: `make routers` runs it"),
    ),
    (
        "vllm-router ",
        No("it is a router's program: `make routers` runs it"),
    ),
    (
        "cuda-worker --replay ",
        No("it needs a crash: tests/e2e/crash_bundle.rs makes one and runs it"),
    ),
    (
        "podman ",
        No(
            "it fetches a base and needs a container's tools: make image-check does it with a base of its own",
        ),
    ),
    ("cargo test ", No(TESTED)),
    ("cargo install ", No("it downloads and builds a program")),
    ("cargo fuzz ", No("it needs cargo-fuzz")),
    ("cargo +nightly fuzz ", No("it needs cargo-fuzz")),
    ("RUSTC_BOOTSTRAP=1 cargo fuzz ", No("it needs cargo-fuzz")),
    ("ORCD_FUZZ_CORPUS=", No("it writes into the repository")),
    ("mkdir -p fuzz/corpus/", No("it writes into the repository")),
    ("./reproduce.sh", No("it trains the model, on a GPU")),
    ("sudo ", No(PRIVILEGE)),
    ("echo ORCD_", No(PRIVILEGE)),
    ("systemctl ", No(SYSTEMD)),
    ("journalctl ", No(SYSTEMD)),
    ("kubectl ", No("it needs a cluster")),
];

fn missing() -> Option<String> {
    let makefile = paths::repository().join("Makefile");
    if !makefile.is_file() {
        return Some(format!("{} is not here", makefile.display()));
    }
    paths::cargo_missing()
}

fn in_repository(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(paths::repository());
    for (name, _) in
        std::env::vars().filter(|(name, _)| name.starts_with("ORCD_") || name.starts_with("MAKE"))
    {
        command.env_remove(name);
    }
    command
}

#[test]
fn every_documented_command_runs_or_is_known_not_to() {
    if let Some(why) = missing() {
        return report::skipped(&why);
    }
    let mut service = None;
    let mut faults = Vec::new();
    let mut requests = 0;
    let mut left_out = BTreeMap::<_, u32>::new();
    for (file, text) in documents(&paths::repository()) {
        for command in commands(&text) {
            let fits = |(start, _): &&(&str, Here)| {
                command.starts_with(start) || command == start.trim_end()
            };
            let verdict = match KNOWN.iter().find(fits).map(|(_, here)| here) {
                None => Err("it is not in the lists of documented_commands.rs".to_owned()),
                Some(No(why)) => {
                    *left_out.entry(*why).or_default() += 1;
                    Ok(())
                }
                Some(Recipe) => recipe(&command),
                Some(Program(path)) => program(path, &command),
                Some(Service) => start(&command),
                Some(Request) => {
                    requests += 1;
                    let service = service.get_or_insert_with(|| WorkerHarness::start(Model::Haiku));
                    request(service, &command)
                }
            };
            if let Err(why) = verdict {
                faults.push(format!("{file}: {command}\n    {why}"));
            }
        }
    }
    for (why, count) in left_out {
        report::skipped(&format!("{count} documented commands: {why}"));
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    assert!(requests >= 3, "the README shows requests");
}

fn said(output: &std::process::Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// Sends it to a service of this test.
fn request(service: &WorkerHarness, command: &str) -> Result<(), String> {
    let address = service.address().to_string();
    let there = command
        .replace("localhost:8080", &address)
        .replace("127.0.0.1:8080", &address);
    if !there.contains(&address) {
        return Err("it goes to another address than localhost:8080".into());
    }
    let output = in_repository("bash")
        .args(["-c", &format!("set -o pipefail; {there}")])
        .output()
        .unwrap();
    let text = said(&output);
    let cancels = command.contains("/cancel");
    let as_told = if cancels {
        // Not `unknown`: the example has to last until it is cancelled.
        text.contains("\"cancelling\"") && text.contains("CANCELLED")
    } else {
        // Neither as a body nor as an event.
        !text.contains("{\"error\":{\"code\":\"")
            && !text.contains("event: error")
            && !text.is_empty()
    };
    if output.status.success() && as_told {
        Ok(())
    } else {
        Err(format!("{}: {text}", output.status))
    }
}

/// Starts the service as it says, but on a free port.
fn start(command: &str) -> Result<(), String> {
    let mut words: Vec<&str> = command.split_whitespace().skip(1).collect();
    if let Some(at) = words.iter().position(|word| *word == "--port") {
        words.drain(at..(at + 2).min(words.len()));
    }
    if words
        .iter()
        .any(|word| word.starts_with("--help") || *word == "--version")
    {
        let exit: Exit = words
            .iter()
            .fold(Starter::bare(), |s, word| s.arg(word))
            .run_to_exit(Duration::from_secs(20));
        return exit.status.success().then_some(()).ok_or(exit.stderr);
    }
    let model = words.iter().position(|word| word.ends_with(".gguf"));
    let path = model.map(|model| paths::repository().join(words[model]));
    let (Some(model), Some(path)) = (model, path.filter(|path| path.is_file())) else {
        // FILE, or one that was not fetched.
        return flags_are_known(&paths::supervisor(), command);
    };
    let path = path.display().to_string();
    if words[0] == "check" {
        let words = words.iter().enumerate();
        let exit = words
            .map(|(at, word)| if at == model { &path } else { *word })
            .fold(Starter::bare(), Starter::arg)
            .flag("--port", 0)
            .run_to_exit(Duration::from_secs(60));
        return exit.status.success().then_some(()).ok_or(exit.stdout);
    }
    let mut starter = Starter::bare()
        .flag("--port", 0)
        .flag("--device", paths::device());
    for (at, word) in words.iter().enumerate() {
        let word: &str = if at == model { &path } else { word };
        starter = starter.arg(word);
    }
    drop(starter.start());
    Ok(())
}

/// Has make say what it would do, and looks whether the scripts in that are there.
fn recipe(command: &str) -> Result<(), String> {
    let words = command.split_whitespace().skip(1);
    let output = in_repository("make")
        .arg("-n")
        .args(words)
        .output()
        .unwrap();
    let text = said(&output);
    if !output.status.success() {
        return Err(text);
    }
    let scripts = text
        .split_whitespace()
        .filter(|word| word.starts_with("tools/"));
    for script in scripts {
        if !paths::repository().join(script).is_file() {
            return Err(format!("{script} is not there"));
        }
    }
    Ok(())
}

/// Asks the program for its help, which has to name the flags of the command.
fn program(path: &str, command: &str) -> Result<(), String> {
    let binaries = paths::supervisor();
    let binaries = binaries.parent().unwrap_or(Path::new("."));
    let file = match path {
        "bench_engine" => binaries.join("examples").join(path),
        "synth-model" | "bench-load" => binaries.join(path),
        _ => paths::repository().join(path),
    };
    if path == "bench_engine" && !file.is_file() {
        report::skipped(&format!("{command}: {} was not built", file.display()));
        return Ok(());
    }
    flags_are_known(&file, command)
}

fn flags_are_known(program: &Path, command: &str) -> Result<(), String> {
    let output = in_repository(program).arg("--help").output();
    let output = output.map_err(|e| format!("{}: {e}", program.display()))?;
    let help = said(&output);
    if !output.status.success() || help.is_empty() {
        return Err(format!("--help: {}: {help}", output.status));
    }
    let flags = command
        .split_whitespace()
        .filter(|word| word.starts_with("--"));
    let flags = flags.map(|flag| flag.split('=').next().unwrap_or(flag));
    let unknown: Vec<_> = flags.filter(|flag| !help.contains(flag)).collect();
    unknown
        .is_empty()
        .then_some(())
        .ok_or_else(|| format!("{unknown:?} is not in its --help"))
}

#[test]
fn make_help_lists_every_recipe() {
    if let Some(why) = missing() {
        return report::skipped(&why);
    }
    let output = in_repository("make").arg("help").output().unwrap();
    let help = said(&output);
    let listed: BTreeSet<_> = help
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let makefile = std::fs::read_to_string(paths::repository().join("Makefile")).unwrap();
    let phony = makefile
        .lines()
        .find_map(|line| line.strip_prefix(".PHONY:"))
        .unwrap();
    // What others need and nobody types.
    let all: BTreeSet<_> = phony
        .split_whitespace()
        .filter(|name| *name != "requirements")
        .collect();
    assert_eq!(listed, all, "{help}");
    for name in all {
        if let Err(why) = recipe(&format!("make {name}")) {
            panic!("make {name}: {why}");
        }
    }
}
