//! Whose jobs share KV pages, and what clients are told of it.

use orcd_shared::gguf::Value as Meta;
use orcd_shared::job::{CacheScope, Finish, JobSpec};
use orcd_shared::kv::PageCounts;
use orcd_shared::protocol::message::ToSupervisor;
use orcd_supervisor::metrics::Format;
use orcd_supervisor::model::Model;
use serde_json::{Value, json};

use crate::played::{self, Service};
use crate::support::Fixture;

/// Every route that generates text, with a body for it.
fn routes() -> [(&'static str, Value); 4] {
    [
        ("/execute", json!({"prompt": "abc", "stream": false})),
        ("/v1/completions", json!({"prompt": "abc"})),
        (
            "/v1/chat/completions",
            json!({"messages": [{"role": "user", "content": "abc"}]}),
        ),
        ("/v1/responses", json!({"input": "abc"})),
    ]
}

fn with(mut body: Value, more: &Value) -> Value {
    let more = more.as_object().unwrap().clone();
    body.as_object_mut().unwrap().extend(more);
    body
}

/// A service whose model has a chat template.
async fn with_flags(flags: &[&str]) -> Fixture {
    let mut metadata = played::metadata();
    let template = "{% for m in messages %}{{ m.content }}{% endfor %}".into();
    metadata
        .insert("tokenizer.chat_template", Meta::String(template))
        .unwrap();
    let model = Model::from_metadata(&metadata, "bytes").unwrap();
    Fixture::serve_with(Service::ready().await, model, flags).await
}

/// The scope that the worker is told for a request, whose job then ends.
async fn scope(service: &mut Fixture, path: &str, key: &str, body: &Value) -> CacheScope {
    let mut client = service.client().await;
    let headers = match key {
        "" => String::new(),
        key => format!("authorization: Bearer {key}\r\n"),
    };
    client.post_with(path, &headers, &body.to_string()).await;
    let spec = service.worker.submitted().await;
    service.worker.eos(spec.key, 0).await;
    assert_eq!(client.head().await.status, 200);
    spec.options.cache
}

#[tokio::test]
async fn jobs_of_one_key_share_and_others_never_do() {
    let mut service = with_flags(&["--api-key", "one", "--admin-key", "other"]).await;
    let s = &mut service;
    let plain = json!({"prompt": "a"});
    let one = scope(s, "/execute", "one", &plain).await;
    assert_ne!(one, CacheScope::Job);
    let salted = with(plain, &json!({"cache_salt": "a"}));
    let own = scope(s, "/execute", "one", &salted).await;
    for (path, body) in routes() {
        let salted = with(body.clone(), &json!({"cache_salt": "a"}));
        let off = with(body.clone(), &json!({"cache": false}));
        assert_eq!(scope(s, path, "one", &body).await, one, "{path}");
        assert_eq!(scope(s, path, "one", &salted).await, own, "{path}");
        assert_eq!(scope(s, path, "one", &off).await, CacheScope::Job, "{path}");
        let others = [
            scope(s, path, "other", &body).await,
            scope(s, path, "other", &salted).await,
        ];
        for other in others {
            assert!(![one, own, CacheScope::Job].contains(&other), "{path}");
        }
        assert_ne!(own, one);
    }
}

#[tokio::test]
async fn without_keys_all_jobs_share() {
    let mut service = with_flags(&[]).await;
    let all = scope(&mut service, "/execute", "", &json!({"prompt": "a"})).await;
    assert_ne!(all, CacheScope::Job);
    for (path, body) in routes() {
        let said = match path {
            "/execute" => json!({"cache": true}),
            _ => json!({"prompt_cache_key": "user-1", "prompt_cache_retention": "24h"}),
        };
        let same = scope(&mut service, path, "whatever", &with(body, &said)).await;
        assert_eq!(same, all, "{path}");
    }
}

#[tokio::test]
async fn a_service_without_the_cache_shares_nothing() {
    let mut service = with_flags(&["--prefix-cache", "off"]).await;
    for (path, body) in routes() {
        for more in [json!({}), json!({"cache": true, "cache_salt": "a"})] {
            let body = with(body.clone(), &more);
            let scope = scope(&mut service, path, "", &body).await;
            assert_eq!(scope, CacheScope::Job, "{path}");
        }
    }
}

#[tokio::test]
async fn every_route_names_the_field_that_is_wrong() {
    let service = with_flags(&[]).await;
    for (path, body) in routes() {
        for (more, field) in [
            (json!({"cache": 1}), "cache"),
            (json!({"cache_salt": ""}), "cache_salt"),
            (json!({"cache": false, "cache_salt": "a"}), "cache_salt"),
        ] {
            let mut client = service.client().await;
            client
                .post(path, &with(body.clone(), &more).to_string())
                .await;
            let (head, answer) = client.json().await;
            let error = &answer["error"];
            let named = match path {
                "/execute" => &error["details"][0]["field"],
                _ => &error["param"],
            };
            assert_eq!((head.status, named), (400, &json!(field)), "{path}");
        }
    }
}

/// Plays a job of which so many tokens were kept, and that begins once more before its only token.
async fn play(worker: &mut Service, spec: &JobSpec, cached: u32) {
    let key = spec.key;
    for cached in [cached, cached + 1] {
        worker.message(ToSupervisor::Begun { key, cached }).await;
    }
    let last = Some(Finish::MaxTokens);
    worker.token(key, 0, b'x'.into(), last).await;
}

#[tokio::test]
async fn answers_tell_how_much_of_the_prompt_was_kept() {
    let mut service = with_flags(&[]).await;
    for (path, body) in routes() {
        let place = match path {
            "/execute" => "/cached_tokens",
            "/v1/responses" => "/usage/input_tokens_details/cached_tokens",
            _ => "/usage/prompt_tokens_details/cached_tokens",
        };
        let mut client = service.client().await;
        client.post(path, &body.to_string()).await;
        let spec = service.worker.submitted().await;
        play(&mut service.worker, &spec, 2).await;
        let (_, answer) = client.json().await;
        assert_eq!(answer.pointer(place), Some(&json!(2)), "{path}: {answer}");
    }
}

#[tokio::test]
async fn a_prompt_of_several_choices_counts_with_its_first() {
    let mut service = with_flags(&[]).await;
    for (path, body) in routes() {
        // The others have no choices.
        if !path.ends_with("completions") {
            continue;
        }
        let mut client = service.client().await;
        let body = with(body, &json!({"n": 2}));
        client.post(path, &body.to_string()).await;
        let first = service.worker.submitted().await;
        let second = service.worker.submitted().await;
        play(&mut service.worker, &second, 2).await;
        play(&mut service.worker, &first, 1).await;
        let (_, answer) = client.json().await;
        let usage = &answer["usage"];
        let cached = &usage["prompt_tokens_details"]["cached_tokens"];
        assert_eq!((cached, &usage["prompt_tokens"]), (&json!(1), &json!(3)));
    }
}

#[tokio::test]
async fn metrics_and_health_count_pages_and_tokens() {
    let mut service = Fixture::ready().await;
    let off = json!({"prompt": "abc", "max_tokens": 1, "cache": false});
    let on = json!({"prompt": "abc", "max_tokens": 1});
    for body in [off, on] {
        let mut client = service.client().await;
        client.post("/execute", &body.to_string()).await;
        let spec = service.worker.submitted().await;
        play(&mut service.worker, &spec, 2).await;
        client.head().await;
        while !client.event().await.is_empty() {}
    }
    for refused in [1, 1, 3] {
        let kv = PageCounts {
            used: 4,
            cached: 5,
            refused,
        };
        let (steps, running) = (2, 0);
        let heartbeat = ToSupervisor::Heartbeat { steps, running, kv };
        service.worker.message(heartbeat).await;
        service.worker.until(|s| s.kv == kv).await;
    }
    let mut client = service.client().await;
    client.get("/health", "").await;
    let kv = client.json().await.1["kv"].clone();
    assert_eq!(
        [
            &kv["pages"],
            &kv["pages_used"],
            &kv["pages_cached"],
            &kv["pages_free"]
        ],
        [20, 4, 5, 11]
    );
    let snapshot = service.worker.jobs.snapshot();
    let text = service
        .worker
        .metrics
        .encode(Format::Prometheus, Some(&snapshot));
    let text = text.unwrap();
    for line in [
        "orcd_kv_pages_used 4",
        "orcd_kv_pages_cached 5",
        "orcd_kv_pages_free 11",
        "orcd_kv_pages_refused_total 3",
        "orcd_prefix_cache_tokens_total 2",
        // One of the two jobs asked.
        "vllm:prefix_cache_queries_total 3",
        "vllm:prefix_cache_hits_total 2",
        "vllm:kv_cache_usage_perc 0.2",
    ] {
        assert!(text.lines().any(|l| l == line), "no {line} in {text}");
    }
}
