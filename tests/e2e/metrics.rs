//! `/metrics` is Prometheus text, and counts what happened.

use std::collections::BTreeMap;
use std::time::Duration;

use orcd_tests::{Job, Model, Starter, WorkerHarness, paths};

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
    let service = Starter::new(Model::Slow)
        .failpoints()
        .without_hang_timeout()
        .start();
    let job = Job::lasting("a", 60);
    let stream = service.execute_and_trigger(&[job], "sleep", 10).remove(0);
    assert_eq!(total(&scrape(&service), "orcd_jobs_running"), 1.0);
    service.kill_worker();
    stream.finish();
    service.wait_for_health(Duration::from_secs(60), |h| h["status"] == "healthy");
    let after = scrape(&service);
    assert_eq!(total(&after, "orcd_worker_restarts_total"), 1.0);
    assert_eq!(total(&after, "orcd_replayed_jobs_total"), 1.0);
}

#[test]
fn build_and_process_show() {
    let service = WorkerHarness::start(Model::Tiny);
    let scrape = scrape(&service);
    let builds: Vec<_> = scrape
        .iter()
        .filter(|(key, _)| key.starts_with("orcd_build_info"))
        .collect();
    let [(build, one)] = builds[..] else {
        panic!("{builds:?}")
    };
    assert_eq!(*one, 1.0);
    let version = service.health()["version"].as_str().unwrap().to_owned();
    let version = version.lines().next().unwrap();
    for label in [
        format!("version=\"{version}\""),
        format!("backend=\"{}\"", paths::device().split(':').next().unwrap()),
        "revision=\"".to_owned(),
    ] {
        assert!(build.contains(&label), "{label} is not in {build}");
    }
    let value = |name: &str| *scrape.get(name).unwrap_or_else(|| panic!("no {name}"));
    assert!(value("process_cpu_seconds_total") > 0.0);
    assert!(value("process_resident_memory_bytes") > 1e6);
    let open = value("process_open_fds");
    assert!(open >= 3.0 && open <= value("process_max_fds"), "{open}");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let age = now.unwrap().as_secs_f64() - value("process_start_time_seconds");
    assert!((0.0..600.0).contains(&age), "started {age} s ago");
}

#[test]
fn prompt_tokens_and_the_wait_in_the_queue_are_counted_once_a_job() {
    let service = Starter::new(Model::Slow).flag("--parallel", 1).start();
    let mut first = service.execute(&Job::lasting("a", 60));
    first.read_tokens(2);
    let second = service.execute(&Job::lasting("b", 2));
    // A replay is no second wait.
    service.kill_worker();
    let prompts = [first.finish(), second.finish()].map(|transcript| transcript.started().1);
    let after = scrape(&service);
    assert_eq!(
        total(&after, "orcd_prompt_tokens_total"),
        prompts.iter().sum::<u64>() as f64
    );
    assert_eq!(total(&after, "orcd_queue_wait_seconds_count"), 2.0);
    // The second waited for the first, which took a crash and 58 steps.
    assert!(total(&after, "orcd_queue_wait_seconds_sum") > 0.05);
}
