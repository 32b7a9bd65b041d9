//! A replayed token that differs from the one already sent is an error, never a splice.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use orcd_tests::{Job, Model, Starter, paths, report};

/// First multiplier of Philox4x32, little endian: another one draws other numbers.
const MULTIPLIER: [u8; 4] = 0xd251_1f53_u32.to_le_bytes();

/// A worker program that draws other numbers; `None` where the multiplier isn't found.
fn faulty_worker(folder: &Path) -> Option<PathBuf> {
    let mut program = fs::read(paths::worker_with_failpoints()).unwrap();
    let places: Vec<_> = (0..program.len() - 4)
        .filter(|&at| program[at..at + 4] == MULTIPLIER)
        .collect();
    for at in &places {
        program[*at] ^= 4;
    }
    let path = folder.join("faulty-worker");
    (!places.is_empty()).then(|| executable(&path, &program))
}

fn executable(path: &Path, content: &[u8]) -> PathBuf {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o700)).unwrap();
    path.to_owned()
}

#[test]
fn replayed_token_that_differs_is_never_spliced() {
    if paths::device() != "cpu" {
        return report::skipped("the fault is put into the CPU backend");
    }
    let folder = tempfile::tempdir().unwrap();
    let Some(faulty) = faulty_worker(folder.path()) else {
        return report::skipped("the multiplier of Philox is not found in the worker program");
    };
    // The first start is a good worker, every later one a faulty one. Built-ins of the shell only:
    // a worker gets no PATH.
    let mark = folder.path().join("started");
    let good = paths::worker_with_failpoints();
    let script = format!(
        "#!/bin/sh\nif [ -e {mark:?} ]; then exec {faulty:?} \"$@\"; fi\n: > {mark:?}\nexec {good:?} \"$@\"\n",
    );
    let worker = executable(&folder.path().join("worker.sh"), script.as_bytes());
    let service = Starter::new(Model::Slow)
        .failpoints()
        .worker(&worker)
        .without_hang_timeout()
        .start();
    // Hot, so that another draw all but surely gives another token.
    let job = Job::lasting("a", 100).set("top_k", 0).set("temperature", 2);
    let good = service.run(&job);
    let stream = service.execute_and_trigger(&[job], "sleep", 30).remove(0);
    service.kill_worker();
    let transcript = stream.finish();
    let error = transcript.error();
    assert_eq!(
        (error.code.as_str(), error.retriable),
        ("REPLAY_DIVERGED", true)
    );
    assert!(
        good.token_bytes().starts_with(&transcript.token_bytes()),
        "a wrong token was sent"
    );
}
