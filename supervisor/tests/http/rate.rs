//! A client that asks more often than it may.

use crate::support::{Client, listen_with};

/// Answers to requests for `path`, on one connection, until one is 429.
async fn ask_until_refused(client: &mut Client, path: &str, headers: &str) -> Vec<u16> {
    let mut statuses = Vec::new();
    while statuses.last() != Some(&429) && statuses.len() < 50 {
        client.get(path, headers).await;
        statuses.push(client.json().await.0.status);
    }
    statuses
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_back() {
    // In the time that this takes a slow machine may let one more pass; not ten.
    let (_app, address, _stop) = listen_with(&["--max-requests-per-sec", "4"]).await;
    let mut client = Client::connect(address).await;
    let statuses = ask_until_refused(&mut client, "/version", "").await;
    assert!((5..15).contains(&statuses.len()), "{statuses:?}");
    // On another connection it is the same client, and a probe's answers are its own.
    let mut another = Client::connect(address).await;
    let statuses = ask_until_refused(&mut another, "/version", "").await;
    assert!(statuses.len() < 5, "{statuses:?}");
    another.get("/health/live", "").await;
    assert_eq!(another.json().await.0.status, 200);
    // What it sends is passed over, and the connection can be used again.
    let mut posted = 0;
    let (head, body) = loop {
        another.post("/execute", "{}").await;
        let (head, body) = another.json().await;
        posted += 1;
        if head.status == 429 || posted == 50 {
            break (head, body);
        }
    };
    assert_eq!(head.status, 429);
    assert_eq!(head.header("retry-after"), Some("1"));
    let error = &body["error"];
    assert_eq!(error["code"], "RATE_LIMITED");
    assert_eq!(error["retriable"], true);
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("--max-requests-per-sec"), "{message}");
}

#[tokio::test]
async fn who_has_no_key_spends_nothing_of_those_who_have_one() {
    let flags = ["--max-requests-per-sec", "4", "--api-key", "one,two"];
    let (_app, address, _stop) = listen_with(&flags).await;
    let mut client = Client::connect(address).await;
    let statuses = ask_until_refused(&mut client, "/version", "").await;
    assert_eq!(statuses[0], 401);
    assert_eq!(statuses.last(), Some(&429));
    for key in ["one", "two"] {
        let header = format!("authorization: Bearer {key}\r\n");
        let statuses = ask_until_refused(&mut client, "/version", &header).await;
        assert_eq!(statuses[0], 200, "{key}");
        assert_eq!(statuses.last(), Some(&429), "{key}");
    }
    // A client of OpenAI's reads it in its own form.
    let refused = loop {
        client.get("/v1/models", "").await;
        let (head, body) = client.json().await;
        if head.status != 401 {
            break body;
        }
    };
    assert_eq!(refused["error"]["type"], "rate_limit_error");
}

#[tokio::test]
async fn without_a_bound_nobody_is_refused() {
    let (_app, address, _stop) = listen_with(&["--max-requests-per-sec", "0"]).await;
    let mut client = Client::connect(address).await;
    let statuses = ask_until_refused(&mut client, "/version", "").await;
    assert_eq!(statuses, [200; 50]);
}
