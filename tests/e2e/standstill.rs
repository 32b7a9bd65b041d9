//! A supervisor that stands still for a moment: throttled by a cgroup, suspended with its machine.
//! Its clients read all the time, so none of them is to blame.

use std::time::Duration;

use nix::sys::signal::Signal;
use orcd_tests::{Job, Model, Starter, Transcript, WorkerHarness};

/// Streams at once; one of them goes on without its reader.
const STREAMS: u64 = 4;
/// Tokens of each: many more than come in one standstill.
const TOKENS: u64 = 800;

fn jobs() -> Vec<Job> {
    let on_disconnect = |n| if n == 0 { "continue" } else { "cancel" };
    let job = |n| Job::lasting(&format!("job-{n}"), TOKENS).set("seed", n);
    (0..STREAMS)
        .map(|n| job(n).set("on_disconnect", on_disconnect(n)))
        .collect()
}

/// Stops the supervisor while its worker goes on.
fn stand_still(service: &WorkerHarness, span: Duration) {
    service.signal(Signal::SIGSTOP);
    std::thread::sleep(span);
    service.signal(Signal::SIGCONT);
}

#[test]
fn every_stream_is_whole_after_the_supervisor_stood_still() {
    // A worker that is a millisecond or two from token to token makes hundreds meanwhile.
    let service = Starter::new(Model::Brisk)
        .flag("--parallel", STREAMS)
        .flag("--max-tokens-out", TOKENS)
        .start();
    let jobs = jobs();
    let undisturbed = service.run_together(&jobs);
    let mut streams: Vec<_> = jobs.iter().map(|job| service.execute(job)).collect();
    for stream in &mut streams {
        stream.read_tokens(5);
    }
    let found: Vec<Transcript> = std::thread::scope(|scope| {
        let readers: Vec<_> = streams
            .into_iter()
            .map(|stream| scope.spawn(|| stream.finish()))
            .collect();
        for span in [500, 1000, 700] {
            stand_still(&service, Duration::from_millis(span));
            std::thread::sleep(Duration::from_millis(100));
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
