//! Outputs that have to be something: JSON, or what a regular expression or a grammar allows.

use orcd_tests::stream::Stream;
use orcd_tests::{Job, Model, Starter, WorkerHarness};
use serde_json::{Value, json};

fn schema(schema: &Value) -> Value {
    json!({"type": "json_schema", "schema": schema})
}

fn regex(pattern: &str) -> Value {
    json!({"type": "regex", "pattern": pattern})
}

/// A long string in an object.
fn note() -> Value {
    schema(&json!({
        "type": "object",
        "properties": {"note": {"type": "string", "minLength": 300}, "done": {"type": "boolean"}},
        "required": ["note", "done"],
        "additionalProperties": false,
    }))
}

/// Nothing that is compiled takes so long as where each of many windows of a text may be.
fn exploding() -> Value {
    let window =
        |i: u32| json!({"type": "string", "pattern": format!("^.*[a-z]{{{}}}.*$", 20 + i)});
    let windows: Vec<_> = (0..40).map(window).collect();
    schema(&json!({"type": "object", "properties": {"text": {"allOf": windows}}}))
}

#[test]
fn killed_worker_in_mid_string_changes_no_byte() {
    let service = Starter::new(Model::Slow)
        .failpoints()
        .without_hang_timeout()
        .start();
    let lark = json!({"type": "lark", "grammar": "start: (word \" \")*\nword: /[a-z]{1,9}/"});
    let formats = [note(), regex("([0-9]{4}-)*"), lark, json!({"type": "text"})];
    let job = |(at, format): (usize, &Value)| {
        let job = Job::new(&format!("job-{at}"), "in the morning")
            .set("seed", at as u64)
            .set("max_tokens", 60);
        job.set("response_format", format.clone())
    };
    let jobs: Vec<_> = formats.iter().enumerate().map(job).collect();
    let undisturbed = service.run_together(&jobs);
    let streams = service.execute_and_trigger(&jobs, "sleep", 30);
    service.kill_worker();
    let disturbed: Vec<_> = streams.into_iter().map(Stream::finish).collect();
    for (expected, found) in undisturbed.iter().zip(&disturbed) {
        assert_eq!(expected.token_bytes(), found.token_bytes());
        assert_eq!(expected.end().stop_reason, found.end().stop_reason);
        assert_eq!(found.end().replays, 1);
    }
    let text = undisturbed[0].text();
    assert!(text.starts_with('{') && text.contains("\"note\""), "{text}");
    assert!(!text.contains("\"done\""), "the string is over: {text}");
}

#[test]
fn every_route_and_every_choice_keeps_to_the_format() {
    let service = WorkerHarness::start(Model::Tiny);
    let is_date = |text: &str| {
        let digits = text.bytes().filter(u8::is_ascii_digit).count();
        text.len() == 10 && digits == 8 && text[4..5] == *"-" && text[7..8] == *"-"
    };
    let date = regex("[0-9]{4}-[0-9]{2}-[0-9]{2}");
    let job = Job::new("a", "the day")
        .set("response_format", date.clone())
        .set("seed", 3);
    let job = job.set("template", false);
    let stream = service.run(&job);
    assert!(is_date(&stream.text()), "{}", stream.text());
    assert_eq!(stream.end().stop_reason, "EOS");
    let body =
        json!({"prompt": "the day", "seed": 3, "n": 3, "max_tokens": 40, "response_format": date});
    let reply = service.post("/v1/completions", &body).json();
    assert_eq!(reply["choices"][0]["text"], stream.text());
    for choice in reply["choices"].as_array().unwrap() {
        assert!(is_date(choice["text"].as_str().unwrap()), "{choice}");
        assert_eq!(choice["finish_reason"], "stop");
    }
    let messages = json!([{"role": "user", "content": "the day"}]);
    let strict = json!({"type": "json_schema", "json_schema": {"name": "day", "strict": true, "schema": {
        "type": "object", "properties": {"day": {"type": "string", "format": "date"}},
        "required": ["day"], "additionalProperties": false}}});
    let body = json!({"messages": messages, "seed": 3, "response_format": strict});
    let reply = service.post("/v1/chat/completions", &body).json();
    let content = reply["choices"][0]["message"]["content"].as_str().unwrap();
    let parsed: Value = serde_json::from_str(content).unwrap();
    assert!(is_date(parsed["day"].as_str().unwrap()), "{content}");
    let format = json!({"type": "regex", "pattern": "yes|no"});
    let body = json!({"input": "is it?", "text": {"format": format}});
    let reply = service.post("/v1/responses", &body).json();
    let text = reply["output"][0]["content"][0]["text"].as_str().unwrap();
    assert!(["yes", "no"].contains(&text), "{reply}");
    assert_eq!(reply["text"]["format"], format);
    let body = json!({"messages": messages, "seed": 3, "max_tokens": 30, "response_format": {"type": "json_object"}});
    let reply = service.post("/v1/chat/completions", &body).json();
    let content = reply["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(content.starts_with('{'), "{content}");
}

#[test]
fn what_cuts_an_output_short_says_so() {
    let service = WorkerHarness::start(Model::Tiny);
    let job = |name: &str| Job::new(name, "x").set("response_format", regex("(ab){40}"));
    let cut = service.run(&job("a").set("max_tokens", 7));
    assert_eq!(cut.end().stop_reason, "MAX_TOKENS");
    assert!("ab".repeat(40).starts_with(&cut.text()), "{}", cut.text());
    let stopped = service.run(&job("b").set("stop", "aba"));
    assert_eq!(
        (stopped.end().stop_reason.as_str(), stopped.text().as_str()),
        ("STOP_SEQUENCE", "")
    );
    let ignoring = job("c").set("ignore_eos", true).json();
    let error = service.post("/execute", &ignoring).error();
    assert_eq!(error["details"][0]["field"], "ignore_eos");
}

#[test]
fn a_format_that_can_not_be_used_is_refused_and_its_place_is_named() {
    let service = WorkerHarness::start(Model::Tiny);
    let list = json!({"type": "array", "items": {"type": "string", "format": "telepathy"}});
    let bad = json!({"type": "object", "properties": {"ok": {"type": "null"}, "list": list}});
    let message = "can't be used: at #/properties/list/items: ";
    let job = Job::new("a", "x").set("response_format", schema(&bad));
    let reply = service.post("/execute", &job.json());
    assert_eq!(reply.refusal(), (400, "INVALID_REQUEST".into()));
    let error = reply.error();
    assert_eq!(error["details"][0]["field"], "response_format");
    let found = error["details"][0]["message"].as_str().unwrap();
    assert!(
        found.contains(message) && found.contains("telepathy"),
        "{found}"
    );
    let nested = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": bad}});
    let messages = json!([{"role": "user", "content": "x"}]);
    let reply = service.post(
        "/v1/chat/completions",
        &json!({"messages": messages, "response_format": nested}),
    );
    assert_eq!(reply.status(), 400);
    assert_eq!(reply.json()["error"]["param"], "response_format");
    assert!(reply.text().contains(message), "{}", reply.text());
    let reply = service.post(
        "/v1/responses",
        &json!({"input": "x", "text": {"format": schema(&bad)}}),
    );
    assert_eq!(reply.json()["error"]["param"], "text.format");
    for (format, reason) in [
        (regex("a(b"), "unclosed group"),
        (
            json!({"type": "lark", "grammar": "start: missing"}),
            "missing",
        ),
        (
            json!({"type": "lark", "grammar": "start: <|im_end|>"}),
            "names tokens",
        ),
    ] {
        let body = Job::new("a", "x").set("response_format", format).json();
        let error = service.post("/execute", &body).error();
        let found = error["message"].as_str().unwrap();
        assert!(found.contains(reason), "{found}");
    }
    for text in [json!([null, null]), json!("x"), json!({"format": [1]})] {
        let reply = service.post("/v1/responses", &json!({"input": "x", "text": text}));
        assert_eq!(reply.status(), 400, "{text}: {}", reply.text());
    }
    // Nothing of it is in the logs.
    assert!(
        !service.stderr().contains("telepathy"),
        "{}",
        service.stderr()
    );
}

#[test]
fn a_schema_that_explodes_costs_its_own_request_alone() {
    let service = WorkerHarness::start(Model::Brisk);
    let bystander = Job::lasting("bystander", 200);
    let alone = service.run(&bystander.clone().named("alone"));
    let worker = service.worker();
    let stream = service.execute(&bystander);
    let body = Job::new("a", "x")
        .set("response_format", exploding())
        .json();
    for _ in 0..3 {
        let reply = service.post("/execute", &body);
        assert_eq!(reply.refusal(), (400, "INVALID_REQUEST".into()));
        assert!(reply.text().contains("to compile"), "{}", reply.text());
    }
    let beside = stream.finish();
    assert_eq!(beside.ids(), alone.ids());
    assert_eq!(beside.end().replays, 0);
    assert_eq!(service.worker(), worker);
}
