//! The campaign: streams of all sorts while their worker is killed, stopped, starved and made to
//! fail at chosen points, and every stream compared byte for byte with an undisturbed run.
//!
//! A seed decides which jobs and which faults come, and when; what the machine makes of it is
//! different each time, so the same seed is a similar run and not the same one.

mod board;
mod chunks;
mod client;
mod faults;
mod inject;
mod jobs;
mod judge;
mod leg;
mod rng;
mod settings;
mod soak;
mod summary;

use std::io::Write;
use std::time::{Duration, Instant};

use jobs::Pool;
use leg::Report;
use orcd_tests::{Model, lock, report};
use rng::Rng;
use settings::{Leg, Settings};
use summary::Summary;

/// Wanted is 10 ms at the 99th percentile; this is for a small machine that does ten other things.
const HEALTH_P99: Duration = Duration::from_millis(500);

/// Says how to run it again when something panics.
struct Advice(Settings);

impl Drop for Advice {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let command = self.0.command();
            eprintln!("the campaign failed; to run it again: {command}");
        }
    }
}

fn run(settings: &Settings) -> Summary {
    // All of the services measure time: they are alone together.
    let machine = lock::take(true);
    let begun = Instant::now();
    let services = settings.legs();
    let mut pools: Vec<(Model, Pool)> = Vec::new();
    for leg in services.iter().flatten().filter(|leg| leg.faults > 0) {
        if !pools.iter().any(|(model, _)| *model == leg.model) {
            let mut rng = Rng::new(settings.seed, 1000);
            pools.push((leg.model.clone(), Pool::prepare(&leg.model, &mut rng)));
        }
    }
    let mut seed = settings.seed.wrapping_mul(1000);
    let mut seeded = |leg: Leg| {
        seed += 1;
        (leg, seed - 1)
    };
    let services = services.into_iter();
    let services = services.map(|legs| legs.into_iter().map(&mut seeded).collect());
    let services: Vec<Vec<(Leg, u64)>> = services.collect();
    let one_after_the_other = |legs: &[(Leg, u64)]| -> Vec<Report> {
        let legs = legs.iter().filter(|(leg, _)| leg.faults > 0);
        legs.map(|(leg, seed)| {
            let pool = pools.iter().find(|(model, _)| *model == leg.model);
            let (_, pool) = pool.expect("prepared above");
            leg::run(leg, pool, *seed, begun)
        })
        .collect()
    };
    let legs = std::thread::scope(|scope| {
        let (machine, one_after_the_other) = (&machine, &one_after_the_other);
        let run = |legs| {
            scope.spawn(move || {
                lock::join(machine);
                one_after_the_other(legs)
            })
        };
        let services: Vec<_> = services.iter().map(|legs| run(legs)).collect();
        let reports = services.into_iter().map(|service| service.join().unwrap());
        reports.flatten().collect()
    });
    Summary { legs }
}

#[test]
fn faults_at_any_instant_change_no_byte_of_any_stream() {
    let settings = Settings::from_env();
    let _advice = Advice(settings);
    let summary = run(&settings);
    if settings.is_record {
        let text = format!("\n{}\n\n{}", settings.command(), summary.markdown());
        let _ = std::io::stderr().write_all(text.as_bytes());
    } else {
        for (what, figure) in summary.counts() {
            report::figure(&format!("{what}: {figure}"));
        }
    }
    let failures = summary.failures();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(
        summary
            .streams()
            .all(|s| s.verdict.is_clean() && !s.was_given_up())
    );
    match settings.limit {
        None => assert_eq!(summary.faults(), settings.faults),
        Some(_) => assert!(summary.faults() > 0),
    }
    for leg in &summary.legs {
        let (before, after) = (leg.before, leg.after);
        assert_eq!(after.descriptors, before.descriptors, "{}", leg.name);
        assert_eq!(after.children, before.children, "{}", leg.name);
        assert_eq!(after.zombies, 0, "{}", leg.name);
        assert_eq!(after.device_bytes, before.device_bytes, "{}", leg.name);
    }
    let health = summary.health();
    assert!(health.percentile(99) < HEALTH_P99, "/health: {health}");
}
