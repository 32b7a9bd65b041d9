//! A supervisor that stands still for a moment: throttled by a cgroup, suspended with its machine.
//! Its clients read all the time, so none of them is to blame.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use orcd_shared::gguf::Value;
use orcd_tests::model::rewrite;
use orcd_tests::proc::{Process, wait_until};
use orcd_tests::{Job, Model, Starter, Transcript, WorkerHarness};

/// Streams at once; one of them goes on without its reader.
const STREAMS: u64 = 4;
/// Tokens of each: more than come in one standstill.
const TOKENS: u64 = 1500;

/// The quickest model there is, with room for as many tokens.
fn long_tiny(folder: &Path) -> Model {
    let tiny = Model::Tiny.file(folder);
    let long = folder.join("long.gguf");
    rewrite(&tiny, &long, |key, value| match key {
        "qwen2.context_length" => Some(Value::U32(8192)),
        _ => Some(value.clone()),
    });
    Model::File(long)
}

fn jobs() -> Vec<Job> {
    let on_disconnect = |n| if n == 0 { "continue" } else { "cancel" };
    let job = |n| Job::lasting(&format!("job-{n}"), TOKENS).set("seed", n);
    (0..STREAMS)
        .map(|n| job(n).set("on_disconnect", on_disconnect(n)))
        .collect()
}

/// Stops the supervisor until `over`, while its worker goes on; what comes meanwhile waits for it.
fn stand_still(service: &WorkerHarness, worker: Process, over: impl FnOnce()) {
    // The worker begins when nobody listens any more, however quick it is.
    worker.signal(Signal::SIGSTOP);
    service.signal(Signal::SIGSTOP);
    worker.signal(Signal::SIGCONT);
    over();
    service.signal(Signal::SIGCONT);
}

/// Waits until a process has nothing more to do: all its threads sleep whenever one looks.
fn wait_for_rest(process: Process) {
    let mut restful = 0;
    let rests = || {
        restful = if sleeps(process) { restful + 1 } else { 0 };
        std::thread::sleep(Duration::from_millis(10));
        restful == 30
    };
    assert!(wait_until(Duration::from_secs(25), rests), "it goes on");
}

fn sleeps(process: Process) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", process.pid)).unwrap();
    let mut stats = tasks.filter_map(|task| {
        let stat = task.unwrap().path().join("stat");
        std::fs::read_to_string(stat).ok()
    });
    // The state stands after the name, which may have any characters but the last bracket.
    stats.all(|stat| stat.rsplit(") ").next().unwrap().starts_with('S'))
}

#[test]
fn every_stream_is_whole_after_the_supervisor_stood_still() {
    let folder = tempfile::tempdir().unwrap();
    let service = Starter::new(long_tiny(folder.path()))
        .flag("--parallel", STREAMS)
        .flag("--max-tokens-out", TOKENS)
        .start();
    let jobs = jobs();
    let undisturbed = service.run_together(&jobs);
    let worker = service.worker();
    let mut streams: Vec<_> = jobs.iter().map(|job| service.execute(job)).collect();
    for stream in &mut streams {
        stream.read_tokens(5);
    }
    let found: Vec<Transcript> = std::thread::scope(|scope| {
        let readers: Vec<_> = streams
            .into_iter()
            .map(|stream| scope.spawn(|| stream.finish()))
            .collect();
        // Each time as much waits as a socket holds, however slow the machine is.
        for _ in 0..4 {
            stand_still(&service, worker, || wait_for_rest(worker));
            std::thread::sleep(Duration::from_millis(50));
        }
        readers.into_iter().map(|r| r.join().unwrap()).collect()
    });
    for (expected, found) in undisturbed.iter().zip(&found) {
        assert_eq!(found.end().tokens_out, TOKENS);
        assert_eq!(expected.token_bytes(), found.token_bytes());
    }
    let resumed = service.resume(jobs[0].id(), None).unwrap().finish();
    assert_eq!(resumed.token_bytes(), found[0].token_bytes());
}
