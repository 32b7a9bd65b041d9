//! The page at `/` on real processes, and the demonstration that kills the worker.

use std::net::TcpListener;
use std::time::Duration;

use orcd_tests::{Job, Model, Starter, WorkerHarness};

const SOON: Duration = Duration::from_secs(60);

/// What the page of this start sends to kill the worker.
fn page_headers(service: &WorkerHarness) -> [(&'static str, String); 2] {
    let page = service.get("/");
    let (_, rest) = page
        .text()
        .split_once("<meta name=\"demo-token\" content=\"")
        .expect("a page with a token");
    let token = rest.split('"').next().unwrap();
    [
        // As the name in the requests of these tests.
        ("Origin", "http://localhost".to_owned()),
        ("X-Demo-Token", token.to_owned()),
    ]
}

#[test]
fn the_log_says_where_the_page_is() {
    let service = WorkerHarness::start(Model::Tiny);
    let address = service.address();
    service.wait_for_log(&format!("the page is at http://{address}/"));
    let page = service.get("/");
    assert_eq!(page.status(), 200);
    assert!(page.text().starts_with("<!doctype html>"));
    assert_eq!(
        service.post("/demo/kill", &serde_json::json!({})).status(),
        404
    );
}

#[test]
fn a_kill_from_the_page_changes_no_byte() {
    let service = Starter::new(Model::Slow).arg("--demo").start();
    let job = Job::lasting("a", 60).set("seed", 7);
    let expected = service.run(&job);
    let headers = page_headers(&service);
    let headers = headers
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let mut stream = service.execute(&Job::lasting("b", 60).set("seed", 7));
    stream.read_tokens(5);
    let reply = service.request("POST", "/demo/kill", &headers, b"");
    assert_eq!(reply.status(), 202, "{}", reply.text());
    assert_eq!(reply.json()["jobs"], 1);
    let found = stream.finish();
    assert_eq!(found.end().replays, 1);
    assert_eq!(found.text(), expected.text());
    let health = service.wait_for_health(SOON, |h| h["status"] == "healthy");
    assert_eq!(health["worker"]["restarts"], 1);
}

#[test]
fn demo_is_refused_beyond_this_machine() {
    let assert_refused = |starter: Starter| {
        let exit = starter.run_to_exit(SOON);
        let line = exit.error_line(2);
        for part in ["error: USAGE: ", "--demo", "127.0.0.1"] {
            assert!(line.contains(part), "{line}");
        }
        assert_eq!(exit.stdout, "", "READY was said");
    };
    let demo = || {
        Starter::new(Model::Tiny)
            .env("ORCD_DEMO", "true")
            .arg("--insecure-no-auth")
    };
    assert_refused(demo().flag("--host", "0.0.0.0"));
    let socket = TcpListener::bind("0.0.0.0:0").unwrap();
    assert_refused(demo().pass("http", socket));
}
