//! `/metrics` is Prometheus text, and counts what happened.

use std::collections::BTreeMap;
use std::time::Duration;

use orcd_tests::{Job, Model, Starter, WorkerHarness};

/// Values by series, `name{labels}`.
type Scrape = BTreeMap<String, f64>;

/// Reads a scrape, line by line as the format is defined.
fn scrape(service: &WorkerHarness) -> Scrape {
    let reply = service.get("/metrics");
    assert_eq!(reply.status(), 200);
    let kind = reply.header("content-type").unwrap();
    let known = ["text/plain", "application/openmetrics-text"];
    assert!(known.iter().any(|k| kind.starts_with(k)), "{kind}");
    assert!(reply.text().ends_with('\n'));
    let mut types = BTreeMap::new();
    let mut series = Scrape::new();
    for line in reply.text().lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let words: Vec<_> = comment.splitn(3, ' ').collect();
            match words[..] {
                ["TYPE", name, kind] => {
                    let known = [
                        "counter",
                        "gauge",
                        "histogram",
                        "summary",
                        "info",
                        "unknown",
                    ];
                    assert!(known.contains(&kind), "{line}");
                    assert_eq!(
                        types.insert(name.to_owned(), kind.to_owned()),
                        None,
                        "{line} twice"
                    );
                }
                ["HELP" | "UNIT", name, _] => assert!(is_name(name), "{line}"),
                ["EOF"] => {}
                _ => panic!("{line:?} is no comment of the format"),
            }
            continue;
        }
        let (key, value) = sample(line);
        let name = key.split('{').next().unwrap();
        assert!(is_name(name), "{line}");
        assert!(
            types.keys().any(|family| name.starts_with(family.as_str())),
            "{line} has no type"
        );
        assert_eq!(series.insert(key, value), None, "{line} twice");
    }
    assert!(!series.is_empty());
    series
}

fn sample(line: &str) -> (String, f64) {
    let at = line
        .rfind(' ')
        .unwrap_or_else(|| panic!("{line:?} has no value"));
    let key = &line[..at];
    let balanced = key.contains('{') == key.ends_with('}');
    assert!(
        balanced && key.matches('"').count().is_multiple_of(2),
        "{line:?}"
    );
    (
        key.to_owned(),
        line[at + 1..]
            .parse()
            .unwrap_or_else(|_| panic!("{line:?}")),
    )
}

fn is_name(name: &str) -> bool {
    let first = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == ':');
    first
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':')
}

/// Sum of a counter's series.
fn total(scrape: &Scrape, name: &str) -> f64 {
    let of = |key: &String| key.split('{').next() == Some(name);
    scrape
        .iter()
        .filter(|(key, _)| of(key))
        .map(|(_, value)| value)
        .sum()
}

#[test]
fn scrape_is_well_formed_before_and_after_jobs() {
    let service = WorkerHarness::start(Model::Tiny);
    let before = scrape(&service);
    assert_eq!(total(&before, "orcd_tokens_generated_total"), 0.0);
    assert_eq!(total(&before, "orcd_ready"), 1.0);
    for name in ["a", "b"] {
        service.run(&Job::lasting(name, 25));
    }
    let after = scrape(&service);
    assert_eq!(total(&after, "orcd_tokens_generated_total"), 50.0);
    assert_eq!(total(&after, "orcd_jobs_finished_total"), 2.0);
    assert_eq!(total(&after, "orcd_jobs_running"), 0.0);
}

#[test]
fn running_jobs_and_restarts_show() {
    let service = Starter::new(Model::Slow).patient().start();
    let job = Job::lasting("a", 60);
    let stream = service.execute_struck(&[job], "sleep", 10).remove(0);
    assert_eq!(total(&scrape(&service), "orcd_jobs_running"), 1.0);
    service.kill_worker();
    stream.finish();
    service.wait_for_health(Duration::from_secs(60), |h| h["status"] == "healthy");
    let after = scrape(&service);
    assert_eq!(total(&after, "orcd_worker_restarts_total"), 1.0);
    assert_eq!(total(&after, "orcd_replayed_jobs_total"), 1.0);
}
