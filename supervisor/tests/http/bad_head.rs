//! What can't be read as a request is answered in the usual form too.

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use crate::support::{Client, Fixture, Head};

/// Sends `bytes` and reads the error that must come back.
async fn error(client: &mut Client, bytes: &[u8]) -> (Head, Value) {
    // The service may have stopped reading before it has all.
    let _ = client.socket.write_all(bytes).await;
    let (head, body) = client.json().await;
    let error = &body["error"];
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned();
    assert_eq!(error["code"], "INVALID_REQUEST", "{shown}");
    assert_eq!(error["retriable"], false, "{shown}");
    assert_eq!(error["details"], Value::Array(Vec::new()), "{shown}");
    assert!(!error["message"].as_str().unwrap().is_empty(), "{shown}");
    let id = error["correlation_id"].as_str().unwrap();
    assert_eq!(head.header("x-correlation-id"), Some(id), "{shown}");
    assert_eq!(head.header("content-type"), Some("application/json"));
    (head, body)
}

#[tokio::test]
async fn heads_that_can_not_be_read_have_an_error_with_a_body() {
    let service = Fixture::ready().await;
    let long = |n: usize| "x".repeat(n);
    let large = format!(
        "GET /health HTTP/1.1\r\nhost: localhost\r\nx: {}",
        long(3 << 20)
    );
    let path = format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", long(66_000));
    for (bytes, status) in [
        (&b"GARBAGE\r\n\r\n"[..], 400),
        (b"GET /health\r\n\r\n", 400),
        (b"GET /health HTTP/9.9\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET /he alth HTTP/1.1\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nbad header\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nx: \x00\r\n\r\n", 400),
        (b"POST /execute HTTP/1.1\r\ncontent-length: -1\r\n\r\n", 400),
        (
            b"POST /execute HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
            400,
        ),
        (
            b"POST /execute HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n",
            400,
        ),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (large.as_bytes(), 431),
        (path.as_bytes(), 414),
    ] {
        let mut client = service.client().await;
        let (head, _) = error(&mut client, bytes).await;
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned();
        assert_eq!(head.status, status, "{shown}");
        assert_eq!(head.header("connection"), Some("close"), "{shown}");
        drop(client.socket.shutdown().await);
        assert!(client.is_cut().await, "one answer to {shown}");
    }
}

#[tokio::test]
async fn a_head_that_breaks_off_is_told_so() {
    let service = Fixture::ready().await;
    let mut client = service.client().await;
    client.send("GET /health HTTP/1.1\r\nhost: loc").await;
    client.close_sending_half().await;
    let (head, body) = client.json().await;
    assert_eq!(head.status, 400);
    let message = body["error"]["message"].as_str().unwrap();
    assert!(message.contains("broke off"), "{message}");
    // One that has sent nothing asked nothing.
    let mut silent = service.client().await;
    silent.close_sending_half().await;
    assert!(silent.is_cut().await);
}

#[tokio::test]
async fn bodies_that_can_not_be_read_have_one_too() {
    let service = Fixture::ready().await;
    for framing in [
        "transfer-encoding: chunked\r\n\r\nzz\r\n",
        "transfer-encoding: chunked\r\n\r\n2\r\n{}x\r\n0\r\n\r\n",
        "content-length: 2\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ] {
        let mut client = service.client().await;
        let request = format!("POST /cancel HTTP/1.1\r\nhost: localhost\r\n{framing}");
        let (head, _) = error(&mut client, request.as_bytes()).await;
        assert_eq!(
            (head.status, head.header("connection")),
            (400, Some("close"))
        );
    }
}

#[tokio::test]
async fn what_follows_a_good_request_is_answered_after_it() {
    let service = Fixture::ready().await;
    let mut client = service.client().await;
    client
        .send("GET /health HTTP/1.1\r\nhost: localhost\r\n\r\nGARBAGE\r\n\r\n")
        .await;
    assert_eq!(client.json().await.0.status, 200);
    assert_eq!(client.json().await.0.status, 400);
    assert!(client.is_cut().await);
}

#[tokio::test]
async fn a_head_that_does_not_come_is_given_up() {
    let service = Fixture::ready().await;
    // A connection that is kept and not used is closed without a word.
    let mut kept = service.client().await;
    kept.get("/health/live", "").await;
    assert_eq!(kept.json().await.0.status, 200);
    let mut silent = service.client().await;
    let mut slow = service.client().await;
    slow.send("GET /health HTTP/1.1\r\n").await;
    for client in [&mut silent, &mut slow] {
        let (head, body) = client.json().await;
        assert_eq!(head.status, 408);
        assert_eq!(body["error"]["code"], "INVALID_REQUEST");
        assert_eq!(head.header("connection"), Some("close"));
    }
    assert!(kept.is_cut().await);
}
