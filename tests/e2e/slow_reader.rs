//! A client that does not read harms nobody but itself.

use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use orcd_tests::http::{Connection, request_bytes};
use orcd_tests::proc::wait_until;
use orcd_tests::{Job, Model, Starter, WorkerHarness, report};

/// Sends a job on a connection with a small receive buffer, and never reads.
fn execute_unread(service: &WorkerHarness, job: &Job) -> Connection {
    let mut connection = service.connect();
    setsockopt(connection.socket(), sockopt::RcvBuf, &2048).unwrap();
    connection
        .send(&request_bytes("POST", "/execute", &[], &job.body()))
        .unwrap();
    connection
}

#[test]
fn unread_stream_delays_no_other_job_and_is_cancelled() {
    // About a kilobyte per event: more than the kernel's buffers hold.
    let service = Starter::new(Model::Verbose)
        .flag("--max-tokens-out", 16_000)
        .alone()
        .start();
    let neighbor = Job::lasting("neighbor", 200);
    let alone = service.run(&neighbor);
    let time_alone = alone.over_at() - alone.begin;

    let begin = Instant::now();
    let unread = [0, 1].map(|i| {
        let job = Job::lasting(&format!("unread-{i}"), 16_000);
        execute_unread(&service, &job.set("seed", i))
    });
    let running = |n: u64| service.health()["jobs"]["running"] == n;
    assert!(
        wait_until(Duration::from_secs(5), || running(2)),
        "both run"
    );
    let beside = service.run(&neighbor);
    let time_beside = beside.over_at() - beside.begin;
    report::figure(&format!(
        "200 tokens alone {time_alone:.2?}, beside unread {time_beside:.2?}"
    ));
    assert_eq!(beside.token_bytes(), alone.token_bytes());
    assert!(
        time_beside < time_alone * 10 + Duration::from_secs(1),
        "{time_beside:?}"
    );

    assert!(
        wait_until(Duration::from_secs(120), || running(0)),
        "cancelled past the buffer"
    );
    report::figure(&format!(
        "unread streams were cancelled after {:.2?}",
        begin.elapsed()
    ));
    let sent: u64 = counted(&service, "orcd_jobs_finished_total{outcome=\"CANCELLED\"}");
    assert_eq!(sent, 2, "they did not end by themselves");
    drop(unread);
    assert_eq!(service.run(&neighbor).token_bytes(), alone.token_bytes());
}

/// Value of one series in the scrape.
fn counted(service: &WorkerHarness, series: &str) -> u64 {
    let reply = service.get("/metrics");
    let line = reply
        .text()
        .lines()
        .find_map(|line| line.strip_prefix(series));
    line.map_or(0, |value| value.trim().parse().unwrap())
}

#[test]
fn reader_that_pauses_and_comes_back_gets_every_byte() {
    let service = WorkerHarness::start(Model::Tiny);
    let job = Job::lasting("a", 150);
    let expected = service.run(&job);
    let mut stream = service.execute(&job);
    stream.read_tokens(1);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(stream.finish().token_bytes(), expected.token_bytes());
}
