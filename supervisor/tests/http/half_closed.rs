//! A client that closes its sending half has sent all it had, and reads on.

use std::time::Duration;

use crate::support::Fixture;

/// Longer than it takes to notice a client that left.
const A_WHILE: Duration = Duration::from_millis(300);
/// Before the comments that come anyway.
const ASKED_WITHIN: Duration = Duration::from_secs(2);

#[tokio::test]
async fn it_gets_its_whole_stream() {
    let mut service = Fixture::ready().await;
    let (mut client, key) = service.running(r#"{"job_id":"j","prompt":"a"}"#).await;
    client.close_sending_half().await;
    // It is asked whether it reads, and nothing else happens to its job.
    let question = tokio::time::timeout(ASKED_WITHIN, client.event()).await;
    assert_eq!(question.unwrap(), ":\n\n");
    tokio::time::sleep(A_WHILE).await;
    assert!(service.worker.pending_calls().is_empty());
    service.worker.tokens(key, 0, "hi").await;
    for id in [1, 2] {
        let token = client.event_after_comments().await;
        assert!(
            token.starts_with(&format!("event: token\nid: {id}\n")),
            "{token}"
        );
    }
    service.worker.eos(key, 2).await;
    let end = client.event_after_comments().await;
    assert!(end.starts_with("event: end\n"), "{end}");
    assert_eq!(client.event_after_comments().await, "");
    assert!(client.is_cut().await, "nobody can send another request");
}

#[tokio::test]
async fn it_may_be_closed_before_the_answer_begins() {
    let mut service = Fixture::ready().await;
    let mut first = service.client().await;
    first
        .post("/execute", r#"{"job_id":"j","prompt":"a"}"#)
        .await;
    first.close_sending_half().await;
    let key = service.worker.submitted().await.key;
    assert_eq!(first.head().await.status, 200);
    let started = first.event_after_comments().await;
    assert!(started.starts_with("event: started\n"), "{started}");
    service.worker.eos(key, 0).await;
    let end = first.event_after_comments().await;
    assert!(end.starts_with("event: end\n"), "{end}");
}

#[tokio::test]
async fn answers_that_are_no_streams_are_written_as_ever() {
    let service = Fixture::ready().await;
    for (request, status) in [
        ("GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n", 200),
        ("GET /health HTTP/1.0\r\n\r\n", 200),
        (
            "POST /execute HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n{}",
            400,
        ),
        // The promised body does not come.
        (
            "POST /execute HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{}",
            400,
        ),
    ] {
        let mut client = service.client().await;
        client.send(request).await;
        client.close_sending_half().await;
        assert_eq!(client.json().await.0.status, status, "{request}");
        assert!(client.is_cut().await);
    }
}
