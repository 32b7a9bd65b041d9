//! Who may ask: programs of this machine, whoever has a key, and the web pages that were allowed.

use std::net::TcpListener;
use std::time::Duration;

use orcd_tests::proc::wait_until;
use orcd_tests::{Job, Model, Starter, WorkerHarness, routes};

const SOON: Duration = Duration::from_secs(30);

/// Sends a request whose only fields are `fields`, a line each; its status and error code.
#[track_caller]
fn ask(service: &WorkerHarness, method: &str, path: &str, fields: &str) -> (u16, String) {
    let mut connection = service.connect();
    let fields = fields.replace('\n', "\r\n");
    let request = format!("{method} {path} HTTP/1.1\r\n{fields}\r\n\r\n");
    connection.send(request.as_bytes()).unwrap();
    let reply = connection.read_reply().unwrap();
    match reply.status() {
        200..300 => (reply.status(), String::new()),
        _ => reply.refusal(),
    }
}

#[test]
fn web_pages_from_elsewhere_and_foreign_names_are_refused_on_every_route() {
    let service = WorkerHarness::start(Model::Tiny);
    let routes = routes(&service.get("/openapi.json").json());
    let routes = routes.iter().map(|r| (r.method.as_str(), r.path.as_str()));
    for (method, path) in routes.chain([("GET", "/nowhere"), ("OPTIONS", "/execute")]) {
        for fields in [
            "Host: localhost\nOrigin: http://example.org",
            "Host: localhost\nOrigin: null",
            "Host: example.org",
        ] {
            let found = ask(&service, method, path, fields);
            assert_eq!(
                found,
                (403, "FORBIDDEN_ORIGIN".into()),
                "{method} {path} {fields}"
            );
        }
    }
    assert_eq!(
        ask(&service, "GET", "/health", "").0,
        400,
        "HTTP/1.1 demands a Host"
    );
    assert_eq!(service.run(&Job::lasting("a", 2)).end().tokens_out, 2);
}

#[test]
fn allowed_pages_and_names_are_served_and_may_read_the_answer() {
    let service = Starter::new(Model::Tiny)
        .flag("--allow-origin", "https://app.example")
        .env("ORCD_ALLOW_HOST", "gpu.example,other.example:8080")
        .start();
    assert_eq!(
        ask(&service, "GET", "/health", "Host: gpu.example:1").0,
        200
    );
    assert_eq!(
        ask(&service, "GET", "/health", "Host: other.example:8080").0,
        200
    );
    assert_eq!(
        ask(&service, "GET", "/health", "Host: other.example").0,
        403
    );

    let origin = ("Origin", "https://app.example");
    let preflight = [
        origin,
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "content-type,x-deadline"),
        ("Access-Control-Request-Private-Network", "true"),
    ];
    let reply = service.request("OPTIONS", "/execute", &preflight, b"");
    assert_eq!(reply.status(), 204);
    for (name, value) in [
        ("access-control-allow-origin", "https://app.example"),
        ("access-control-allow-methods", "GET, HEAD, POST"),
        ("access-control-allow-headers", "content-type,x-deadline"),
        ("access-control-allow-private-network", "true"),
    ] {
        assert_eq!(reply.header(name), Some(value));
    }
    let body = Job::lasting("a", 2).body();
    for (path, status) in [("/execute", 200), ("/cancel", 400)] {
        let reply = service.request("POST", path, &[origin], &body);
        assert_eq!(reply.status(), status, "{}", reply.text());
        let exposed = reply.header("access-control-expose-headers").unwrap();
        assert!(exposed.contains("X-Correlation-Id"));
        assert_eq!(reply.header("access-control-allow-origin"), Some(origin.1));
        assert_eq!(reply.header("vary"), Some("Origin"));
    }
    let without = service.get("/health");
    assert_eq!(without.header("access-control-allow-origin"), None);
}

#[test]
fn keys_follow_their_file_and_only_an_admin_s_ends_the_service() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys");
    std::fs::write(&file, "first\n").unwrap();
    let service = Starter::new(Model::Tiny)
        .flag("--api-key-file", file.display())
        .env("ORCD_ADMIN_KEY", "boss")
        .start();
    let ask = |key: &str, method: &str, path: &str| {
        let bearer = format!("Bearer {key}");
        let reply = service.request(method, path, &[("Authorization", &bearer)], b"");
        reply.status()
    };
    assert_eq!(ask("first", "GET", "/v1/models"), 200);
    assert_eq!(ask("second", "GET", "/v1/models"), 401);
    std::fs::write(&file, "# another\nsecond\n").unwrap();
    assert!(
        wait_until(SOON, || ask("second", "GET", "/v1/models") == 200),
        "the file was not read again"
    );
    assert_eq!(ask("first", "GET", "/v1/models"), 401);
    assert_eq!(ask("second", "POST", "/shutdown"), 401);
    assert_eq!(ask("boss", "GET", "/v1/models"), 200);
    assert_eq!(ask("boss", "POST", "/shutdown"), 202);
}

#[test]
fn a_job_is_its_key_s_own() {
    let service = Starter::new(Model::Slow)
        .env("ORCD_API_KEY", "first-key,second-key")
        .start();
    let job = Job::lasting("a", 400).set("on_disconnect", "continue");
    let ask = |key: &str, method: &str, path: &str, body: &[u8]| {
        let bearer = format!("Bearer {key}");
        service.request(method, path, &[("Authorization", &bearer)], body)
    };
    let start = |key: &str| {
        let bearer = format!("Bearer {key}");
        let mut stream = service
            .try_execute(&job, &[("Authorization", &bearer)])
            .unwrap();
        assert!(stream.try_read().unwrap());
        stream
    };
    let mine = start("first-key");
    let cancel = |key| {
        let reply = ask(key, "POST", "/cancel", br#"{"job_id":"a"}"#);
        reply.json()["status"].as_str().unwrap().to_owned()
    };
    let events = |key| ask(key, "GET", "/jobs/a/events", b"").status();
    assert_eq!(
        (cancel("second-key").as_str(), events("second-key")),
        ("unknown", 404)
    );
    // Another's job may have the same name.
    let other = start("second-key");
    assert_eq!(cancel("second-key"), "cancelling");
    assert_eq!(events("second-key"), 200);
    drop(other);
    service.wait_for_health(Duration::from_secs(20), |h| h["jobs"]["running"] == 1);
    assert_eq!(cancel("first-key"), "cancelling");
    assert_eq!(events("first-key"), 200);
    drop(mine);
}

#[test]
fn keys_open_the_service_and_are_shown_nowhere() {
    const FIRST: &str = "first-s3cret-key";
    const SECOND: &str = "second-s3cret-key";
    let service = Starter::new(Model::Tiny)
        .env("ORCD_API_KEY", &format!("{FIRST},{SECOND}"))
        .env("ORCD_ADMIN_KEY", "admin-s3cret-key")
        .start();
    let body = Job::lasting("a", 2).body();
    let bearer = format!("Bearer {FIRST}");
    let document = service.request("GET", "/openapi.json", &[("Authorization", &bearer)], b"");
    let (closed, open): (Vec<_>, Vec<_>) =
        (routes(&document.json()).into_iter()).partition(|route| route.needs_key);
    assert!(closed.iter().any(|route| route.path == "/openapi.json"));
    for wrong in [None, Some("Bearer nonsense"), Some("Basic Zmlyc3Q=")] {
        let headers: Vec<_> = wrong
            .map(|value| ("Authorization", value))
            .into_iter()
            .collect();
        let closed = closed.iter().map(|r| (r.method.as_str(), r.path.as_str()));
        for (method, path) in closed.chain([("POST", "/nowhere")]) {
            let reply = service.request(method, path, &headers, &body);
            assert_eq!(
                reply.refusal(),
                (401, "UNAUTHORIZED".into()),
                "{method} {path} {wrong:?}"
            );
            assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
        }
    }
    for key in [FIRST, SECOND] {
        let bearer = format!("Bearer {key}");
        let reply = service.request("POST", "/execute", &[("Authorization", &bearer)], &body);
        assert_eq!(reply.status(), 200);
        assert!(reply.text().contains("event: end"));
    }
    for route in &open {
        let reply = service.request(&route.method, &route.path, &[], b"");
        assert_eq!(reply.status(), 200, "{route:?}");
    }
    let without = ["/", "/health", "/health/live", "/health/ready", "/metrics"];
    assert!(open.iter().map(|route| route.path.as_str()).eq(without));
    let environment = format!("/proc/{}/environ", service.worker().pid);
    let environment = std::fs::read_to_string(environment).unwrap();
    assert!(!environment.contains("s3cret"), "the worker has the keys");
    assert!(!service.stderr().contains("s3cret"), "the log has the keys");
    let help = Starter::bare().env("ORCD_API_KEY", FIRST).arg("--help");
    let help = help.run_to_exit(SOON);
    assert!(help.stdout.contains("--api-key") && !help.stdout.contains("s3cret"));
}

#[test]
fn listening_beyond_this_machine_needs_a_key_or_a_decision() {
    let assert_refused = |starter: Starter, address: &str| {
        let exit = starter.run_to_exit(SOON);
        let line = exit.error_line(2);
        for part in [
            "error: USAGE: ",
            address,
            "--api-key-file",
            "--insecure-no-auth",
        ] {
            assert!(line.contains(part), "{line}");
        }
        assert_eq!(exit.stdout, "", "READY was said");
    };
    let beyond = Starter::new(Model::Tiny).flag("--host", "0.0.0.0");
    assert_refused(beyond, "0.0.0.0");
    // Not yet listening: nobody gets in.
    let socket = TcpListener::bind("0.0.0.0:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    assert_refused(Starter::new(Model::Tiny).pass("http", socket), &address);
}
