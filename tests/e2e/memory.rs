//! What large and abandoned requests take is bounded, and is given back.

use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use orcd_tests::http::Connection;
use orcd_tests::proc::wait_until;
use orcd_tests::{Job, Model, WorkerHarness, report};

/// Clients that each send most of a body.
const CLIENTS: usize = 400;
/// Of this size.
const BODY_BYTES: usize = 1_000_000;
/// What all bodies together may hold, and what a connection's buffers take beside them.
const MOST_KIB: u64 = (64 + 64) << 10;
/// What the allocator keeps of each thread that served them.
const KEPT_A_THREAD_KIB: u64 = 256;
/// By then the memory is back.
const GIVEN_BACK: Duration = Duration::from_secs(60);

/// Sends all but the last byte of a body.
fn begin(service: &WorkerHarness) -> Connection {
    let mut connection = service.connect();
    let head = format!(
        "POST /execute HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
        BODY_BYTES + 1
    );
    connection.send(head.as_bytes()).unwrap();
    // The service may refuse it on the way.
    let _ = connection.send(&vec![b' '; BODY_BYTES]);
    connection
}

#[test]
fn memory_of_unfinished_bodies_is_bounded_and_given_back() {
    let service = WorkerHarness::start(Model::Tiny);
    let resident = || service.supervisor().status("VmRSS").unwrap();
    // What is made once and kept: threads, their stacks, the first buffers.
    drop((0..8).map(|_| begin(&service)).collect::<Vec<_>>());
    service.run(&Job::lasting("a", 2));
    let before = resident();
    let clients: Vec<_> = (0..CLIENTS).map(|_| begin(&service)).collect();
    let during = resident();
    drop(clients);
    let mut after = 0;
    // The runtime has a thread a core, and the allocator keeps some of what each had.
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let is_back = wait_until(GIVEN_BACK, || {
        std::thread::sleep(Duration::from_millis(200));
        after = resident();
        after <= before + before / 5 + KEPT_A_THREAD_KIB * threads
    });
    let figures = format!("{before} KiB before, {during} during, {after} after");
    report::figure(&figures);
    assert!(is_back, "{figures}");
    assert!(during < before + MOST_KIB, "{figures}");
    assert_eq!(service.run(&Job::lasting("b", 2)).end().tokens_out, 2);
}

#[test]
fn work_for_clients_that_left_is_bounded() {
    const REQUESTS: usize = 40;
    let service = WorkerHarness::start(Model::Tiny);
    let threads = || service.supervisor().status("Threads").unwrap();
    let before = threads();
    let cores = std::thread::available_parallelism().unwrap().get() as u64;
    // Long to tokenize, and far more than the context holds.
    let body = Job::chat("a", &[("user", &"word and ".repeat(100_000))]).body();
    let mut most = 0;
    for _ in 0..REQUESTS {
        let mut connection = service.connect();
        let request = orcd_tests::http::request_bytes("POST", "/execute", &[], &body);
        connection.send(&request).unwrap();
        // Time to be read, but not to be answered.
        std::thread::sleep(Duration::from_millis(10));
        let reset = nix::libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        setsockopt(connection.socket(), sockopt::Linger, &reset).unwrap();
        drop(connection);
        most = most.max(threads());
    }
    report::figure(&format!(
        "{before} threads before, {most} at most, {cores} cores"
    ));
    // Beside those that prepare prompts some may have done other things.
    assert!(most <= before + cores + 4, "{before} threads, then {most}");
    assert_eq!(service.run(&Job::lasting("b", 2)).end().tokens_out, 2);
}
