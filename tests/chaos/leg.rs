//! One part of the campaign: streams on a service, faults on its worker.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use orcd_tests::proc::wait_until;
use orcd_tests::{Starter, WorkerHarness, paths};

use crate::board::Board;
use crate::client::{self, Received};
use crate::faults::{Deck, Setting};
use crate::inject::{self, InjectedFault};
use crate::jobs::{self, Known, Pool};
use crate::judge::{Ending, Verdict, compare};
use crate::rng::Rng;
use crate::settings::Leg;

/// Streams at once, below the service's own limit: nobody waits long for its turn.
const STREAMS: u64 = 7;
/// Between two looks at `/health`.
const HEALTH_EVERY: Duration = Duration::from_millis(10);
/// After the last stream everything is back by then.
const SETTLED: Duration = Duration::from_secs(60);

/// What a service holds when nobody asks anything of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Holdings {
    pub(crate) descriptors: usize,
    pub(crate) threads: u64,
    pub(crate) rss_kib: u64,
    pub(crate) children: usize,
    pub(crate) zombies: usize,
    pub(crate) device_bytes: u64,
}

/// One stream's story.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) received: Received,
    pub(crate) verdict: Verdict,
    pub(crate) bytes: usize,
}

/// What came of a leg.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) name: String,
    pub(crate) streams: Vec<Stream>,
    pub(crate) injected: Vec<InjectedFault>,
    pub(crate) health: Vec<Duration>,
    pub(crate) before: Holdings,
    pub(crate) after: Holdings,
    /// Workers lost that no fault asked for.
    pub(crate) unasked: u64,
    /// Faults whose failpoint no worker reached.
    pub(crate) missed: usize,
    /// What went wrong, for people.
    pub(crate) failures: Vec<String>,
}

/// All that the threads of a leg share.
struct Shared<'l> {
    service: &'l WorkerHarness,
    pool: &'l Pool,
    board: Board,
    over: AtomicBool,
    streams: Mutex<Vec<Stream>>,
    failures: Mutex<Vec<String>>,
}

/// `begun`: when the campaign did.
pub(crate) fn run(leg: &Leg, pool: &Pool, seed: u64, begun: Instant) -> Report {
    let mut starter = Starter::new(leg.model.clone())
        .failpoints()
        .flag("--hang-timeout-ms", leg.hang.as_millis())
        .alone();
    if leg.standby {
        starter = starter.arg("--standby");
    }
    if let Some(pages) = leg.kv_pages {
        starter = starter.flag("--debug-kv-pages", pages);
    }
    let service = starter.start();
    // The first steps show the service what a step takes: hangs are recognized by that.
    jobs::run(&service, &pool.jobs[0].ask, "first", None);
    let before = holdings(&service, leg.standby, None);
    let shared = Shared {
        service: &service,
        pool,
        board: Board::default(),
        over: AtomicBool::new(false),
        streams: Mutex::default(),
        failures: Mutex::default(),
    };
    let (harvest, health) = std::thread::scope(|scope| {
        let health = scope.spawn(|| sample_health(&shared));
        for n in 0..STREAMS {
            let shared = &shared;
            scope.spawn(move || stream(shared, Rng::new(seed, 1 + n)));
        }
        let harvest = inject_all(&shared, leg, begun, Rng::new(seed, 0));
        shared.over.store(true, Ordering::Relaxed);
        (harvest, health.join().unwrap())
    });
    let after = holdings(&service, leg.standby, Some(before));
    Report {
        name: leg.name(),
        streams: shared.streams.into_inner().unwrap(),
        injected: harvest.injected,
        health,
        before,
        after,
        unasked: harvest.unasked,
        missed: harvest.missed,
        failures: shared.failures.into_inner().unwrap(),
    }
}

/// One job after the other until the campaign is over.
fn stream(shared: &Shared<'_>, mut rng: Rng) {
    while !shared.over.load(Ordering::Relaxed) {
        // Half of them in each dialect.
        let native = rng.chance(50);
        let known = rng.choose(if native {
            &shared.pool.jobs
        } else {
            &shared.pool.asked
        });
        let leaves = rng.chance(15);
        let absence = leaves.then(|| {
            let tokens = usize::try_from(1 + rng.below(20)).unwrap();
            (tokens, rng.time(1, 200))
        });
        run_one(shared, known, absence);
    }
}

fn run_one(shared: &Shared<'_>, known: &Known, absence: client::Absence) {
    let entry = shared.board.enter();
    let name = format!("job-{}", entry.number());
    let received = jobs::run(shared.service, &known.ask, &name, absence);
    drop(entry);
    let expected = (&known.tokens[..], &known.ending);
    let verdict = compare(expected, (&received.tokens, &received.ending));
    if !verdict.is_clean() || received.strictly.is_err() {
        let ending = &received.ending;
        let strictly = &received.strictly;
        let count = received.tokens.len();
        let body = known.ask.json();
        shared.failures.lock().unwrap().push(format!(
            "{verdict:?}, {count} tokens of {}, {ending:?} where {:?} was due, {strictly:?}: {body}",
            known.tokens.len(),
            known.ending,
        ));
    }
    let bytes = received.tokens.iter().map(|token| token.raw.len()).sum();
    shared.streams.lock().unwrap().push(Stream {
        received,
        verdict,
        bytes,
    });
}

#[derive(Default)]
struct Harvest {
    injected: Vec<InjectedFault>,
    unasked: u64,
    missed: usize,
}

/// Injects faults one after the other, as soon as every open stream may meet one more and at a random instant.
fn inject_all(shared: &Shared<'_>, leg: &Leg, begun: Instant, mut rng: Rng) -> Harvest {
    let service = shared.service;
    let mut harvest = Harvest::default();
    let mut accounted = inject::restarts(service);
    let setting = Setting {
        standby: leg.standby,
        is_small: leg.kv_pages.is_some(),
        is_cpu: paths::device() == "cpu",
        hang: leg.hang,
    };
    let mut deck = Deck::new(rng.clone(), setting);
    let in_time = || leg.until.is_none_or(|until| begun.elapsed() < until);
    while harvest.injected.len() < leg.faults && in_time() {
        let fault = deck.draw();
        while !shared.board.begin(fault.crashes) {
            std::thread::sleep(Duration::from_millis(5));
            let lost = inject::restarts(service);
            shared.board.count(u32::try_from(lost - accounted).unwrap());
            harvest.unasked += lost - accounted;
            accounted = lost;
        }
        if leg.standby && rng.chance(70) {
            // Else it may be anywhere in its life.
            wait_until(SETTLED, || service.health()["standby"] == true);
        }
        std::thread::sleep(rng.time(0, 120));
        let prompt = rng.pick(&[0, 1, 2, 3]);
        let injected = std::thread::scope(|scope| {
            let begin_prompt = || {
                let known = &shared.pool.prompts[prompt];
                scope.spawn(move || run_one(shared, known, None));
                let running = || service.health()["jobs"]["running"].as_u64() > Some(0);
                wait_until(Duration::from_secs(1), running);
            };
            inject::inject(service, fault, begin_prompt)
        });
        match injected {
            Ok(Some(injected)) => harvest.injected.push(injected),
            Ok(None) => harvest.missed += 1,
            Err(failure) => {
                shared.failures.lock().unwrap().push(failure);
                return harvest;
            }
        }
        accounted = inject::restarts(service);
        shared.board.end();
    }
    harvest
}

fn sample_health(shared: &Shared<'_>) -> Vec<Duration> {
    let mut connection = shared.service.connect();
    let mut times = Vec::new();
    while !shared.over.load(Ordering::Relaxed) {
        times.push(connection.request("GET", "/health", &[], b"").elapsed);
        std::thread::sleep(HEALTH_EVERY);
    }
    times
}

/// What an idle service holds; waits until it is what it was `before`, or what it stays at.
pub(crate) fn holdings(
    service: &WorkerHarness,
    standby: bool,
    before: Option<Holdings>,
) -> Holdings {
    service.wait_for_health(SETTLED, |h| {
        h["status"] == "healthy"
            && h["standby"] == standby
            && h["jobs"]["running"] == 0
            && h["jobs"]["queued"] == 0
    });
    let supervisor = service.supervisor();
    let look = || Holdings {
        descriptors: supervisor.descriptors(),
        threads: supervisor.status("Threads").unwrap_or(0),
        rss_kib: supervisor.status("VmRSS").unwrap_or(0),
        children: supervisor.children().len(),
        zombies: supervisor.zombies(),
        device_bytes: service.health()["vram_bytes_used"].as_u64().unwrap_or(0),
    };
    let mut seen = look();
    let mut since = Instant::now();
    wait_until(SETTLED, || {
        std::thread::sleep(Duration::from_millis(20));
        let now = look();
        if now.descriptors != seen.descriptors || now.children != seen.children {
            since = Instant::now();
        }
        seen = now;
        match before {
            Some(before) => {
                now.descriptors == before.descriptors && now.children == before.children
            }
            None => since.elapsed() > Duration::from_millis(500),
        }
    });
    seen
}

impl Stream {
    /// The longest time that this stream stood still because of a fault; `None` if it was not
    /// there, or its client was away.
    pub(crate) fn pause(&self, fault: &InjectedFault) -> Option<Duration> {
        let arrivals = &self.received.arrivals;
        let (first, last) = (*arrivals.first()?, *arrivals.last()?);
        if first >= fault.from || last <= fault.from {
            return None;
        }
        let away = |from: Instant, to: Instant| {
            self.received
                .away
                .is_some_and(|(left, back)| from < back && to > left)
        };
        let gaps = arrivals.windows(2).map(|pair| (pair[0], pair[1]));
        let after = gaps.filter(|&(from, to)| to > fault.from && from < fault.until);
        let known = after.filter(|&(from, to)| !away(from, to));
        known.map(|(from, to)| to - from.max(fault.from)).max()
    }

    /// It ended because the service took it for the cause of crashes.
    pub(crate) fn was_given_up(&self) -> bool {
        matches!(&self.received.ending, Ending::Error(code, _) if code == "WORKER_CRASHED")
    }
}
