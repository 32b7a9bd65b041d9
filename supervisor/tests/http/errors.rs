//! Answers to requests that make no job.

use std::time::Duration;

use crate::played::Service;
use crate::support::{Client, Fixture, listen};

#[tokio::test]
async fn every_error_has_the_same_shape_and_a_correlation_id() {
    let service = Fixture::ready().await;
    for (request, status, code) in [
        ("GET /nowhere HTTP/1.1\r\n", 404, "INVALID_REQUEST"),
        ("GET /execute HTTP/1.1\r\n", 405, "INVALID_REQUEST"),
        ("DELETE /health HTTP/1.1\r\n", 405, "INVALID_REQUEST"),
        (
            "POST /execute HTTP/1.1\r\ncontent-length: 2\r\n",
            400,
            "INVALID_REQUEST",
        ),
        (
            "POST /cancel HTTP/1.1\r\ncontent-length: 2\r\n",
            400,
            "INVALID_REQUEST",
        ),
        ("GET /jobs/none/events HTTP/1.1\r\n", 404, "INVALID_REQUEST"),
        (
            "GET /jobs/a%20b/events HTTP/1.1\r\n",
            404,
            "INVALID_REQUEST",
        ),
        ("GET /jobs/%ff/events HTTP/1.1\r\n", 404, "INVALID_REQUEST"),
    ] {
        for (given, echoed) in [("abc-1", true), ("a b", false)] {
            let mut client = service.client().await;
            client
                .send(&format!(
                    "{request}host: localhost\r\nx-correlation-id: {given}\r\n\r\n{{}}"
                ))
                .await;
            let (head, body) = client.json().await;
            assert_eq!(head.status, status, "{request}");
            assert_eq!(head.header("content-type"), Some("application/json"));
            let error = &body["error"];
            assert_eq!(error["code"], code, "{request}");
            assert_eq!(error["retriable"], false);
            assert!(error["details"].is_array() && error["message"].is_string());
            let id = error["correlation_id"].as_str().unwrap();
            assert_eq!(head.header("x-correlation-id"), Some(id));
            assert_eq!(id == given, echoed, "{id}");
        }
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_gets_an_answer_that_can_be_read() {
    let service = Fixture::ready().await;
    let mut client = service.client().await;
    client.post("/execute", &" ".repeat(3 << 20)).await;
    let (head, body) = client.json().await;
    assert_eq!(
        (head.status, head.header("connection")),
        (413, Some("close"))
    );
    assert_eq!(body["error"]["code"], "INVALID_REQUEST");
    // One that asks first is not made to send.
    let mut client = service.client().await;
    client
        .send("POST /execute HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 9000000\r\n\r\n")
        .await;
    assert_eq!(client.head().await.status, 413);
}

#[tokio::test]
async fn long_prompts_and_known_names_are_refused() {
    let mut service = Fixture::ready().await;
    let mut client = service.client().await;
    let prompt = "s3cret ".repeat(100);
    client
        .post(
            "/execute",
            &format!(r#"{{"job_id":"j","prompt":"{prompt}"}}"#),
        )
        .await;
    let (head, body) = client.answer().await;
    assert_eq!(head.status, 400);
    assert!(body.contains("CONTEXT_LENGTH_EXCEEDED"), "{body}");
    assert!(
        body.contains("700 tokens") && body.contains("600"),
        "{body}"
    );
    assert!(!body.contains("s3cret"));
    let _running = service.running(r#"{"job_id":"j","prompt":"a"}"#).await;
    client
        .post("/execute", r#"{"job_id":"j","prompt":"a"}"#)
        .await;
    let (head, body) = client.json().await;
    assert_eq!(
        (head.status, &body["error"]["code"]),
        (409, &"JOB_EXISTS".into())
    );
}

#[tokio::test]
async fn a_full_queue_and_a_stopping_service_say_when_to_try_again() {
    let mut service = Fixture::ready_with(|settings| settings.queue = 1).await;
    let mut clients = Vec::new();
    for i in 0..2 {
        clients.push(
            service
                .running(&format!(r#"{{"job_id":"{i}","prompt":"a"}}"#))
                .await
                .0,
        );
    }
    let mut waiting = service.client().await;
    waiting
        .post("/execute", r#"{"job_id":"w","prompt":"a"}"#)
        .await;
    waiting.head().await;
    let mut client = service.client().await;
    client
        .post("/execute", r#"{"job_id":"x","prompt":"a"}"#)
        .await;
    let (head, body) = client.json().await;
    assert_eq!(
        (head.status, &body["error"]["code"]),
        (503, &"QUEUE_FULL".into())
    );
    assert!(head.header("retry-after").unwrap().parse::<u32>().unwrap() >= 1);
    assert_eq!(body["error"]["retriable"], true);
    client.post("/shutdown", "").await;
    assert_eq!(client.json().await.0.status, 202);
    assert!(service.draining.is_cancelled());
    // Whatever the body says: it is refused before that is looked at.
    client.post("/execute", "{").await;
    let (head, body) = client.json().await;
    assert_eq!(
        (head.status, &body["error"]["code"]),
        (503, &"DRAINING".into())
    );
    assert!(head.header("retry-after").is_some());
}

#[tokio::test]
async fn deadlines_in_the_past_are_refused_and_others_kept() {
    let mut service = Fixture::ready().await;
    let mut client = service.client().await;
    let body = r#"{"job_id":"j","prompt":"a"}"#;
    client
        .post_with("/execute", "x-deadline: 2001-01-01T00:00:00Z\r\n", body)
        .await;
    let (head, answer) = client.json().await;
    assert_eq!(
        (head.status, &answer["error"]["code"]),
        (504, &"INFERENCE_TIMEOUT".into())
    );
    let soon = jiff::Timestamp::now() + Duration::from_millis(300);
    client
        .post_with("/execute", &format!("x-deadline: {soon}\r\n"), body)
        .await;
    service.worker.submitted().await;
    client.head().await;
    client.event().await;
    assert!(
        client
            .event()
            .await
            .contains("\"code\":\"INFERENCE_TIMEOUT\"")
    );
}

#[tokio::test]
async fn jobs_before_the_service_is_ready_are_to_be_sent_again() {
    let (_app, address, _stop) = listen().await;
    let starting = Fixture::serve(Service::start(|_| {})).await;
    for address in [address, starting.address] {
        let mut client = Client::connect(address).await;
        client
            .post("/execute", r#"{"job_id":"j","prompt":"a"}"#)
            .await;
        let (head, body) = client.json().await;
        assert_eq!(
            (head.status, &body["error"]["code"]),
            (503, &"WORKER_UNAVAILABLE".into())
        );
        assert!(head.header("retry-after").is_some());
        client.post("/cancel", r#"{"job_id":"j"}"#).await;
        assert_eq!(client.json().await.1["status"], "unknown");
        client.get("/metrics", "").await;
        assert_eq!(client.answer().await.0.status, 200);
    }
}

#[tokio::test]
async fn a_body_that_nobody_wants_costs_no_connection_without_a_word() {
    let service = Fixture::ready().await;
    for (path, status) in [("/nowhere", 404), ("/health", 405)] {
        for length in [10, 20_000, 40_000, 60_000, 100_000] {
            let mut client = service.client().await;
            let head = format!(
                "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n"
            );
            // Apart, as many clients send them.
            client.send(&head).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            client.send(&" ".repeat(length)).await;
            let (head, _) = client.json().await;
            assert_eq!(head.status, status, "{length}");
            if head.header("connection") == Some("close") {
                assert!(length > 64 << 10, "{length}: a small one is passed over");
                continue;
            }
            client.get("/health/live", "").await;
            assert_eq!(client.json().await.0.status, 200, "{length}");
        }
    }
}

#[tokio::test]
async fn what_controls_the_service_does_not_wait_for_large_bodies() {
    const BODY: usize = 1 << 20;
    let mut service = Fixture::ready().await;
    let (_reader, _) = service.running(r#"{"job_id":"j","prompt":"a"}"#).await;
    // Bodies that lack their end, more and more of them until there is no memory for one that is whole.
    // Whoever waited longest is turned away, and that may be an unfinished one, which leaves room again;
    // and on a slow machine the first are given up before the last are there.
    let mut unfinished = Vec::new();
    for _ in 0..60 {
        unfinished.push(unfinished_body(&service, BODY).await);
    }
    let refused = async {
        loop {
            for _ in 0..4 {
                unfinished.push(unfinished_body(&service, BODY).await);
            }
            let mut client = service.client().await;
            client.post("/execute", &" ".repeat(BODY)).await;
            if client.head().await.status == 503 {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), refused)
        .await
        .unwrap();
    let mut client = service.client().await;
    client.post("/cancel", r#"{"job_id":"j"}"#).await;
    assert_eq!(client.json().await.1["status"], "cancelling");
    let mut client = service.client().await;
    client.post("/cancel", &" ".repeat(20_000)).await;
    assert_eq!(client.json().await.0.status, 413);
}

/// A request whose body lacks its last byte.
async fn unfinished_body(service: &Fixture, length: usize) -> Client {
    let mut client = service.client().await;
    let head = "POST /execute HTTP/1.1\r\nhost: localhost\r\n";
    client
        .send(&format!("{head}content-length: {length}\r\n\r\n"))
        .await;
    client.send(&" ".repeat(length - 1)).await;
    client
}

#[tokio::test]
async fn of_very_many_faults_some_are_named() {
    let service = Fixture::ready().await;
    let fields: Vec<_> = (0..50_000).map(|n| format!("\"x{n}\":1")).collect();
    let mut client = service.client().await;
    client
        .post("/execute", &format!("{{{}}}", fields.join(",")))
        .await;
    let (head, body) = client.json().await;
    assert_eq!(head.status, 400);
    let message = body["error"]["message"].as_str().unwrap();
    assert!(
        message.starts_with("more than 64 faults, in: "),
        "{message}"
    );
    assert_eq!(body["error"]["details"].as_array().unwrap().len(), 64);
    let mut client = service.client().await;
    client.post("/cancel", r#"{"job_id":null}"#).await;
    let message = client.json().await.1["error"]["message"].to_string();
    assert!(message.contains("job_id is null; give"), "{message}");
}
