//! Jobs as event streams.

use serde_json::Value;

use crate::support::{Client, Fixture};

fn data(event: &str) -> Value {
    let line = event
        .lines()
        .find_map(|l| l.strip_prefix("data: "))
        .unwrap();
    serde_json::from_str(line).unwrap()
}

#[tokio::test]
async fn a_job_streams_from_started_to_end_one_chunk_an_event() {
    let mut service = Fixture::ready().await;
    let mut client = service.client().await;
    client
        .post(
            "/execute",
            r#"{"job_id":"j","prompt":"ab","seed":7,"temperature":0}"#,
        )
        .await;
    let spec = service.worker.submitted().await;
    assert_eq!(spec.prompt, [u32::from(b'a'), u32::from(b'b')]);
    assert_eq!((spec.sampling.seed, spec.sampling.temperature), (7, 0.0));
    let head = client.head().await;
    assert_eq!(head.status, 200);
    for (name, value) in [
        ("content-type", "text/event-stream; charset=utf-8"),
        ("cache-control", "no-store"),
        ("x-accel-buffering", "no"),
    ] {
        assert_eq!(head.header(name), Some(value));
    }
    assert!(head.header("x-correlation-id").is_some());
    let started = client.event().await;
    assert!(started.starts_with("event: started\nid: 0\ndata: {\"type\":\"started\","));
    let started = data(&started);
    assert_eq!(
        (&started["job_id"], &started["model"]),
        (&"j".into(), &"bytes".into())
    );
    assert_eq!(
        (&started["seed"], &started["prompt_tokens"]),
        (&7.into(), &2.into())
    );
    // Each token arrives before the next is made.
    for (index, byte) in (0u32..).zip(b"hi!") {
        service
            .worker
            .token(spec.key, index, (*byte).into(), None)
            .await;
        let text = char::from(*byte);
        let id = index + 1;
        let expected = format!(
            "event: token\nid: {id}\ndata: {{\"type\":\"token\",\"t\":\"{text}\",\"i\":{index},\"id\":{byte}}}\n\n"
        );
        assert_eq!(client.event().await, expected);
    }
    service.worker.eos(spec.key, 3).await;
    let end = client.event().await;
    assert!(end.starts_with("event: end\nid: 4\n"), "{end}");
    let end = data(&end);
    assert_eq!(
        (&end["tokens_out"], &end["stop_reason"]),
        (&3.into(), &"EOS".into())
    );
    assert!(end.get("stop_sequence").is_none() && end["engine_time_us"].is_u64());
    assert_eq!(client.event().await, "");
}

#[tokio::test]
async fn a_waiting_job_has_its_head_and_a_comment_at_once() {
    let mut service = Fixture::ready().await;
    let one = service.running(r#"{"job_id":"1","prompt":"a"}"#).await;
    let two = service.running(r#"{"job_id":"2","prompt":"a"}"#).await;
    let mut waiting = service.client().await;
    waiting
        .post("/execute", r#"{"job_id":"3","prompt":"a"}"#)
        .await;
    assert_eq!(waiting.head().await.status, 200);
    assert_eq!(waiting.event().await, ": queued\n\n");
    service.worker.eos(one.1, 0).await;
    assert_ne!(service.worker.submitted().await.key, two.1);
    assert!(waiting.event().await.starts_with("event: started\nid: 0\n"));
}

#[tokio::test]
async fn a_seed_is_made_up_that_doubles_can_hold() {
    let mut service = Fixture::ready().await;
    let mut client = service.client().await;
    client
        .post("/execute", r#"{"job_id":"j","prompt":"ab"}"#)
        .await;
    let spec = service.worker.submitted().await;
    client.head().await;
    assert_eq!(data(&client.event().await)["seed"], spec.sampling.seed);
    assert!(spec.sampling.seed < 1 << 53);
}

#[tokio::test]
async fn cancelling_ends_the_stream_and_may_be_repeated() {
    let mut service = Fixture::ready().await;
    let (mut client, key) = service.running(r#"{"job_id":"j","prompt":"a"}"#).await;
    let mut other = service.client().await;
    for (expected, again) in [("cancelling", false), ("unknown", true)] {
        other.post("/cancel", r#"{"job_id":"j"}"#).await;
        let (head, body) = other.json().await;
        assert_eq!((head.status, &body["status"]), (202, &expected.into()));
        assert_eq!(body["job_id"], "j");
        if !again {
            assert_eq!(service.worker.told_to_cancel().await, key);
            let error = client.event().await;
            assert!(error.starts_with("event: error\nid: 1\n"), "{error}");
            assert_eq!(data(&error)["code"], "CANCELLED");
            assert_eq!(data(&error)["retriable"], true);
            assert_eq!(client.event().await, "");
        }
    }
}

#[tokio::test]
async fn a_reader_comes_back_after_the_last_event_it_has() {
    let mut service = Fixture::ready().await;
    let (mut client, key) = service.continuing().await;
    service.worker.tokens(key, 0, "xy").await;
    let first = client.event().await;
    let second = client.event().await;
    drop(client);
    let mut again = service.client().await;
    again.get("/jobs/j/events", "last-event-id: 0\r\n").await;
    assert_eq!(again.head().await.status, 200);
    assert_eq!(
        (again.event().await, again.event().await),
        (first.clone(), second.clone())
    );
    // Another reader begins where it wants to; both see the end.
    let mut whole = service.client().await;
    whole.get("/jobs/j/events", "").await;
    whole.head().await;
    assert!(whole.event().await.starts_with("event: started\nid: 0\n"));
    assert_eq!((whole.event().await, whole.event().await), (first, second));
    service.worker.eos(key, 2).await;
    for reader in [&mut again, &mut whole] {
        assert!(reader.event().await.starts_with("event: end\nid: 3\n"));
        assert_eq!(reader.event().await, "");
    }
}

/// Asks for the events after `seen`.
async fn ask(service: &Fixture, seen: &str) -> Client {
    let mut client = service.client().await;
    let header = format!("last-event-id: {seen}\r\n");
    client.get("/jobs/j/events", &header).await;
    client
}

#[tokio::test]
async fn after_the_last_event_there_is_no_content_and_beyond_it_an_error() {
    let mut service = Fixture::ready().await;
    let (client, key) = service.continuing().await;
    drop(client);
    let (head, body) = ask(&service, "2").await.json().await;
    assert_eq!(head.status, 400, "{body}");
    assert_eq!(body["error"]["details"][0]["field"], "Last-Event-ID");
    let message = body["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("is 2") && message.contains("1 events"),
        "{message}"
    );
    let mut waits = ask(&service, "0").await;
    assert_eq!(waits.head().await.status, 200);
    service.worker.tokens(key, 0, "x").await;
    assert!(waits.event().await.starts_with("event: token\nid: 1\n"));
    service.worker.eos(key, 1).await;
    assert!(waits.event().await.starts_with("event: end\nid: 2\n"));
    assert_eq!(ask(&service, "2").await.answer().await.0.status, 204);
    for beyond in ["3", "17", "18446744073709551615"] {
        assert_eq!(ask(&service, beyond).await.json().await.0.status, 400);
    }
}

#[tokio::test]
async fn readers_past_the_bound_are_told_to_come_back() {
    let mut service = Fixture::ready_with(|s| s.bounds.readers_per_job = 1).await;
    let (mut client, key) = service.continuing().await;
    let mut other = service.client().await;
    other.get("/jobs/j/events", "").await;
    let (head, body) = other.json().await;
    assert_eq!(
        (head.status, &body["error"]["code"]),
        (503, &"QUEUE_FULL".into())
    );
    assert!(head.header("retry-after").is_some());
    service.worker.eos(key, 0).await;
    assert!(client.event().await.starts_with("event: end\n"));
}

#[tokio::test]
async fn head_takes_no_stream_away() {
    let mut service = Fixture::ready().await;
    let (mut client, key) = service.continuing().await;
    let mut other = service.client().await;
    other
        .send("HEAD /jobs/j/events HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await;
    assert_eq!(other.head().await.status, 200);
    service.worker.eos(key, 0).await;
    assert!(client.event().await.starts_with("event: end\n"));
}
