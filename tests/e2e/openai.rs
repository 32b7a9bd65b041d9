//! OpenAI's routes beside `/execute`: one core, two dialects. What clients of others make of them: `make clients`.

use std::time::Duration;

use orcd_tests::proc::wait_until;
use orcd_tests::{Job, Model, Starter, WorkerHarness};
use serde_json::{Value, json};

const QUESTION: &str = "Write a haiku about rain";

fn chat(more: &Value) -> Value {
    let mut body = json!({
        "messages": [{"role": "user", "content": QUESTION}], "seed": 5, "temperature": 1.2, "max_tokens": 32,
    });
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

fn content(reply: &Value) -> &str {
    reply["choices"][0]["message"]["content"].as_str().unwrap()
}

#[test]
fn one_seed_gives_one_text_in_every_dialect() {
    let service = WorkerHarness::start(Model::Haiku);
    let job = Job::new("a", QUESTION)
        .set("seed", 5)
        .set("temperature", 1.2)
        .set("max_tokens", 32);
    let expected = service.run(&job).text();
    let whole = service
        .post("/execute", &job.set("stream", false).json())
        .json();
    assert_eq!(whole["text"], expected);
    assert_eq!(
        whole["ids"].as_array().unwrap().len() as u64,
        whole["tokens_out"].as_u64().unwrap()
    );
    let chat = service
        .post("/v1/chat/completions", &chat(&json!({})))
        .json();
    assert_eq!(content(&chat), expected);
    assert_eq!(chat["usage"]["completion_tokens"], whole["tokens_out"]);
    // The same prompt, as tokens.
    let messages = json!({"messages": [{"role": "user", "content": QUESTION}]});
    let tokens = service.post("/tokenize", &messages).json()["tokens"].clone();
    let ids = json!({"prompt_ids": tokens, "seed": 5, "temperature": 1.2, "max_tokens": 32, "stream": false});
    assert_eq!(service.post("/execute", &ids).json()["text"], expected);
    let completion = json!({"prompt": tokens, "seed": 5, "temperature": 1.2, "max_tokens": 32});
    let completion = service.post("/v1/completions", &completion).json();
    assert_eq!(completion["choices"][0]["text"], expected);
    // And the prompt's text.
    let prompt = service.post("/apply-template", &messages).json()["prompt"].clone();
    let again = service.post("/tokenize", &json!({"prompt": prompt})).json();
    assert_eq!(again["tokens"], tokens);
    let text = service
        .post("/detokenize", &json!({"tokens": whole["ids"]}))
        .json();
    assert_eq!(text["prompt"], expected);
}

#[test]
fn penalties_and_biases_are_those_of_execute() {
    let service = WorkerHarness::start(Model::Haiku);
    let mut job = Job::new("a", QUESTION)
        .set("seed", 5)
        .set("temperature", 1.2)
        .set("max_tokens", 32);
    let plain = service.run(&job);
    let mut changes = json!({
        "frequency_penalty": 1.5,
        "presence_penalty": 0.5,
        "logit_bias": {plain.ids()[0].to_string(): -100, "300": 2.5},
    });
    for (name, value) in changes.as_object().unwrap() {
        job = job.set(name, value.clone());
    }
    let expected = service.run(&job).text();
    assert_ne!(expected, plain.text());
    // Choices count their own outputs alone.
    for n in [1, 2] {
        changes["n"] = json!(n);
        let reply = service.post("/v1/chat/completions", &chat(&changes));
        assert_eq!(content(&reply.json()), expected);
    }

    let forced = |bias: &Value| {
        let body = json!({"prompt": QUESTION, "max_tokens": 6, "ignore_eos": true, "return_token_ids": true,
                          "logit_bias": bias});
        service.post("/v1/completions", &body)
    };
    let ids = forced(&json!({"42": 100})).json()["choices"][0]["token_ids"].clone();
    assert_eq!(ids, json!([42, 42, 42, 42, 42, 42]));
    for bad in [json!({"x": 1}), json!({"1": 101}), json!({"99999999": 1})] {
        let reply = forced(&bad);
        assert_eq!(reply.refusal(), (400, "INVALID_REQUEST".into()), "{bad}");
        assert_eq!(reply.json()["error"]["param"], "logit_bias");
    }
    let reply = service.post(
        "/v1/chat/completions",
        &chat(&json!({"presence_penalty": 2.5})),
    );
    assert_eq!(reply.refusal(), (400, "INVALID_REQUEST".into()));
    assert_eq!(reply.json()["error"]["param"], "presence_penalty");
}

#[test]
fn choices_are_taken_together_or_not_at_all() {
    let service = Starter::new(Model::Slow)
        .flag("--parallel", 1)
        .flag("--queue", 1)
        .start();
    let several = |n: u32| {
        let body = json!({"prompt": "in the morning", "seed": 5, "temperature": 1.2, "max_tokens": 8, "n": n});
        service.post("/v1/completions", &body)
    };
    // More than there will ever be places for.
    let reply = several(3);
    assert_eq!(reply.refusal(), (400, "INVALID_REQUEST".into()));
    assert_eq!(reply.json()["error"]["param"], "n");
    // More than there are places for now.
    let mut running = service.execute(&Job::lasting("a", 400));
    running.read_anything();
    let reply = several(2);
    assert_eq!(reply.refusal(), (503, "QUEUE_FULL".into()));
    assert!(reply.header("retry-after").is_some());
    assert_eq!(reply.json()["error"]["type"], "server_error");
    assert_eq!(service.health()["jobs"], json!({"running": 1, "queued": 0}));
    drop(running);
    // Its place is free once the worker has said so.
    let mut reply = several(2);
    wait_until(Duration::from_secs(20), || {
        reply = several(2);
        reply.status() == 200
    });
    let both = reply.json();
    assert_eq!(several(1).json()["choices"][0], both["choices"][0]);
    assert_ne!(both["choices"][1]["text"], both["choices"][0]["text"]);
}

#[test]
fn an_answer_is_cancelled_by_its_id() {
    let service = WorkerHarness::start(Model::Slow);
    let body =
        json!({"prompt": "in the morning", "max_tokens": 400, "ignore_eos": true, "stream": true});
    let mut connection = service.connect();
    let request = orcd_tests::http::request_bytes(
        "POST",
        "/v1/completions",
        &[],
        body.to_string().as_bytes(),
    );
    connection.send(&request).unwrap();
    let head = connection.read_head().unwrap();
    let mut stream = connection.into_body(&head);
    let first = String::from_utf8(stream.read().unwrap().unwrap()).unwrap();
    let chunk: Value = serde_json::from_str(first.trim_start_matches("data: ").trim_end()).unwrap();
    assert_eq!(service.cancel(chunk["id"].as_str().unwrap()), "cancelling");
    let mut rest = String::new();
    while let Some(bytes) = stream.read().unwrap() {
        rest.push_str(&String::from_utf8(bytes).unwrap());
    }
    assert!(rest.ends_with("data: [DONE]\n\n"), "{rest}");
    assert!(rest.contains("\"code\":\"cancelled\""), "{rest}");
    service.wait_for_health(Duration::from_secs(20), |h| h["jobs"]["running"] == 0);
}

#[test]
fn names_of_the_model_are_those_that_were_given() {
    let service = Starter::new(Model::Haiku)
        .flag("--served-model-name", "poet,haiku")
        .start();
    let models = service.get("/v1/models").json();
    let names: Vec<_> = models["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["id"].clone())
        .collect();
    assert_eq!(names, ["poet", "haiku"]);
    assert_eq!(models["data"][0]["owned_by"], "worker-orcd");
    assert!(models["data"][0]["max_model_len"].as_u64().unwrap() > 0);
    for (name, status) in [("poet", 200), ("haiku", 200), ("haiku-nano-q4_k_m", 404)] {
        assert_eq!(
            service.get(&format!("/v1/models/{name}")).status(),
            status,
            "{name}"
        );
        let reply = service.post(
            "/v1/chat/completions",
            &chat(&json!({"model": name, "max_tokens": 1})),
        );
        assert_eq!(reply.status(), status, "{name}");
    }
}

#[test]
fn an_answer_without_a_word_is_a_message() {
    let service = WorkerHarness::start(Model::Haiku);
    // Whatever the model would say, it may not.
    let nothing = json!({"type": "regex", "pattern": "a{0}"});
    let body = chat(&json!({"response_format": nothing}));
    let reply = service.post("/v1/chat/completions", &body).json();
    assert_eq!(content(&reply), "");
    let body = json!({"input": "Greet me", "text": {"format": nothing}});
    let reply = service.post("/v1/responses", &body).json();
    assert_eq!(reply["output"][0]["type"], "message", "{reply}");
    assert_eq!(reply["output"][0]["content"][0]["text"], "");
    let mut streamed = body.clone();
    streamed["stream"] = json!(true);
    let events = service.post("/v1/responses", &streamed);
    for event in [
        "output_item.added",
        "content_part.added",
        "output_text.done",
        "output_item.done",
    ] {
        assert!(
            events
                .text()
                .contains(&format!("event: response.{event}\n")),
            "{event}"
        );
    }
}

#[test]
fn responses_repeat_what_the_request_said() {
    let service = WorkerHarness::start(Model::Haiku);
    let tool =
        json!({"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": true});
    let said = json!({
        "tools": [tool],
        "tool_choice": "none",
        "metadata": {"a": "b"},
        "instructions": "Be brief.",
        "parallel_tool_calls": false,
    });
    let mut body = said.clone();
    body["input"] = json!("Greet me");
    body["max_output_tokens"] = json!(4);
    body["reasoning"] = json!({"effort": "low"});
    body["text"] = json!({"verbosity": "low"});
    let reply = service.post("/v1/responses", &body).json();
    for (name, value) in said.as_object().unwrap() {
        assert_eq!(&reply[name], value, "{name}");
    }
    assert_eq!(reply["reasoning"]["effort"], "low");
    assert_eq!(
        reply["text"],
        json!({"verbosity": "low", "format": {"type": "text"}})
    );
    let reply = service
        .post(
            "/v1/responses",
            &json!({"input": "Greet me", "max_output_tokens": 4}),
        )
        .json();
    assert_eq!(
        (&reply["tools"], &reply["metadata"]),
        (&json!([]), &json!({}))
    );
}
