//! HTTP at its edges: whatever one client does, the next request works.

use std::net::Shutdown;
use std::time::Duration;

use orcd_tests::http::{Connection, request_bytes};
use orcd_tests::sse::Parser;
use orcd_tests::stream::Stream;
use orcd_tests::{Job, Model, WorkerHarness, routes};

fn small() -> Job {
    Job::lasting("a", 5)
}

#[track_caller]
fn assert_works(service: &WorkerHarness, after: &str) {
    assert_eq!(service.run(&small()).end().tokens_out, 5, "after {after}");
}

#[test]
fn unknown_path_is_404_and_wrong_method_405_in_json() {
    let service = WorkerHarness::start(Model::Tiny);
    let routes = routes(&service.get("/openapi.json").json());
    let is_served = |method: &str, path: &str| {
        let on_path = routes.iter().filter(|route| route.path == path);
        on_path.map(|route| &route.method).any(|m| m == method)
    };
    let wrong = routes.iter().flat_map(|route| {
        let methods = ["GET", "POST", "PUT", "DELETE"].into_iter();
        let path = route.path.as_str();
        let wrong = methods.filter(move |method| !is_served(method, path));
        wrong.map(move |method| (method, path, 405))
    });
    let unknown = ["/nowhere", "/execute/x", "/jobs", "/jobs/x", "/health/x"];
    for (method, path, status) in wrong.chain(unknown.map(|path| ("GET", path, 404))) {
        let reply = service.request(method, path, &[], b"");
        let expected = (status, "INVALID_REQUEST".to_owned());
        assert_eq!(reply.refusal(), expected, "{method} {path}");
    }
    assert_works(&service, "wrong paths");
}

#[test]
fn body_over_1_mib_is_413() {
    let service = WorkerHarness::start(Model::Tiny);
    let mut body = small().body();
    body.resize((1 << 20) + 1, b' ');
    let mut connection = service.connect();
    // The server may answer and close before it took everything.
    let _ = connection.send(&request_bytes("POST", "/execute", &[], &body));
    let reply = connection.read_reply().unwrap();
    assert_eq!(reply.refusal(), (413, "INVALID_REQUEST".into()));
    assert_works(&service, "a large body");

    body.pop();
    let stream = service.request("POST", "/execute", &[], &body);
    assert_eq!(stream.status(), 200, "1 MiB is read");
}

#[test]
fn chunked_body_over_1_mib_is_413_too() {
    let service = WorkerHarness::start(Model::Tiny);
    let mut connection = service.connect();
    let head = "POST /execute HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    connection.send(head.as_bytes()).unwrap();
    let chunk = [b"10000\r\n".to_vec(), vec![b' '; 0x10000], b"\r\n".to_vec()].concat();
    for _ in 0..17 {
        if connection.send(&chunk).is_err() {
            break;
        }
    }
    let _ = connection.send(b"0\r\n\r\n");
    assert_eq!(connection.read_reply().unwrap().status(), 413);
    assert_works(&service, "a large body");
}

#[test]
fn trickled_request_works_and_blocks_nobody() {
    let service = WorkerHarness::start(Model::Tiny);
    let request = request_bytes("POST", "/execute", &[], &small().named("trickle").body());
    let mut connection = service.connect();
    for (sent, byte) in request.iter().enumerate() {
        connection.send(&[*byte]).unwrap();
        if sent % 40 == 0 {
            std::thread::sleep(Duration::from_millis(5));
            assert_eq!(service.get("/health").status(), 200);
        }
    }
    let begin = std::time::Instant::now();
    let stream = Stream::open(connection, begin, Parser::default()).unwrap();
    assert_eq!(stream.finish().end().tokens_out, 5);
}

#[test]
fn half_a_request_and_a_lost_connection_harm_nobody() {
    let service = WorkerHarness::start(Model::Tiny);
    let request = request_bytes("POST", "/execute", &[], &small().body());
    let idle = service.connect();
    for length in [1, 20, request.len() / 2, request.len() - 1] {
        let mut connection = service.connect();
        connection.send(&request[..length]).unwrap();
        drop(connection);
        assert_works(&service, "half a request");
    }
    drop(idle);
}

#[test]
fn malformed_json_is_400_and_the_next_request_works() {
    let service = WorkerHarness::start(Model::Tiny);
    for body in [
        "",
        "{",
        "[]",
        "null",
        "7",
        "\"x\"",
        "{\"job_id\":}",
        "{'job_id':'a'}",
        "{\"job_id\":\"a\",}",
        "{\"job_id\":\"a\",\"prompt\":\"x\",\"temperature\":NaN}",
        "{\"job_id\":\"a\",\"prompt\":\"x\"} trailing",
        "{\"job_id\":\"a\",\"job_id\":\"b\",\"prompt\":\"x\"}",
        "{\"job_id\":\"a\",\"prompt\":\"\\ud800\"}",
    ] {
        let reply = service.request("POST", "/execute", &[], body.as_bytes());
        assert_eq!(reply.refusal(), (400, "INVALID_REQUEST".into()), "{body:?}");
        assert_works(&service, body);
    }
    let nested = "[".repeat(100_000);
    let reply = service.request("POST", "/execute", &[], nested.as_bytes());
    assert_eq!(reply.status(), 400, "deep nesting");
    let reply = service.request(
        "POST",
        "/execute",
        &[],
        b"{\"job_id\":\"a\",\"prompt\":\"\xff\"}",
    );
    assert_eq!(reply.status(), 400, "no UTF-8");
    assert_works(&service, "malformed JSON");
}

#[test]
fn malformed_http_is_turned_away_and_the_next_request_works() {
    let service = WorkerHarness::start(Model::Tiny);
    for bytes in [
        &b"\r\n\r\n\r\n\r\nX\r\n\r\n"[..],
        b"GARBAGE\r\n\r\n",
        b"GET /health HTTP/9.9\r\n\r\n",
        b"GET /health\r\n\r\n",
        b"GET /health HTTP/1.1\r\nbad header\r\n\r\n",
        b"POST /execute HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /execute HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\xff\xfe\x00\x00\r\n\r\n",
    ] {
        let mut connection = service.connect();
        connection.send(bytes).unwrap();
        let reply = connection.read_reply().unwrap();
        assert_eq!(
            reply.refusal(),
            (400, "INVALID_REQUEST".into()),
            "{bytes:?}"
        );
        assert_works(&service, &String::from_utf8_lossy(bytes));
    }
    let mut connection = service.connect();
    let header = format!("GET /health HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    let _ = connection.send(header.as_bytes());
    let reply = connection.read_reply().unwrap();
    assert_eq!(reply.refusal(), (431, "INVALID_REQUEST".into()));
    assert_works(&service, "a huge header");
}

#[test]
fn client_that_closes_its_sending_half_gets_the_whole_answer() {
    let service = WorkerHarness::start(Model::Slow);
    let job = Job::lasting("a", 60);
    let expected = service.run(&job);
    let mut connection = service.connect();
    let begin = std::time::Instant::now();
    connection
        .send(&request_bytes("POST", "/execute", &[], &job.body()))
        .unwrap();
    connection.socket().shutdown(Shutdown::Write).unwrap();
    let stream = Stream::open(connection, begin, Parser::default()).unwrap();
    let found = stream.finish();
    assert_eq!(found.token_bytes(), expected.token_bytes());
    assert_eq!(found.end().tokens_out, 60);
}

#[test]
fn one_connection_serves_many_requests() {
    let service = WorkerHarness::start(Model::Tiny);
    let mut connection = service.connect();
    for _ in 0..20 {
        assert_eq!(connection.request("GET", "/health", &[], b"").status(), 200);
        assert_eq!(
            connection.request("POST", "/execute", &[], b"{}").status(),
            400
        );
    }
    let two = [
        request_bytes("GET", "/health/live", &[], b""),
        request_bytes("GET", "/x", &[], b""),
    ];
    connection.send(&two.concat()).unwrap();
    assert_eq!(connection.read_reply().unwrap().status(), 200);
    assert_eq!(connection.read_reply().unwrap().status(), 404);
}

#[test]
fn many_connections_at_once_are_served() {
    let service = WorkerHarness::start(Model::Tiny);
    let mut open: Vec<Connection> = (0..200).map(|_| service.connect()).collect();
    assert_works(&service, "200 idle connections");
    for connection in &mut open {
        assert_eq!(
            connection.request("GET", "/health/live", &[], b"").status(),
            200
        );
    }
}
