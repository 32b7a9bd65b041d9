//! What deploy/ has names what the service has: settings, metrics, codes, probes. That the files are well-formed is
//! `make manifests`.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use orcd_tests::{Job, Model, Starter, WorkerHarness, paths, report};
use regex::Regex;

const AT_ONCE: Duration = Duration::from_secs(60);

/// A file of deploy/; `None`, and that it is SKIPPED, where the tests run apart from the repository.
fn file(name: &str) -> Option<String> {
    let folder = paths::repository().join("deploy");
    if !folder.is_dir() {
        report::skipped(&format!("{} is not here", folder.display()));
        return None;
    }
    Some(std::fs::read_to_string(folder.join(Path::new(name))).unwrap())
}

fn all(pattern: &str, text: &str) -> BTreeSet<String> {
    let found = Regex::new(pattern).unwrap();
    let found = found.captures_iter(text);
    found.map(|captures| captures[1].to_owned()).collect()
}

/// The variables of all flags.
fn settings() -> BTreeSet<String> {
    let help = Starter::bare().arg("--help").run_to_exit(AT_ONCE).stdout;
    all(r"\[env: (ORCD_\w+)", &help)
}

#[test]
fn the_sample_has_each_setting_and_no_other() {
    let Some(sample) = file("worker-orcd.env") else {
        return;
    };
    let named = all(r"(?m)^#?(ORCD_\w+)=", &sample);
    assert!(named.len() > 30, "{named:?}");
    assert_eq!(named, settings());
    // As it is, it sets the model alone.
    let set = all(r"(?m)^(\w+)=", &sample);
    assert_eq!(set, BTreeSet::from(["ORCD_MODEL".to_owned()]));
}

#[test]
fn pods_are_given_settings_that_there_are() {
    let Some(variables) = file("kubernetes/worker-orcd.env") else {
        return;
    };
    let deployment = file("kubernetes/deployment.yaml").unwrap();
    let named = &all(r"(?m)^(ORCD_\w+)=", &variables) | &all(r"name: (ORCD_\w+)", &deployment);
    assert!(named.len() > 5, "{named:?}");
    let settings = settings();
    let unknown: Vec<_> = named.difference(&settings).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn probes_ask_where_the_service_answers() {
    let Some(deployment) = file("kubernetes/deployment.yaml") else {
        return;
    };
    let service = WorkerHarness::start(Model::Tiny);
    let probed = all(r"httpGet: \{path: ([^,]+),", &deployment);
    assert_eq!(probed.len(), 2, "{probed:?}");
    for path in probed {
        assert_eq!(service.get(&path).status(), 200, "{path}");
    }
}

/// Names of metrics that are asked for in `text`.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let names = all(
        r"\b((?:orcd_|vllm:|process_)\w+)(?:\{|\[| |\)|$)",
        &text.replace('\n', " "),
    );
    names.into_iter().collect()
}

#[test]
fn alerts_dashboard_and_endpoint_pickers_ask_for_metrics_that_there_are() {
    let Some(alerts) = file("prometheus/alerts.yaml") else {
        return;
    };
    let dashboard = file("grafana/worker-orcd.json").unwrap();
    let pool = file("kubernetes/inference-gateway/inference-pool.yaml").unwrap();
    let service = WorkerHarness::start(Model::Tiny);
    // Labeled counters are there from their first count.
    service.kill_worker();
    service.run(&Job::lasting("a", 3));
    assert_eq!(service.get("/nowhere").status(), 404);
    let reply = service.get("/metrics");
    let text = reply.text();
    let described = all(r"(?m)^# TYPE (\S+) ", text);
    let is_there = |name: &String| {
        let base = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| name.strip_suffix(end));
        described.contains(name) || base.is_some_and(|base| described.contains(base))
    };
    let expressions = all(r"(?m)^ +expr: (.*)$", &alerts);
    let long = all(r"(?s)expr: \|\n(.*?)\n +labels:", &alerts);
    let queries = all(r#""expr": "(.*)","#, &dashboard);
    let picked = all(r"(vllm:\w+)", &pool);
    for (what, asked, least) in [
        ("alerts", join(&expressions) + &join(&long), 10),
        ("dashboard", join(&queries), 20),
        ("pool", join(&picked) + " ", 4),
    ] {
        let named = metrics_in(&asked);
        assert!(named.len() >= least, "{what}: {named:?}");
        let absent: Vec<_> = named.iter().filter(|name| !is_there(name)).collect();
        assert!(absent.is_empty(), "{what}: {absent:?} of {described:?}");
    }
}

fn join(texts: &BTreeSet<String>) -> String {
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    texts.join(" ") + " "
}

#[test]
fn codes_that_alerts_look_for_are_codes() {
    let Some(alerts) = file("prometheus/alerts.yaml") else {
        return;
    };
    let lists = all(r#"(?:outcome|code)=~?"([A-Z_|]+)""#, &alerts);
    let codes: BTreeSet<_> = lists.iter().flat_map(|list| list.split('|')).collect();
    assert!(codes.len() > 4, "{codes:?}");
    for code in codes {
        let parsed = serde_json::from_str::<orcd_shared::error::ErrorCode>(&format!("\"{code}\""));
        assert!(parsed.is_ok(), "{code}");
    }
}
