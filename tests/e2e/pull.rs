//! Models by name: `pull`, `list`, `rm`, `--model NAME`, against a hub of our own with all its faults.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use orcd_tests::hub::{Fault, Hub, Seen, sha256};
use orcd_tests::proc::wait_until;
use orcd_tests::start::small_disk_refused;
use orcd_tests::{Exit, Model, Starter, paths, report};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(120);
const NAME: &str = "hf.co/someone/Tiny-GGUF";
const FILE: &str = "tiny-Q4_K_M.gguf";

/// A person with a hub and a folder for models.
struct Person {
    hub: Hub,
    home: TempDir,
}

/// With a hub whose repositories have one file of some size, which is no model.
fn person() -> Person {
    with_files([(FILE, content(300_000))])
}

fn with_files<'a>(files: impl IntoIterator<Item = (&'a str, Vec<u8>)>) -> Person {
    Person {
        hub: Hub::start(files),
        home: tempfile::tempdir().unwrap(),
    }
}

/// Bytes that are the same each time and nowhere alike.
fn content(bytes: u32) -> Vec<u8> {
    (0..bytes)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}

impl Person {
    fn models(&self) -> PathBuf {
        self.home.path().join("models")
    }

    fn variables(&self) -> Vec<(&'static str, String)> {
        let path = |name: &str| self.home.path().join(name).display().to_string();
        vec![
            ("ORCD_MODELS_DIR", path("models")),
            ("HF_ENDPOINT", self.hub.endpoint()),
            ("HF_HOME", path("hf")),
            ("HF_HUB_CACHE", String::new()),
            ("HF_TOKEN", String::new()),
            ("NO_PROXY", "127.0.0.1".to_owned()),
        ]
    }

    fn starter(&self, words: &[&str]) -> Starter {
        let starter = words
            .iter()
            .fold(Starter::bare(), |starter, word| starter.arg(word));
        let variables = self.variables();
        variables
            .iter()
            .fold(starter, |starter, (name, value)| starter.env(name, value))
    }

    fn run(&self, words: &[&str]) -> Exit {
        self.starter(words).run_to_exit(SOON)
    }

    #[track_caller]
    fn pull(&self) -> Exit {
        let exit = self.run(&["pull", NAME]);
        assert_eq!(exit.status.code(), Some(0), "{exit:#?}");
        exit
    }

    /// The code of the error with which a pull fails.
    #[track_caller]
    fn refused(&self, name: &str, code: i32) -> String {
        self.run(&["pull", name]).error_line(code).to_owned()
    }

    /// Files under the models' folder, but for locks, by what their paths end in.
    fn files(&self) -> Vec<String> {
        let mut found = Vec::new();
        walk(&self.models().join("hf.co"), &mut found);
        found.sort();
        found
    }

    fn place(&self) -> PathBuf {
        let commit = "c0".repeat(20);
        self.models()
            .join("hf.co/someone/Tiny-GGUF")
            .join(commit)
            .join(FILE)
    }

    #[track_caller]
    fn assert_whole(&self) {
        assert_eq!(
            sha256(&fs::read(self.place()).unwrap()),
            sha256(&content(300_000))
        );
        assert_eq!(self.files(), ["Q4_K_M.json", FILE]);
    }

    fn part(&self) -> PathBuf {
        let name = format!("{}.part", sha256(&content(300_000)));
        self.models().join("hf.co/someone/Tiny-GGUF").join(name)
    }
}

fn walk(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.path().is_dir() {
            true => walk(&entry.path(), found),
            false => found.push(entry.file_name().into_string().unwrap()),
        }
    }
}

fn ranges(seen: &[Seen]) -> Vec<Option<&str>> {
    seen.iter()
        .map(|request| request.range.as_deref())
        .collect()
}

#[test]
fn pulled_model_is_listed_served_by_its_name_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let model = fs::read(Model::Tiny.file(folder.path())).unwrap();
    let bytes = model.len();
    let person = with_files([("tiny.Q4_1.gguf", model)]);
    let exit = person.pull();
    assert!(
        exit.stdout.starts_with(&format!("pulled {NAME}:Q4_1 (")),
        "{}",
        exit.stdout
    );
    assert_eq!(exit.stdout.lines().count(), 1);

    let listed = person.run(&["list"]).stdout;
    let line = listed.lines().nth(1).unwrap_or_default();
    for part in [NAME, "Q4_1", "KiB", "c0c0c0c0c0c0"] {
        assert!(line.contains(part), "no {part} in {listed}");
    }

    let service = person
        .starter(&["--model", NAME, "--device", &paths::device(), "--port", "0"])
        .start();
    assert_eq!(service.health()["status"], "healthy");
    drop(service);

    let removed = person.run(&["rm", "Tiny-GGUF"]);
    assert_eq!(removed.status.code(), Some(0), "{removed:#?}");
    assert!(removed.stdout.contains("freed"), "{}", removed.stdout);
    assert!(bytes > 0 && person.files().is_empty());
    let exit = person.run(&["--model", NAME]);
    let line = exit.error_line(1);
    assert!(
        line.starts_with("error: MODEL_LOAD_FAILED: ")
            && line.contains(&format!("`worker-orcd pull {NAME}`")),
        "{line}"
    );
    assert!(
        person
            .run(&["rm", NAME])
            .error_line(1)
            .contains("MODEL_NOT_FOUND")
    );
    assert_eq!(person.run(&["list"]).stdout, "");
}

#[test]
fn download_that_is_cut_goes_on_where_it_was() {
    let person = person();
    person
        .hub
        .fail([Fault::Cut(100_000), Fault::Cut(0), Fault::Cut(50_000)]);
    let exit = person.pull();
    assert!(exit.stderr.contains("trying again"), "{}", exit.stderr);
    person.assert_whole();
    assert_eq!(
        ranges(&person.hub.fetched()),
        [
            None,
            Some("bytes=100000-"),
            Some("bytes=100000-"),
            Some("bytes=150000-")
        ]
    );
}

#[test]
fn killed_pull_goes_on_where_it_was() {
    let person = person();
    person.hub.fail([Fault::Hang(123_456)]);
    let mut child = spawn(&person, &["pull", NAME]);
    let written = || person.part().metadata().map_or(0, |part| part.len());
    assert!(
        wait_until(SOON, || written() == 123_456),
        "{} bytes",
        written()
    );
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    assert!(!person.place().exists());
    assert_eq!(person.run(&["list"]).stdout, "");
    person.pull();
    person.assert_whole();
    assert_eq!(ranges(&person.hub.fetched()), [None, Some("bytes=123456-")]);
}

#[test]
fn hub_that_sends_the_whole_instead_of_a_range_gives_the_same_file() {
    let person = person();
    person.hub.fail([Fault::Cut(100_000), Fault::Whole]);
    person.pull();
    person.assert_whole();
}

#[test]
fn file_of_another_length_is_refused() {
    for (fault, said) in [
        (
            Fault::Longer(5),
            "has 300005 bytes and 300000 by the hub's record",
        ),
        (
            Fault::Endless(5),
            "more than the 300000 bytes of the hub's record",
        ),
    ] {
        let person = person();
        person.hub.fail([fault]);
        let line = person.refused(NAME, 1);
        assert!(
            line.starts_with("error: CORRUPT_DOWNLOAD: ") && line.contains(said),
            "{line}"
        );
        assert!(!person.place().exists());
        person.pull();
        person.assert_whole();
    }
}

#[test]
fn file_with_another_sum_is_deleted_and_fetched_anew() {
    let person = person();
    person.hub.fail([Fault::Flipped]);
    let line = person.refused(NAME, 1);
    assert!(
        line.starts_with("error: CORRUPT_DOWNLOAD: ") && line.contains("SHA-256"),
        "{line}"
    );
    assert!(person.files().is_empty(), "{:?}", person.files());
    person.pull();
    person.assert_whole();
    assert_eq!(ranges(&person.hub.fetched()), [None, None]);
}

#[test]
fn part_of_other_bytes_does_not_become_a_model() {
    let person = person();
    fs::create_dir_all(person.part().parent().unwrap()).unwrap();
    fs::write(person.part(), [7; 1000]).unwrap();
    let line = person.refused(NAME, 1);
    assert!(line.starts_with("error: CORRUPT_DOWNLOAD: "), "{line}");
    person.pull();
    person.assert_whole();
}

#[test]
fn hub_that_asks_to_wait_is_waited_for_unless_it_takes_too_long() {
    let person = person();
    person
        .hub
        .fail([Fault::Status(429, Some("1")), Fault::Status(503, None)]);
    let exit = person.pull();
    assert!(
        exit.stderr.contains("429") && exit.stderr.contains("trying again in 1 s"),
        "{}",
        exit.stderr
    );
    person.assert_whole();

    let hurried = self::person();
    hurried.hub.fail([Fault::Status(429, Some("86400"))]);
    let line = hurried.refused(NAME, 1);
    assert!(
        line.starts_with("error: HUB_UNREACHABLE: ") && line.contains("86400 s"),
        "{line}"
    );
}

#[test]
fn token_goes_to_the_hub_and_never_to_where_it_redirects() {
    let person = person();
    let elsewhere = Hub::start([(FILE, content(300_000))]);
    let address = elsewhere.address();
    person
        .hub
        .fail([Fault::Elsewhere(address), Fault::Elsewhere(address)]);
    elsewhere.fail([Fault::Cut(1000)]);
    let exit = person
        .starter(&["pull", NAME])
        .env("HF_TOKEN", "hf_secret")
        .run_to_exit(SOON);
    assert_eq!(exit.status.code(), Some(0), "{exit:#?}");
    person.assert_whole();
    let at_hub = person.hub.seen();
    assert_eq!(at_hub.len(), 3, "{at_hub:#?}");
    let bearer = Some("Bearer hf_secret");
    assert!(
        at_hub
            .iter()
            .all(|request| request.authorization.as_deref() == bearer)
    );
    let there = elsewhere.seen();
    assert_eq!(ranges(&there), [None, Some("bytes=1000-")]);
    assert!(
        there.iter().all(|request| request.authorization.is_none()),
        "{there:#?}"
    );
    // Neither the token nor a signature is said.
    let said = exit.stdout + &exit.stderr;
    assert!(
        !said.contains("hf_secret") && !said.contains("Signature"),
        "{said}"
    );
}

#[test]
fn names_of_the_hub_never_leave_their_folder() {
    for shown in [
        "../../../../evil-Q4_K_M.gguf",
        "/evil-Q4_K_M.gguf",
        "sub/evil-Q4_K_M.gguf",
        "C:\\evil-Q4_K_M.gguf",
        "\u{1b}[2J-Q4_K_M.gguf",
    ] {
        let person = person();
        person.hub.call(FILE, shown);
        let line = person.refused(NAME, 1);
        assert!(
            line.starts_with("error: MODEL_NOT_FOUND: ") && !line.contains('\u{1b}'),
            "{line}"
        );
        assert_eq!(person.hub.fetched(), []);
        assert!(person.files().is_empty());
    }
}

#[test]
fn names_of_people_are_checked_before_anything_is_asked() {
    let person = person();
    for name in [
        "hf.co/../x",
        "hf.co/a",
        "hf.co/a/b/c",
        "hf.co/a/b:../x",
        "a/b",
        "x.gguf",
        "hf.co/a/b\u{7}",
    ] {
        let line = person.refused(name, 2);
        assert!(
            line.starts_with("error: USAGE: ") && line.contains("hf.co/OWNER/NAME"),
            "{line}"
        );
    }
    assert!(
        person
            .run(&["pull", NAME, "--revision", "../x"])
            .error_line(2)
            .contains("--revision")
    );
    assert!(person.run(&["pull"]).error_line(2).contains("MODEL"));
    assert_eq!(person.hub.seen(), []);
}

#[test]
fn what_is_not_there_is_answered_with_what_is() {
    let person = person();
    let line = person.refused(&format!("{NAME}:Q8_0"), 1);
    assert!(
        line.contains("MODEL_NOT_FOUND") && line.contains("no `Q8_0`; it has Q4_K_M"),
        "{line}"
    );
}

#[test]
fn file_in_hugging_faces_cache_is_used_if_its_bytes_are_right() {
    let person = person();
    let repo = person.home.path().join("hf/hub/models--someone--Tiny-GGUF");
    let blob = repo.join("blobs").join(sha256(&content(300_000)));
    let snapshot = repo.join("snapshots").join("c0".repeat(20)).join(FILE);
    for place in [&blob, &snapshot] {
        fs::create_dir_all(place.parent().unwrap()).unwrap();
    }
    fs::write(&blob, vec![1; 300_000]).unwrap();
    fs::write(&snapshot, content(300_000)).unwrap();
    let exit = person.pull();
    assert!(
        exit.stderr.contains("Hugging Face's cache"),
        "{}",
        exit.stderr
    );
    assert_eq!(person.hub.fetched(), []);
    person.assert_whole();
    assert!(
        person
            .run(&["rm", NAME])
            .stdout
            .contains("stay in Hugging Face's cache")
    );
    assert!(snapshot.is_file() && person.files().is_empty());

    fs::write(&snapshot, vec![1; 300_000]).unwrap();
    person.pull();
    assert_eq!(person.hub.fetched().len(), 1);
    person.assert_whole();
}

#[test]
fn two_pulls_at_once_fetch_a_file_once() {
    let person = person();
    person.hub.fail([Fault::Hang(100_000), Fault::Cut(100_000)]);
    let mut first = spawn(&person, &["pull", NAME]);
    assert!(wait_until(SOON, || person.hub.fetched().len() == 1));
    let second = spawn(&person, &["pull", NAME]);
    let third = spawn(&person, &["pull", NAME]);
    // Both have asked the hub; neither touches the file while the first has it.
    assert!(wait_until(SOON, || person.hub.seen().len() == 4));
    assert_eq!(
        person.run(&["rm", NAME]).error_line(1).split(':').nth(1),
        Some(" MODEL_NOT_FOUND")
    );
    first.kill().unwrap();
    first.wait().unwrap();
    for child in [second, third] {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    person.assert_whole();
    assert_eq!(
        ranges(&person.hub.fetched()),
        [None, Some("bytes=100000-"), Some("bytes=200000-")]
    );
}

#[test]
fn new_commit_with_the_same_file_fetches_nothing_and_replaces_the_old() {
    let person = person();
    person.pull();
    person.pull();
    person.hub.commit("d1");
    person.pull();
    assert_eq!(person.hub.fetched().len(), 1);
    assert_eq!(person.files(), ["Q4_K_M.json", FILE]);
    assert!(!person.place().exists());
    assert!(person.run(&["list"]).stdout.contains("d1d1d1d1d1d1"));
}

#[test]
fn split_model_is_pulled_whole() {
    let parts = ["m-Q8_0-00001-of-00002.gguf", "m-Q8_0-00002-of-00002.gguf"];
    let person = with_files(parts.map(|name| (name, content(5000))));
    person.hub.fail([Fault::Cut(10)]);
    let exit = person.run(&["pull", &format!("{NAME}:q8_0")]);
    assert!(exit.stdout.trim_end().ends_with(parts[0]), "{exit:#?}");
    assert_eq!(person.files(), ["Q8_0.json", parts[0], parts[1]]);
}

#[test]
fn lack_of_room_is_said_before_anything_is_fetched() {
    if let Some(why) = small_disk_refused() {
        return report::skipped(&format!("no small file system: {why}"));
    }
    let person = person();
    fs::create_dir(person.models()).unwrap();
    let starter = person.starter(&["pull", NAME]).small_disk(&person.models());
    let exit = starter.run_to_exit(SOON);
    let line = exit.error_line(1);
    for part in [
        "error: NO_SPACE: ",
        "300000 more bytes are needed",
        "--models-dir",
    ] {
        assert!(line.contains(part), "no {part} in {line}");
    }
    assert_eq!(person.hub.fetched(), []);
}

#[test]
fn write_that_fails_for_lack_of_room_keeps_what_is_there() {
    let person = person();
    // Files of at most 64 blocks of 1024 bytes, and no signal for a larger one.
    let mut command = Command::new("bash");
    command.args(["-c", r#"trap "" XFSZ; ulimit -f 64 && exec "$0" "$@""#]);
    command.arg(paths::supervisor()).args(["pull", NAME]);
    let output = command.envs(person.variables()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("error: NO_SPACE: ") && said.contains("is kept"),
        "{said}"
    );
    assert_eq!(person.part().metadata().unwrap().len(), 65_536);
    person.pull();
    person.assert_whole();
    assert_eq!(ranges(&person.hub.fetched()), [None, Some("bytes=65536-")]);
}

fn spawn(person: &Person, words: &[&str]) -> Child {
    let mut command = Command::new(paths::supervisor());
    command.args(words).envs(person.variables());
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().unwrap()
}
