//! The soak: clients of all manners and a kill now and then, for as long as it is asked for; what the service holds
//! afterwards is what it held before.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use orcd_tests::http::request_bytes;
use orcd_tests::proc::wait_until;
use orcd_tests::{Model, Starter, WorkerHarness, report};
use serde_json::json;

use crate::client;
use crate::jobs::{Ask, Known, Pool};
use crate::judge::{Ending, compare};
use crate::leg::{Holdings, holdings};
use crate::rng::Rng;

const CLIENTS: u64 = 6;
/// What `make test` has time for.
const SECONDS: u64 = 20;
/// A soak of ten minutes has a kill every 25 s; a short one has four all the same.
const KILL_EVERY: Duration = Duration::from_secs(25);
const LEAST_KILLS: u32 = 4;
/// Descriptors, threads and memory may differ by this many hundredths.
const TOLERANCE_PERCENT: u64 = 10;
/// Memory beside that: what the allocator keeps is of this size when a short soak ends, and no more after a long one.
const SLACK_KIB: u64 = 2048;
/// How often the first round has each manner of client, whatever the machine's speed: what a service takes once and
/// keeps, it has taken by then.
const WARM_VISITS: u64 = 20;
const WARM_ROUND: Duration = Duration::from_secs(5);
const MOST_WARM_ROUNDS: u64 = 12;
/// An allocator gives pages back in its own time.
const SETTLED: Duration = Duration::from_secs(60);
const BIG_BODY_BYTES: usize = 900_000;

struct Shared<'s> {
    service: &'s WorkerHarness,
    pool: &'s Pool,
    over: AtomicBool,
    failures: Mutex<Vec<String>>,
    done: Mutex<[u64; 6]>,
}

#[test]
fn after_a_soak_the_service_holds_what_it_held_before() {
    let seconds = std::env::var("ORCD_SOAK_SECONDS")
        .ok()
        .filter(|s| !s.is_empty());
    let seconds = seconds.map_or(SECONDS, |s| s.parse().expect("ORCD_SOAK_SECONDS: a number"));
    let length = Duration::from_secs(seconds);
    let mut rng = Rng::new(seconds, 2000);
    let pool = Pool::prepare(&Model::Brisk, &mut rng);
    // Retained streams are held on purpose for a while: a short while here.
    let starter = Starter::new(Model::Brisk).flag("--resume-ttl-sec", 1);
    let service = starter.alone().start();
    let shared = Shared {
        service: &service,
        pool: &pool,
        over: AtomicBool::new(false),
        failures: Mutex::default(),
        done: Mutex::default(),
    };
    let warm = warm_up(&shared);
    let before = holdings(&service, false, None);
    let kills = warm + soak(&shared, length, 0);
    let mut after = holdings(&service, false, None);
    wait_until(SETTLED, || {
        after = holdings(&service, false, None);
        grown(before, after).is_empty()
    });
    let [streams, left, cancelled, resumed, refused, big] = *shared.done.lock().unwrap();
    report::figure(&format!(
        "{seconds} s, {kills} kills, {streams} whole streams, {left} left, {cancelled} cancelled, {resumed} resumed, \
         {refused} malformed, {big} big bodies; before {before:?}, after {after:?}"
    ));
    let failures = shared.failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(streams > 10 && left > 0 && cancelled > 0 && resumed > 0 && refused > 0 && big > 0);
    assert_eq!(after.zombies, 0);
    assert_eq!(grown(before, after), Vec::<String>::new());
}

/// What is over its bound.
fn grown(before: Holdings, after: Holdings) -> Vec<String> {
    let descriptors = (before.descriptors as u64, after.descriptors as u64);
    [
        ("descriptors", descriptors, 0),
        ("threads", (before.threads, after.threads), 0),
        ("KiB of memory", (before.rss_kib, after.rss_kib), SLACK_KIB),
    ]
    .into_iter()
    .filter(|(_, (before, after), slack)| {
        (after - slack.min(after)) * 100 > before * (100 + TOLERANCE_PERCENT)
    })
    .map(|(what, (before, after), _)| format!("{after} {what}, {before} before"))
    .collect()
}

/// A first round of everything; how often the worker was killed.
fn warm_up(shared: &Shared<'_>) -> u32 {
    let mut kills = 0;
    for round in 1..=MOST_WARM_ROUNDS {
        kills += soak(shared, WARM_ROUND, round);
        if shared
            .done
            .lock()
            .unwrap()
            .iter()
            .all(|&visits| visits >= WARM_VISITS)
        {
            return kills;
        }
    }
    panic!(
        "{:?} visits after {MOST_WARM_ROUNDS} rounds",
        shared.done.lock().unwrap()
    );
}

/// All clients at once; how often the worker was killed.
fn soak(shared: &Shared<'_>, length: Duration, seed: u64) -> u32 {
    shared.over.store(false, Ordering::Relaxed);
    std::thread::scope(|scope| {
        for n in 0..CLIENTS {
            scope.spawn(move || {
                let mut rng = Rng::new(seed, n);
                let mut turn = 0;
                while !shared.over.load(Ordering::Relaxed) {
                    turn += 1;
                    visit(shared, &format!("soak-{seed}-{n}-{turn}"), &mut rng);
                }
            });
        }
        let every = KILL_EVERY.min(length / LEAST_KILLS);
        let begin = Instant::now();
        let mut kills = 0;
        while begin.elapsed() + every < length {
            std::thread::sleep(every);
            shared.service.kill_worker();
            kills += 1;
        }
        std::thread::sleep(length.saturating_sub(begin.elapsed()));
        shared.over.store(true, Ordering::Relaxed);
        kills
    })
}

/// One client, in one of the manners that clients have.
fn visit(shared: &Shared<'_>, name: &str, rng: &mut Rng) {
    let service = shared.service;
    let at = rng.below(shared.pool.jobs.len() as u64);
    let known = &shared.pool.jobs[usize::try_from(at).unwrap()];
    let Ask::Native(job) = &known.ask else {
        panic!("the pool's jobs are of /execute")
    };
    let job = job.clone().named(name);
    let manner = rng.below(6);
    match manner {
        0 => whole(shared, known, &job, None),
        1 => {
            // Leaves without a word, somewhere in the stream.
            if let Ok(mut stream) = service.try_execute(&job, &[]) {
                for _ in 0..rng.below(6) {
                    if !stream.try_read().unwrap_or(false) {
                        break;
                    }
                }
            }
        }
        2 => {
            if let Ok(mut stream) = service.try_execute(&job, &[]) {
                if rng.chance(50) {
                    let _ = stream.try_read();
                }
                service.post("/cancel", &json!({"job_id": name}));
                while stream.try_read().unwrap_or(false) {}
            }
        }
        3 => {
            let absence = Some((usize::try_from(rng.below(10)).unwrap(), rng.time(1, 100)));
            whole(
                shared,
                known,
                &job.set("on_disconnect", "continue"),
                absence,
            );
        }
        4 => {
            let reply = service.request("POST", "/execute", &[], b"{\"prompt\": 1,");
            if reply.status() != 400 {
                fail(shared, format!("malformed: {}", reply.status()));
            }
        }
        _ => {
            // Half of a big body, or all of it, which is no job either way.
            let body = format!("{{\"x\":\"{}\"}}", "a".repeat(BIG_BODY_BYTES));
            let request = request_bytes("POST", "/execute", &[], body.as_bytes());
            let part = if rng.chance(50) {
                request.len()
            } else {
                request.len() / 2
            };
            let mut connection = service.connect();
            let _ = connection.send(&request[..part]);
            if part == request.len() {
                let _ = connection.read_head();
            }
        }
    }
    shared.done.lock().unwrap()[usize::try_from(manner).unwrap()] += 1;
}

fn whole(shared: &Shared<'_>, known: &Known, job: &orcd_tests::Job, absence: client::Absence) {
    let received = client::run(shared.service, job, absence);
    let expected = (&known.tokens[..], &known.ending);
    let verdict = compare(expected, (&received.tokens, &received.ending));
    // A client that comes back after the short while finds nothing: that is no fault.
    let too_late =
        matches!(&received.ending, Ending::Cut(why) if why.starts_with("not resumed: 4"));
    if !too_late && (!verdict.is_clean() || received.strictly.is_err()) {
        let ending = &received.ending;
        let strictly = &received.strictly;
        fail(
            shared,
            format!("{verdict:?} {ending:?} {strictly:?}: {}", job.json()),
        );
    }
}

fn fail(shared: &Shared<'_>, what: String) {
    shared.failures.lock().unwrap().push(what);
}
