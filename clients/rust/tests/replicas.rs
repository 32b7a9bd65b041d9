//! Against two services of which one is lost.

#![allow(clippy::unwrap_used)] // a panic is a failing test with a place

use nix::sys::signal::Signal;
use orcd_client::{Error, Replicas};
use orcd_tests::{Job, Model, WorkerHarness};
use serde_json::{Value, json};

fn url(service: &WorkerHarness) -> String {
    format!("http://{}", service.address())
}

#[tokio::test]
async fn a_stream_goes_on_at_the_next_replica() {
    let [first, second] = [Model::Slow, Model::Slow].map(WorkerHarness::start);
    let job = Job::lasting("a", 60);
    let uncut = second.run(&job);
    let urls = [url(&first), url(&second)];
    let replicas = Replicas::new(urls.iter().map(String::as_str)).unwrap();
    let mut events = replicas.execute(job.json()).unwrap();
    let mut found: Vec<Value> = Vec::new();
    while let Some(event) = events.next().await.unwrap() {
        found.push(event);
        if found.len() == 12 {
            let worker = first.worker();
            first.signal(Signal::SIGKILL);
            worker.signal(Signal::SIGKILL);
        }
    }
    assert_eq!(found[1..found.len() - 1], uncut.token_data());
    assert_eq!(found.last().unwrap()["tokens_out"], 60);
    // Now nobody is at the first address.
    let body = json!({"prompt": "x", "max_tokens": 20, "seed": 3, "ignore_eos": true});
    let mut chunks = replicas.completion(body.clone()).unwrap();
    let mut text = String::new();
    while let Some(chunk) = chunks.next().await.unwrap() {
        text += chunk["choices"][0]["text"].as_str().unwrap();
    }
    let whole = second.post("/v1/completions", &body).json();
    assert_eq!(whole["choices"][0]["text"], text);
}

#[tokio::test]
async fn it_gives_up_where_nothing_helps() {
    let service = WorkerHarness::start(Model::Tiny);
    let url = url(&service);
    let replicas = Replicas::new([url.as_str()]).unwrap().with_rounds(2);
    let wrong = replicas.execute(json!({"prompt": "x", "top_p": 0}));
    let error = wrong.unwrap().next().await.unwrap_err();
    assert!(matches!(error, Error::Service { code, .. } if code == "INVALID_REQUEST"));
    drop(service);
    let nobody = replicas.execute(json!({"prompt": "x"}));
    let error = nobody.unwrap().next().await.unwrap_err();
    assert!(matches!(error, Error::Connection { .. }), "{error}");
}
