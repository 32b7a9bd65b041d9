//! Correlation ids, and what never stands in a log.

use orcd_tests::{Job, Model, Starter, WorkerHarness, routes};

fn is_uuid_v4(id: &str) -> bool {
    let parts: Vec<_> = id.split('-').collect();
    parts.iter().map(|p| p.len()).eq([8, 4, 4, 4, 12])
        && id.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit())
        && parts[2].starts_with('4')
        && parts[3].starts_with(['8', '9', 'a', 'b'])
}

#[test]
fn given_correlation_id_comes_back_everywhere() {
    let service = WorkerHarness::start(Model::Tiny);
    let longest = "x".repeat(64);
    let routes = routes(&service.get("/openapi.json").json());
    // Bodies that none of them takes: nothing begins, and nothing ends.
    let routes = routes
        .iter()
        .map(|r| (r.method.as_str(), r.path.as_str(), "no json"));
    for id in ["a", "Trace-0190b2a4", &longest] {
        let headers = [("X-Correlation-Id", id)];
        for (method, path, body) in routes.clone().chain([
            ("GET", "/nowhere", ""),
            ("POST", "/cancel", r#"{"job_id":"x"}"#),
            ("POST", "/execute", "{}"),
        ]) {
            let reply = service.request(method, path, &headers, body.as_bytes());
            assert_eq!(
                reply.header("x-correlation-id"),
                Some(id),
                "{method} {path}"
            );
            // OpenAI's form has no place for it.
            if reply.status() >= 400 && !path.starts_with("/v1/") {
                assert_eq!(reply.error()["correlation_id"], id);
            }
        }
        let job = Job::new("a", "x").set("max_tokens", 2);
        let stream = service.try_execute(&job, &headers).unwrap();
        assert_eq!(stream.head().header("x-correlation-id"), Some(id));
        stream.finish();
        service.wait_for_log(id);
    }
}

#[test]
fn missing_or_bad_correlation_id_becomes_a_fresh_uuid() {
    let service = WorkerHarness::start(Model::Tiny);
    let too_long = "x".repeat(65);
    let mut seen = Vec::new();
    for value in [
        None,
        None,
        Some(""),
        Some("two words"),
        Some("a_b"),
        Some(too_long.as_str()),
    ] {
        let headers: Vec<_> = value.iter().map(|v| ("X-Correlation-Id", *v)).collect();
        let reply = service.request("POST", "/execute", &headers, b"{}");
        let id = reply.error()["correlation_id"].as_str().unwrap().to_owned();
        assert!(is_uuid_v4(&id), "{value:?} became {id}");
        assert!(!seen.contains(&id), "{id} twice");
        seen.push(id);
    }
}

#[test]
fn prompts_and_outputs_are_never_logged() {
    let starter = Starter::new(Model::Tiny)
        .env("RUST_LOG", "trace")
        .env("ORCD_LOG", "trace");
    let service = starter.start();
    let secret = "swordfish-4711";
    let job = Job::new("a", secret).set("max_tokens", 20).set("seed", 1);
    let output = service.run(&job).text();
    service.run(&Job::chat("b", &[("user", secret)]).set("max_tokens", 2));
    let refused = service.refusal(
        &job.clone()
            .set("temperature", 9)
            .set("stop", vec![secret; 5]),
    );
    assert!(!refused.text().contains(secret), "{}", refused.text());
    let misplaced = service.refusal(
        &job.clone()
            .set("max_tokens", secret)
            .set("on_disconnect", secret),
    );
    assert!(!misplaced.text().contains(secret), "{}", misplaced.text());
    let cut = [b"{\"job_id\":\"a\",\"prompt\":\"", secret.as_bytes()].concat();
    let malformed = service.request("POST", "/execute", &[], &cut);
    assert!(!malformed.text().contains(secret), "{}", malformed.text());
    service.kill_worker();
    service.run(&job);
    service.wait_for_log("worker ended");
    let log = service.stderr();
    assert!(!log.contains(secret), "the prompt is in the log:\n{log}");
    assert!(
        output.chars().count() > 15 && !log.contains(&output),
        "the output is in the log"
    );
}
