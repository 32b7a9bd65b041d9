//! A client that asks more often than it may. When requests count is tested with a clock in `src/http/rate.rs`; here a
//! machine that stands still for a second lets a second's worth more pass, so each finding is given several tries.

use serde_json::Value;

use crate::support::{Client, Head, listen_with};

/// Requests that a client may send a second.
const RATE: usize = 20;
/// So many are sent before it is taken for granted that none is refused.
const MOST: usize = 50 * RATE;

/// How many requests for `path` it takes until one is refused for their number, on one connection; and that answer.
async fn ask_until_refused(client: &mut Client, path: &str, headers: &str) -> (usize, Head, Value) {
    for asked in 1..=MOST {
        client.get(path, headers).await;
        let (head, body) = client.json().await;
        if head.status == 429 {
            return (asked, head, body);
        }
    }
    panic!("none of {MOST} requests was refused");
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_back() {
    let (_app, address, _stop) = listen_with(&["--max-requests-per-sec", "20"]).await;
    let mut client = Client::connect(address).await;
    let (asked, head, body) = ask_until_refused(&mut client, "/version", "").await;
    assert!(asked > RATE, "{asked}");
    assert_eq!(head.header("retry-after"), Some("1"));
    let error = &body["error"];
    assert_eq!(error["code"], "RATE_LIMITED");
    assert_eq!(error["retriable"], true);
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("--max-requests-per-sec"), "{message}");
    // A probe's answers are its own.
    client.get("/health/live", "").await;
    assert_eq!(client.json().await.0.status, 200);
    // A client of OpenAI's reads it in its own form.
    let (_, _, body) = ask_until_refused(&mut client, "/v1/models", "").await;
    assert_eq!(body["error"]["type"], "rate_limit_error");
    // What it sends is passed over, and the connection can be used again.
    let mut refused = 0;
    for _ in 0..MOST {
        client.post("/execute", "{}").await;
        refused += usize::from(client.json().await.0.status == 429);
    }
    assert!(refused > 0);
}

#[tokio::test]
async fn a_client_is_the_same_on_every_connection() {
    let (_app, address, _stop) = listen_with(&["--max-requests-per-sec", "20"]).await;
    let mut fewest = usize::MAX;
    for _ in 0..10 {
        let mut client = Client::connect(address).await;
        fewest = fewest.min(ask_until_refused(&mut client, "/version", "").await.0);
    }
    // One of its own would have had `RATE` on each.
    assert!(fewest < RATE, "{fewest}");
}

#[tokio::test]
async fn who_has_no_key_spends_nothing_of_those_who_have_one() {
    let flags = ["--max-requests-per-sec", "20", "--api-key", "one,two"];
    let (_app, address, _stop) = listen_with(&flags).await;
    let mut client = Client::connect(address).await;
    ask_until_refused(&mut client, "/version", "").await;
    for key in ["one", "two"] {
        let header = format!("authorization: Bearer {key}\r\n");
        let (asked, ..) = ask_until_refused(&mut client, "/version", &header).await;
        assert!(asked > RATE, "{key}: {asked}");
    }
}

#[tokio::test]
async fn without_a_bound_nobody_is_refused() {
    let (_app, address, _stop) = listen_with(&["--max-requests-per-sec", "0"]).await;
    let mut client = Client::connect(address).await;
    for _ in 0..MOST {
        client.get("/version", "").await;
        assert_eq!(client.json().await.0.status, 200);
    }
}
