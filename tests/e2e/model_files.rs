//! Model files that differ from the usual only in form: several shards, an older version of the format,
//! keys left to their defaults.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use orcd_shared::gguf::shard_path;
use orcd_tests::model::rewrite;
use orcd_tests::{Job, Model, Starter, Transcript, WorkerHarness};
use synth_model::{Options, Shape};

const SOON: Duration = Duration::from_secs(20);
const SHARDS: u32 = 3;

/// The tiny model in one file, and in shards beside it.
fn tiny(folder: &Path) -> (PathBuf, impl Fn(u32) -> PathBuf) {
    let whole = Model::Tiny.file(folder);
    let shape = Shape::named("tiny-qwen2").unwrap();
    let options = Options {
        shards: SHARDS,
        ..Options::default()
    };
    let split = folder.join("split.gguf");
    synth_model::write(&shape, &options, &split).unwrap();
    (whole, move |no| shard_path(&split, no, SHARDS))
}

fn serving(path: PathBuf) -> WorkerHarness {
    Starter::new(Model::File(path)).start()
}

fn answer(service: &WorkerHarness) -> Transcript {
    let job = Job::new("a", "in the morning").set("temperature", 0.7);
    service.run(&job.set("seed", 7).set("max_tokens", 40))
}

#[test]
fn a_model_in_shards_says_what_it_says_in_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, shard) = tiny(folder.path());
    let expected = answer(&serving(whole));
    for no in [0, 2] {
        let service = serving(shard(no));
        assert_eq!(answer(&service).token_bytes(), expected.token_bytes());
        service.kill_worker();
        assert_eq!(
            answer(&service).token_bytes(),
            expected.token_bytes(),
            "after a restart"
        );
    }
}

#[test]
fn a_missing_shard_is_a_startup_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let (_, shard) = tiny(folder.path());
    fs::remove_file(shard(1)).unwrap();
    let exit = Starter::new(Model::File(shard(0))).run_to_exit(SOON);
    let line = exit.error_line(1);
    assert!(line.starts_with("error: MODEL_LOAD_FAILED: "), "{line}");
    for named in ["shard 2 of 3", shard(1).to_str().unwrap()] {
        assert!(line.contains(named), "no {named:?} in {line}");
    }
}

#[test]
fn version_2_of_the_format_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, _) = tiny(folder.path());
    let expected = answer(&serving(whole.clone()));
    let mut bytes = fs::read(&whole).unwrap();
    bytes[4..8].copy_from_slice(&2u32.to_le_bytes());
    let old = folder.path().join("old.gguf");
    fs::write(&old, bytes).unwrap();
    assert_eq!(answer(&serving(old)).token_bytes(), expected.token_bytes());
}

#[test]
fn an_absent_rope_base_is_taken_as_documented_and_said_once() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, _) = tiny(folder.path());
    let path = folder.path().join("no-base.gguf");
    rewrite(&whole, &path, |key, value| {
        (key != "qwen2.rope.freq_base").then(|| value.clone())
    });
    let service = serving(path);
    let before = answer(&service);
    service.wait_for_log("qwen2.rope.freq_base = 10000");
    service.kill_worker();
    assert_eq!(answer(&service).token_bytes(), before.token_bytes());
    let said = service.stderr().matches("qwen2.rope.freq_base").count();
    assert_eq!(said, 1);
}
