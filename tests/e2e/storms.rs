//! Many at once, and the rude: whatever they do, a stream beside them is what it would be alone,
//! and nothing is left of them afterwards.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use orcd_tests::http::{Connection, request_bytes};
use orcd_tests::proc::wait_until;
use orcd_tests::stats::Samples;
use orcd_tests::{Job, Model, Starter, Transcript, WorkerHarness, report};

const SOON: Duration = Duration::from_secs(60);
/// `/health` is to answer within 10 ms; this leaves room for a machine that is busy with the storm.
const HEALTH: Duration = Duration::from_millis(500);

fn bystander() -> Job {
    Job::lasting("bystander", 150).set("seed", 11)
}

#[track_caller]
fn assert_untouched(expected: &Transcript, found: &Transcript) {
    assert_eq!(expected.token_bytes(), found.token_bytes());
    assert_eq!(expected.end().stop_reason, found.end().stop_reason);
    assert_eq!(found.end().replays, 0);
}

/// Runs a stream beside a storm that goes on as long as the stream does, at least once.
fn beside(service: &WorkerHarness, storm: impl Fn(&dyn Fn() -> bool) + Sync) {
    let undisturbed = service.run(&bystander());
    let descriptors = settled_descriptors(service);
    let over = AtomicBool::new(false);
    let found = std::thread::scope(|scope| {
        let mut stream = service.execute(&bystander());
        stream.read_tokens(1);
        let storm = scope.spawn(|| storm(&|| over.load(Ordering::Relaxed)));
        let found = stream.finish();
        over.store(true, Ordering::Relaxed);
        storm.join().unwrap();
        found
    });
    assert_untouched(&undisturbed, &found);
    assert_nothing_left(service, descriptors);
}

fn settled_descriptors(service: &WorkerHarness) -> usize {
    let count = || service.supervisor().descriptors();
    let mut last = count();
    wait_until(SOON, || {
        std::thread::sleep(Duration::from_millis(100));
        let now = count();
        std::mem::replace(&mut last, now) == now
    });
    last
}

#[track_caller]
fn assert_nothing_left(service: &WorkerHarness, descriptors: usize) {
    service.wait_for_health(SOON, |h| {
        h["jobs"]["running"] == 0 && h["jobs"]["queued"] == 0
    });
    let count = || service.supervisor().descriptors();
    assert!(
        wait_until(SOON, || count() == descriptors),
        "{} descriptors, {descriptors} before",
        count()
    );
    assert_eq!(service.supervisor().zombies(), 0);
    assert_eq!(service.run(&Job::lasting("after", 3)).end().tokens_out, 3);
}

#[test]
fn cancel_storm_leaves_nothing_behind() {
    const THREADS: usize = 6;
    const EACH: usize = 60;
    let service = WorkerHarness::start(Model::Slow);
    let restarts = |h: serde_json::Value| h["worker"]["restarts"].clone();
    let ended = std::sync::Mutex::new(Vec::new());
    beside(&service, |_| {
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (service, ended) = (&service, &ended);
                scope.spawn(move || {
                    for round in 0..EACH {
                        let code = start_and_cancel(service, thread, round);
                        ended.lock().unwrap().push(code);
                    }
                });
            }
        });
    });
    let ended = ended.into_inner().unwrap();
    assert_eq!(ended.len(), THREADS * EACH);
    assert!(ended.iter().all(|code| code == "CANCELLED"), "{ended:?}");
    assert_eq!(restarts(service.health()), 0, "a worker was lost over it");
}

/// Jobs that are cancelled faster than a step is made: every other step is made to its end for those
/// that are not cancelled.
#[test]
fn jobs_that_come_and_go_faster_than_a_step_starve_nobody() {
    // A round takes milliseconds, whatever the worker does: it is time that bounds the storm.
    const STORM: Duration = Duration::from_secs(120);
    let service = WorkerHarness::start(Model::Slow);
    // A prompt of many steps, each of them longer than a cancellation waits for its answer.
    let bystander = Job::lasting("patient", 5)
        .set("prompt", "the sea and ".repeat(200))
        .set("seed", 11);
    let undisturbed = service.run(&bystander);
    let over = AtomicBool::new(false);
    let found = std::thread::scope(|scope| {
        let stream = service.execute(&bystander);
        let storm = scope.spawn(|| {
            let begin = Instant::now();
            let mut rounds = 0;
            while !over.load(Ordering::Relaxed) && begin.elapsed() < STORM {
                let name = format!("hasty-{rounds}");
                let stream = service.execute(&Job::lasting(&name, 1500));
                assert_eq!(service.cancel(&name), "cancelling");
                stream.finish();
                rounds += 1;
            }
            over.load(Ordering::Relaxed)
        });
        let found = stream.finish();
        over.store(true, Ordering::Relaxed);
        let outlasted = storm.join().unwrap();
        assert!(outlasted, "it came through only after the storm");
        found
    });
    assert_untouched(&undisturbed, &found);
    assert_eq!(service.health()["worker"]["restarts"], 0);
}

/// Cancels at another moment of the job's life each time; how the job ended.
fn start_and_cancel(service: &WorkerHarness, thread: usize, round: usize) -> String {
    let name = format!("storm-{thread}-{round}");
    let job = Job::lasting(&name, 1500).set("seed", round as u64);
    let mut stream = service.execute(&job);
    match round % 4 {
        0 => {}
        1 => drop(stream.read_anything()),
        2 => std::thread::sleep(Duration::from_millis(thread as u64)),
        _ => drop(stream.read_tokens(1)),
    }
    assert_eq!(service.cancel(&name), "cancelling");
    stream.finish().error().code.clone()
}

#[test]
fn storm_of_clients_that_leave_leaves_nothing_behind() {
    let service = WorkerHarness::start(Model::Slow);
    beside(&service, |over| {
        for round in 0.. {
            if over() && round >= 100 {
                break;
            }
            let job = Job::lasting(&format!("gone-{round}"), 1500);
            let mut connection = service.connect();
            connection
                .send(&request_bytes("POST", "/execute", &[], &job.body()))
                .unwrap();
            if round % 2 == 0 {
                connection.read_head().unwrap();
            }
        }
    });
}

#[test]
fn thousand_idle_clients_cost_nobody_anything() {
    const CLIENTS: usize = 1000;
    if let Err(reason) = allow_descriptors(CLIENTS as u64 + 200) {
        return report::skipped(&reason);
    }
    let service = Starter::new(Model::Slow).alone().start();
    let kept = Job::lasting("kept", 200).set("on_disconnect", "continue");
    service.run(&kept);
    let undisturbed = service.run(&bystander());
    let descriptors = settled_descriptors(&service);
    let mut queued = Vec::new();
    let mut clients: Vec<Connection> = Vec::new();
    let mut stream = service.execute(&bystander());
    for n in 0..CLIENTS {
        match n % 20 {
            // Jobs that run or wait, their streams unread.
            0 => {
                let job = Job::lasting(&format!("queued-{n}"), 1500);
                queued.push(service.execute(&job));
            }
            // The same stream again, from its start, unread; who comes later takes it over.
            1 => clients.push(half_read(&service, "/jobs/kept/events")),
            _ => clients.push(service.connect()),
        }
    }
    let health: Vec<_> = (0..100)
        .map(|_| {
            let reply = service.get("/health");
            assert_eq!(reply.status(), 200);
            reply.elapsed
        })
        .collect();
    let samples = Samples::new(health);
    report::figure(&format!("/health beside {CLIENTS} idle clients: {samples}"));
    assert!(samples.median() < HEALTH, "{samples}");
    while stream.read() {}
    assert_untouched(&undisturbed, &stream.finish());
    for client in &mut clients[1..19] {
        let reply = client.request("GET", "/health/live", &[], b"");
        assert_eq!(reply.status(), 200, "a connection was given up");
    }
    drop((queued, clients));
    assert_nothing_left(&service, descriptors);
}

/// Sends a request and reads nothing of the answer.
fn half_read(service: &WorkerHarness, path: &str) -> Connection {
    let mut connection = service.connect();
    connection
        .send(&request_bytes("GET", path, &[], b""))
        .unwrap();
    connection
}

/// Raises the soft limit, which the service inherits.
fn allow_descriptors(count: u64) -> Result<(), String> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(|e| e.to_string())?;
    if soft >= count {
        return Ok(());
    }
    if hard < count {
        return Err(format!("{count} descriptors are wanted, {hard} allowed"));
    }
    setrlimit(Resource::RLIMIT_NOFILE, count, hard).map_err(|e| e.to_string())
}

#[test]
fn bodies_that_trickle_hold_nobody_up() {
    let service = WorkerHarness::start(Model::Slow);
    beside(&service, |over| {
        let request = |n: usize| {
            let job = Job::lasting(&format!("trickle-{n}"), 2);
            request_bytes("POST", "/execute", &[], &job.body())
        };
        let mut trickling: Vec<_> = (0..50).map(|n| (service.connect(), request(n))).collect();
        let mut at = 0;
        while !over() || at == 0 {
            for (connection, request) in &mut trickling {
                // The last byte never comes.
                if at + 1 < request.len() {
                    connection.send(&request[at..=at]).unwrap();
                }
            }
            at += 1;
            let begin = Instant::now();
            assert_eq!(service.get("/health").status(), 200);
            assert!(begin.elapsed() < SOON);
        }
    });
}

#[test]
fn malformed_http_beside_a_stream_changes_no_byte() {
    let service = WorkerHarness::start(Model::Slow);
    let rubbish: [&[u8]; 7] = [
        b"GARBAGE\r\n\r\n",
        b"GET /health HTTP/9.9\r\n\r\n",
        b"POST /execute HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /execute HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        b"POST /execute HTTP/1.1\r\nContent-Length: 9\r\nContent-Length: 5\r\n\r\n{}",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0\0\0\0\0\0\0\0",
    ];
    beside(&service, |over| {
        while !over() {
            for bytes in rubbish {
                let mut connection = service.connect();
                connection.send(bytes).unwrap();
                // Some get an answer, some wait for the rest of a request: both are left.
                connection
                    .socket()
                    .set_read_timeout(Some(Duration::from_millis(20)))
                    .unwrap();
                if let Ok(reply) = connection.read_reply() {
                    assert!((400..=505).contains(&reply.status()), "{bytes:?}");
                }
            }
        }
    });
}
