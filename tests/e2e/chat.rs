//! `run`: pull, serve and chat in one command, over a pipe; and what else the command line writes.

use std::fs;
use std::io::{Read as _, Write as _};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use orcd_tests::hub::Hub;
use orcd_tests::proc::{Process, wait_until};
use orcd_tests::{Exit, Model, Starter, lock, paths};

const SOON: Duration = Duration::from_secs(60);
const NAME: &str = "hf.co/someone/Haiku-GGUF";

/// A chat whose lines come from a test.
struct Chat {
    child: Child,
    lines: Option<ChildStdin>,
    process: Process,
}

impl Chat {
    fn start(words: &[&str], variables: &[(&str, String)]) -> Self {
        let mut command = Command::new(paths::supervisor());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ORCD_")) {
            command.env_remove(name);
        }
        command.args(words).args(["--device", &paths::device()]);
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        command.env("ORCD_THREADS", "2").env_remove("RUST_LOG");
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        Self {
            lines: child.stdin.take(),
            process: Process::find(child.id()).unwrap(),
            child,
        }
    }

    fn say(&mut self, line: &str) {
        let lines = self.lines.as_mut().unwrap();
        lines.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// Waits for the first bytes of an answer.
    fn hear(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; 4096];
        let n = self
            .child
            .stdout
            .as_mut()
            .unwrap()
            .read(&mut bytes)
            .unwrap();
        bytes.truncate(n);
        bytes
    }

    /// Ends the lines and waits for the end; all processes are gone then.
    #[track_caller]
    fn end(mut self) -> Output {
        let children = self.process.children();
        drop(self.lines.take());
        let output = self.child.wait_with_output().unwrap();
        for child in children {
            assert!(child.is_gone_within(SOON), "{child:?} is left: {output:?}");
        }
        output
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn run(words: &[&str]) -> Exit {
    words
        .iter()
        .fold(Starter::bare(), |starter, word| starter.arg(word))
        .run_to_exit(SOON)
}

#[test]
fn run_pulls_serves_and_answers_line_by_line() {
    let _machine = lock::take(false);
    let home = tempfile::tempdir().unwrap();
    let model = fs::read(Model::Haiku.file(home.path())).unwrap();
    let hub = Hub::start([("haiku-Q4_K_M.gguf", model)]);
    let variables = [
        (
            "ORCD_MODELS_DIR",
            home.path().join("models").display().to_string(),
        ),
        ("HF_ENDPOINT", hub.endpoint()),
        ("HF_HUB_CACHE", home.path().join("hf").display().to_string()),
        ("NO_PROXY", "127.0.0.1".to_owned()),
        // Neither is for a chat.
        ("ORCD_API_KEY", "secret".repeat(10)),
        ("ORCD_HOST", "0.0.0.0".to_owned()),
    ];
    for fetches in [1, 1] {
        let mut chat = Chat::start(&["run", NAME], &variables);
        chat.say("Count to five");
        let first = chat.hear();
        assert!(!first.is_empty());
        chat.say("Write a haiku about rain");
        chat.say("/clear");
        chat.say("Count to three");
        let output = chat.end();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let answers = text(&first) + &text(&output.stdout);
        assert!(
            answers.lines().count() >= 3 && answers.ends_with('\n'),
            "{answers:?}"
        );
        assert!(!answers.contains("READY"), "{answers}");
        // No logs, no prompts: what a pull says at most.
        let said = text(&output.stderr);
        assert!(
            said.lines().all(|line| line.starts_with("fetching ")),
            "{said}"
        );
        assert_eq!(hub.fetched().len(), fetches);
    }
    // What was pulled is there without a hub.
    hub.commit("d1");
    let asked = hub.seen().len();
    let output = Chat::start(&["run", "Haiku-GGUF"], &variables).end();
    assert_eq!(
        (output.status.code(), hub.seen().len()),
        (Some(0), asked),
        "{output:?}"
    );
}

#[test]
fn interrupt_stops_an_answer_and_not_the_chat() {
    let _machine = lock::take(false);
    let folder = tempfile::tempdir().unwrap();
    let model = Model::Slow.file(folder.path()).display().to_string();
    // Each answer to "x" is the same, and goes on until the context is full.
    let words = ["run", &model, "--default-temperature", "0"];
    let mut whole = Chat::start(&words, &[]);
    whole.say("x");
    let whole = whole.end().stdout.len();
    let mut chat = Chat::start(&words, &[]);
    chat.say("x");
    let begun = chat.hear().len();
    chat.process.signal(Signal::SIGINT);
    chat.say("/clear");
    chat.say("x");
    let output = chat.end();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let both = begun + output.stdout.len();
    assert!(both > whole, "{both} bytes: the next line is answered");
    assert!(
        both < whole * 2,
        "{both} bytes, and an answer has {whole}: it went on"
    );
}

#[test]
fn termination_ends_the_chat_and_all_that_serves_it() {
    let _machine = lock::take(false);
    let folder = tempfile::tempdir().unwrap();
    let model = Model::Slow.file(folder.path());
    for signal in [Signal::SIGTERM, Signal::SIGHUP] {
        let mut chat = Chat::start(&["run", &model.display().to_string()], &[]);
        chat.say("x");
        chat.hear();
        let children = chat.process.children();
        assert!(!children.is_empty());
        chat.process.signal(signal);
        assert!(
            wait_until(SOON, || !chat.process.is_alive()),
            "{signal} was not heeded"
        );
        assert!(children.iter().all(|child| child.is_gone_within(SOON)));
        assert_eq!(chat.end().status.code(), Some(0));
    }
}

#[test]
fn line_of_a_pipe_that_is_not_answered_makes_the_chat_fail() {
    let _machine = lock::take(false);
    let folder = tempfile::tempdir().unwrap();
    let model = Model::Haiku.file(folder.path());
    let mut chat = Chat::start(
        &["run", &model.display().to_string(), "--context", "64"],
        &[],
    );
    chat.say(&"rain ".repeat(200));
    chat.say("Count to five");
    let output = chat.end();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("error: CONTEXT_LENGTH_EXCEEDED: "), "{said}");
    assert!(!output.stdout.is_empty(), "the next line is answered");
}

#[test]
fn run_refuses_what_is_for_a_service() {
    for (words, named) in [
        (&["run"][..], "--model"),
        (&["run", "m.gguf", "--port", "8080"], "--port"),
        (&["run", "m.gguf", "--host", "0.0.0.0"], "--host"),
        (&["--port", "1", "run", "m.gguf"], "--port"),
        (&["run", "hf.co/a/.."], "hf.co/a/.."),
    ] {
        let exit = run(words);
        let line = exit.error_line(2);
        assert!(line.contains(named), "{words:?}: {line}");
    }
}

#[test]
fn completions_and_the_manual_name_commands_and_flags() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let exit = run(&["completions", shell]);
        assert_eq!(exit.status.code(), Some(0), "{exit:#?}");
        for word in ["pull", "completions", "models-dir", "drain-timeout-sec"] {
            assert!(exit.stdout.contains(word), "no {word} for {shell}");
        }
    }
    assert!(run(&["completions", "tcsh"]).error_line(2).contains("bash"));
    let page = run(&["man"]);
    assert_eq!(page.status.code(), Some(0), "{page:#?}");
    for word in [
        ".TH worker-orcd 1",
        "SUBCOMMANDS",
        "worker\\-orcd\\-pull",
        "ORCD_MODELS_DIR",
    ] {
        assert!(page.stdout.contains(word), "no {word} in {}", page.stdout);
    }
    assert!(!page.stdout.contains("debug"));
}
