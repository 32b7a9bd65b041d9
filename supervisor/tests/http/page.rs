//! The page at `/`, and what `--demo` adds to it.

use orcd_shared::job::Finish;
use orcd_supervisor::model::Model;

use crate::played::{self, Service};
use crate::support::{Client, Fixture, Head, listen, listen_with};

async fn get(client: &mut Client, headers: &str) -> (Head, String) {
    client.get("/", headers).await;
    client.answer().await
}

/// The token in the page, if there is one.
fn token(html: &str) -> Option<&str> {
    let (_, rest) = html.split_once("<meta name=\"demo-token\" content=\"")?;
    Some(rest.split_once('"').unwrap().0)
}

async fn demonstrating(flags: &[&str]) -> Fixture {
    let model = Model::from_metadata(&played::metadata(), "bytes").unwrap();
    let flags = [&["--demo"], flags].concat();
    Fixture::serve_with(Service::ready().await, model, &flags).await
}

#[tokio::test]
async fn the_page_is_there_while_the_model_loads_and_without_a_key() {
    let (_app, address, _stop) = listen_with(&["--api-key", "secret"]).await;
    let mut client = Client::connect(address).await;
    let (head, html) = get(&mut client, "").await;
    assert_eq!(head.status, 200);
    assert!(html.starts_with("<!doctype html>"), "{html}");
    for (name, value) in [
        ("content-type", "text/html; charset=utf-8"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cache-control", "no-cache"),
    ] {
        assert_eq!(head.header(name), Some(value), "{name}");
    }
    let policy = head.header("content-security-policy").unwrap();
    assert!(
        policy.starts_with("default-src 'none'; script-src 'sha256-"),
        "{policy}"
    );
    assert_eq!(token(&html), None);
    // The rest is closed.
    client.get("/props", "").await;
    assert_eq!(client.answer().await.0.status, 401);
}

#[tokio::test]
async fn a_browser_that_has_the_page_gets_no_copy() {
    let (_app, address, _stop) = listen().await;
    let mut client = Client::connect(address).await;
    let (head, html) = get(&mut client, "").await;
    let tag = head.header("etag").unwrap().to_owned();
    let (head, nothing) = get(&mut client, &format!("if-none-match: {tag}\r\n")).await;
    assert_eq!((head.status, nothing.as_str()), (304, ""));
    assert_eq!(head.header("etag"), Some(tag.as_str()));
    assert!(head.header("content-security-policy").is_some());
    let (head, again) = get(&mut client, "if-none-match: \"other\"\r\n").await;
    assert_eq!((head.status, again), (200, html));
    client
        .send("HEAD / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await;
    let head = client.head().await;
    assert_eq!(
        (head.status, head.header("etag")),
        (200, Some(tag.as_str()))
    );
}

#[tokio::test]
async fn without_demo_nothing_can_be_killed() {
    let mut service = Fixture::ready().await;
    let mut client = service.client().await;
    client.post("/demo/kill", "").await;
    let (head, body) = client.answer().await;
    assert_eq!(head.status, 404);
    assert!(!body.contains("/demo"), "{body}");
    client.get("/openapi.json", "").await;
    assert!(!client.answer().await.1.contains("/demo"));
    assert!(service.worker.pending_calls().is_empty());
}

#[tokio::test]
async fn only_a_person_s_page_has_the_token_and_only_it_may_kill() {
    let mut service = demonstrating(&["--allow-host", "gpu.example"]).await;
    let mut client = service.client().await;
    let (head, html) = get(&mut client, "").await;
    assert_eq!(head.header("cache-control"), Some("no-store"));
    let token = token(&html).expect("a token").to_owned();
    // A script of another page on this machine may read answers, and a proxy may pass a page on to anybody.
    for headers in [
        "origin: http://localhost:3000\r\n",
        "origin: http://localhost\r\n",
    ] {
        let (head, html) = get(&mut client, headers).await;
        assert_eq!((head.status, self::token(&html)), (200, None), "{headers}");
    }
    client
        .send("GET / HTTP/1.1\r\nhost: gpu.example\r\n\r\n")
        .await;
    let (head, html) = client.answer().await;
    assert_eq!((head.status, self::token(&html)), (200, None));

    let with_token = format!("x-demo-token: {token}\r\n");
    for (headers, why) in [
        (String::new(), "nothing"),
        (with_token.clone(), "no origin"),
        ("origin: http://localhost\r\n".to_owned(), "no token"),
        (
            "origin: http://localhost\r\nx-demo-token: c0ffee\r\n".to_owned(),
            "another token",
        ),
        (
            format!("origin: http://localhost:3000\r\n{with_token}"),
            "another page of this machine",
        ),
    ] {
        client.post_with("/demo/kill", &headers, "").await;
        let (head, body) = client.json().await;
        assert_eq!(head.status, 403, "{why}");
        assert_eq!(body["error"]["code"], "FORBIDDEN_ORIGIN", "{why}");
    }
    let own = format!("origin: http://localhost\r\n{with_token}");
    client.get("/demo/kill", &own).await;
    assert_eq!(client.answer().await.0.status, 405);
    client.post_with("/demo/kill", &own, "{\"x\":1}").await;
    assert_eq!(client.answer().await.0.status, 400);
    assert!(service.worker.pending_calls().is_empty());

    client.post_with("/demo/kill", &own, "").await;
    let (head, body) = client.json().await;
    assert_eq!(head.status, 202, "{body}");
    assert_eq!(body, serde_json::json!({"generation": 1, "jobs": 0}));
    service.worker.killed().await;
    // It dies, and until there is another there is none to kill.
    service.worker.crash().await;
    client.post_with("/demo/kill", &own, "").await;
    let (head, body) = client.json().await;
    assert_eq!(
        (head.status, &body["error"]["code"]),
        (503, &"WORKER_UNAVAILABLE".into())
    );
}

#[tokio::test]
async fn with_keys_the_kill_needs_one_too() {
    let mut service = demonstrating(&["--api-key", "secret"]).await;
    let mut client = service.client().await;
    let (_, html) = get(&mut client, "").await;
    let token = token(&html).unwrap();
    let own = format!("origin: http://localhost\r\nx-demo-token: {token}\r\n");
    client.post_with("/demo/kill", &own, "").await;
    assert_eq!(client.answer().await.0.status, 401);
    assert!(service.worker.pending_calls().is_empty());
    let own = format!("authorization: Bearer secret\r\n{own}");
    client.post_with("/demo/kill", &own, "").await;
    assert_eq!(client.answer().await.0.status, 202);
}

#[tokio::test]
async fn a_job_outlives_any_number_of_kills_that_a_person_asks_for() {
    let mut service = demonstrating(&[]).await;
    let mut client = service.client().await;
    let (_, html) = get(&mut client, "").await;
    let token = token(&html).unwrap();
    let own = format!("origin: http://localhost\r\nx-demo-token: {token}\r\n");
    let (mut reader, key) = service.running(r#"{"prompt":"a"}"#).await;
    // As a crash it would be given up after three.
    for index in 0..4 {
        service
            .worker
            .token(key, index, u32::from(b'x'), None)
            .await;
        assert!(reader.event_after_comments().await.contains("\"t\":\"x\""));
        client.post_with("/demo/kill", &own, "").await;
        let (head, body) = client.json().await;
        assert_eq!((head.status, &body["jobs"]), (202, &1.into()), "{body}");
        service.worker.killed().await;
        service.worker.crash().await;
        service.worker.bring_up().await;
        let again = service.worker.submitted().await;
        assert_eq!(again.emitted.len(), index as usize + 1);
        service
            .worker
            .token(key, index, u32::from(b'x'), None)
            .await;
    }
    service.worker.token(key, 4, u32::from(b'y'), None).await;
    assert!(reader.event_after_comments().await.contains("\"t\":\"y\""));
    service
        .worker
        .token(key, 5, played::END, Some(Finish::Eos))
        .await;
    let end = loop {
        let event = reader.event_after_comments().await;
        if !event.contains("event: token") {
            break event;
        }
    };
    assert!(end.contains("\"replays\":4"), "{end}");
}
