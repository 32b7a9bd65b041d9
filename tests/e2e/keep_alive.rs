//! A stream is never silent for long, whatever its job waits for: proxies cut connections that are.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use orcd_tests::stream::Stream;
use orcd_tests::{Job, Model, Starter};

/// What clients are promised.
const PROMISED: Duration = Duration::from_secs(5);
/// The same on a busy machine.
const LIMIT: Duration = Duration::from_secs(15);

/// Reads so many more comments, and tells the last.
fn comments(stream: &mut Stream, count: usize) -> String {
    let begin = stream.so_far().comments.len();
    let (events, mut since) = (stream.so_far().events.len(), Instant::now());
    while stream.so_far().comments.len() < begin + count {
        stream.read();
        assert!(
            since.elapsed() < LIMIT,
            "{:?} of {PROMISED:?}",
            since.elapsed()
        );
        since = Instant::now();
    }
    assert_eq!(stream.so_far().events.len(), events, "it stands still");
    stream.so_far().comments.last().unwrap().clone()
}

#[test]
fn readers_of_a_job_that_makes_no_token_hear_of_it() {
    // One job at a time, and a worker that may take as long for a step as a large prompt takes.
    let service = Starter::new(Model::Slow)
        .flag("--parallel", 1)
        .flag("--hang-timeout-ms", 60_000)
        .start();
    let job = Job::lasting("a", 40).set("on_disconnect", "continue");
    let expected = service.run(&job.clone().named("undisturbed"));
    let mut running = service.execute(&job);
    running.read_tokens(3);
    let mut waiting = service.execute(&Job::lasting("b", 2));
    let worker = service.worker();
    worker.signal(Signal::SIGSTOP);
    // What was on its way arrives, and then nothing more.
    std::thread::sleep(Duration::from_millis(500));
    let mut resumed = service.resume("a", Some(0)).unwrap();
    std::thread::scope(|scope| {
        let working = [&mut running, &mut resumed].map(|stream| {
            scope.spawn(|| {
                while stream.so_far().comments.is_empty() {
                    stream.read();
                }
                comments(stream, 2)
            })
        });
        let waits = scope.spawn(|| comments(&mut waiting, 3));
        for reader in working {
            assert_eq!(reader.join().unwrap(), "working");
        }
        assert_eq!(waits.join().unwrap(), "queued");
    });
    worker.signal(Signal::SIGCONT);
    assert_eq!(running.finish().token_bytes(), expected.token_bytes());
    assert_eq!(resumed.finish().token_bytes(), expected.token_bytes());
    assert_eq!(waiting.finish().end().tokens_out, 2);
}
