//! Few descriptors, and more clients than connections: who looks after the service gets in nevertheless.

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit};
use orcd_tests::http::Connection;
use orcd_tests::proc::wait_until;
use orcd_tests::stats::Samples;
use orcd_tests::{Job, Model, Starter, WorkerHarness, report};

const SOON: Duration = Duration::from_secs(60);
/// `/health` is to answer within 10 ms; this leaves room for a machine that is busy otherwise.
const HEALTH: Duration = Duration::from_millis(500);
/// More than a service with [`FILES`] has connections for.
const CLIENTS: usize = 100;
const FILES: u32 = 64;
/// By then the service has seen clients go.
const SEEN_TO_GO: Duration = Duration::from_millis(500);
/// More than any service has connections for.
const MANY_CLIENTS: usize = 4200;
/// By then the service gives the first silent client up.
const PATIENCE: Duration = Duration::from_secs(10);

/// Clients that say nothing.
fn fill(address: SocketAddr, clients: usize) -> Vec<Connection> {
    // Side by side: on a busy machine the first would be given up before the last is there.
    const THREADS: usize = 8;
    let some = |from: usize| {
        let own = (from..clients).step_by(THREADS);
        own.map(|_| Connection::open(address)).collect::<Vec<_>>()
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|n| scope.spawn(move || some(n))).collect();
        let clients = threads.into_iter().map(|thread| thread.join().unwrap());
        clients.flatten().collect()
    })
}

/// What so many clients take where nobody but the machine has to do with them.
fn time_to_connect(clients: usize) -> Duration {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| listener.incoming().take(clients).collect::<Vec<_>>());
        let begun = Instant::now();
        let connected = fill(address, clients);
        let took = begun.elapsed();
        drop(connected);
        took
    })
}

/// So many clients that every connection is taken: a job is refused, and readiness says so. The service gives
/// silent clients up after a while: where a set of them left one, all go, and once that was seen
/// another set comes. `None`: this machine is too slow for a set to be there before its first is given up.
fn take_every_connection(service: &WorkerHarness, clients: usize) -> Option<Vec<Connection>> {
    let mut idle = Vec::new();
    let full = wait_until(SOON, || {
        if !idle.is_empty() {
            idle.clear();
            std::thread::sleep(SEEN_TO_GO);
        }
        idle = fill(service.address(), clients);
        let Err(reply) = service.try_execute(&Job::lasting("a", 2), &[]) else {
            return false;
        };
        assert_eq!(reply.refusal(), (503, "QUEUE_FULL".into()));
        assert!(reply.header("retry-after").is_some());
        assert_eq!(reply.header("connection"), Some("close"));
        service.get("/health/ready").status() == 503
    });
    if full {
        return Some(idle);
    }
    drop(idle);
    // The service has as much to do with each as its client has.
    let alone = time_to_connect(clients);
    assert!(
        2 * alone > PATIENCE,
        "there always was a connection left; without a service {clients} clients took {alone:?}"
    );
    report::skipped(&format!(
        "this machine takes {alone:?} for {clients} clients and no service, which has {PATIENCE:?}"
    ));
    None
}

/// Sends probes while `clients` clients take every connection.
fn probe_while_full(service: &WorkerHarness, clients: usize) {
    let mut times = Vec::new();
    let Some(_idle) = take_every_connection(service, clients) else {
        return;
    };
    for path in ["/health", "/metrics"].repeat(200) {
        let reply = service.get(path);
        assert_eq!(reply.status(), 200, "{path}");
        times.push(reply.elapsed);
    }
    let samples = Samples::new(times);
    report::figure(&format!(
        "probes beside {clients} clients, every connection taken: {samples}"
    ));
    assert!(samples.median() < HEALTH, "{samples}");
}

#[test]
fn probes_are_answered_with_every_connection_taken() {
    let service = Starter::new(Model::Tiny).open_files(FILES).alone().start();
    let said = service.stderr();
    let warnings: Vec<_> = said
        .lines()
        .filter(|l| l.contains("RLIMIT_NOFILE"))
        .collect();
    assert_eq!(warnings.len(), 1, "{said}");
    assert!(
        warnings[0].contains("WARN") && warnings[0].contains("64 open files"),
        "{warnings:?}"
    );
    probe_while_full(&service, CLIENTS);
    let mut idle = take_every_connection(&service, CLIENTS).unwrap();

    // What was kept back is enough to replace a worker.
    idle.extend(fill(service.address(), CLIENTS));
    service.kill_worker();
    service.wait_for_health(SOON, |h| {
        h["status"] == "healthy" && h["worker"]["restarts"] == 1
    });
    drop(idle);
    let works = || match service.try_execute(&Job::lasting("b", 2), &[]) {
        Ok(stream) => stream.finish().end().tokens_out == 2,
        Err(_) => false,
    };
    assert!(wait_until(SOON, works), "no connection is free again");
    let said = service.stderr();
    assert!(!said.contains("no connection could be accepted"), "{said}");
}

#[test]
fn probes_are_answered_beside_as_many_clients_as_are_served() {
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    // Both ends of each connection, in two processes; a set of them is let go after the next is there.
    let needed = 2 * MANY_CLIENTS as u64 + 200;
    if limit < needed {
        return report::skipped(&format!(
            "{limit} files may be open here, it takes {needed}"
        ));
    }
    let service = Starter::new(Model::Tiny).alone().start();
    probe_while_full(&service, MANY_CLIENTS);
}
