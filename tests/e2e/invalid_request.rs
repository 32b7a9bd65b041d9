//! Requests that break a rule are refused, field by field, before anything runs.

use orcd_shared::sampling::{PARAMETERS, numbers};
use orcd_tests::{Job, Model, WorkerHarness};
use serde_json::{Value, json};

fn good() -> Job {
    Job::new("a", "hello").set("max_tokens", 1)
}

/// Names of the fields that a refusal complains about, sorted.
#[track_caller]
fn fields(service: &WorkerHarness, body: &str) -> Vec<String> {
    let reply = service.request("POST", "/execute", &[], body.as_bytes());
    assert_eq!(reply.status(), 400, "{body} → {}", reply.text());
    let error = reply.error();
    assert_eq!(error["code"], "INVALID_REQUEST", "{body}");
    assert_eq!(error["retriable"], false);
    let details = error["details"]
        .as_array()
        .unwrap_or_else(|| panic!("no details in {error}"));
    let mut fields: Vec<_> = details
        .iter()
        .map(|d| d["field"].as_str().unwrap().to_owned())
        .collect();
    fields.sort();
    fields.dedup();
    fields
}

/// `field` itself, or a place inside it such as `messages[0].role`.
#[track_caller]
fn assert_refused(service: &WorkerHarness, body: &Value, field: &str) {
    let found = fields(service, &body.to_string());
    let inside = |f: &str| {
        f.strip_prefix(field)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['[', '.']))
    };
    assert!(
        !found.is_empty() && found.iter().all(|f| inside(f)),
        "{body}: {found:?}, not {field}"
    );
}

#[test]
fn each_field_out_of_bounds_is_named() {
    let service = WorkerHarness::start(Model::Tiny);
    let long = |n: usize| Value::from("x".repeat(n));
    let turn = |role: Value, content: Value| json!([{"role": role, "content": content}]);
    let cases: Vec<(&str, Vec<Value>)> = vec![
        (
            "job_id",
            vec![
                "".into(),
                long(129),
                "a b".into(),
                "ä".into(),
                "a/b".into(),
                7.into(),
            ],
        ),
        ("prompt", vec!["".into(), 7.into(), json!(["x"]), json!({})]),
        ("template", vec!["yes".into(), 1.into()]),
        (
            "max_tokens",
            vec![
                0.into(),
                (-1).into(),
                2049.into(),
                1.5.into(),
                "5".into(),
                u64::MAX.into(),
            ],
        ),
        (
            "top_k",
            vec![(-1).into(), 513.into(), 1.5.into(), "5".into()],
        ),
        (
            "stop",
            vec![
                "".into(),
                json!([""]),
                json!(["a", "b", "c", "d", "e"]),
                json!([7]),
                json!(["x".repeat(101)]),
            ],
        ),
        ("seed", vec![(-1).into(), 1.5.into(), "7".into()]),
        (
            "on_disconnect",
            vec!["stay".into(), true.into(), "Cancel".into()],
        ),
        ("unheard_of", vec![1.into(), Value::Null]),
        ("Prompt", vec!["x".into()]),
    ];
    let numbers = numbers().map(|(name, bounds, _)| {
        let below = bounds.least - if bounds.includes_least { 0.1 } else { 0.0 };
        let beyond = [below, bounds.least - 1.0, bounds.most + 0.1].map(Value::from);
        (name, [&beyond[..], &["1".into(), json!([1])]].concat())
    });
    for (field, values) in cases.into_iter().chain(numbers) {
        for value in values {
            assert_refused(&service, &good().set(field, value).json(), field);
        }
    }
    for messages in [
        json!([]),
        json!("x"),
        json!(["x"]),
        json!(vec![json!({"role": "user", "content": "x"}); 4097]),
        turn("robot".into(), "x".into()),
        turn("user".into(), 7.into()),
        json!([{"role": "user"}]),
        json!([{"content": "x"}]),
        json!([{"role": "user", "content": "x", "nick": "y"}]),
    ] {
        assert_refused(
            &service,
            &json!({"job_id": "a", "messages": messages}),
            "messages",
        );
    }
    assert_eq!(
        service.run(&good()).end().tokens_out,
        1,
        "nothing of it stuck"
    );
}

#[test]
fn what_usual_clients_send_is_taken() {
    let service = WorkerHarness::start(Model::Tiny);
    let plain = good().set("seed", 7).json();
    let expected = service.run(&good().set("seed", 7)).text();
    let mut nulls = plain.clone();
    for field in [
        "job_id",
        "messages",
        "top_p",
        "stop",
        "on_disconnect",
        "template",
    ] {
        nulls[field] = Value::Null;
    }
    let mut nameless = plain.clone();
    nameless.as_object_mut().unwrap().remove("job_id");
    let mut one_stop = plain.clone();
    one_stop["stop"] = "\u{1}\u{2}".into();
    let marked = format!("\u{feff}{plain}");
    for body in [
        nulls.to_string(),
        nameless.to_string(),
        one_stop.to_string(),
        marked,
    ] {
        let reply = service.request("POST", "/execute", &[], body.as_bytes());
        assert_eq!(reply.status(), 200, "{body}: {}", reply.text());
        let token = format!("\"t\":{}", json!(expected));
        assert!(reply.text().contains(&token), "{body}: {}", reply.text());
        assert!(!reply.text().contains("\"job_id\":\"\""));
    }
    let wide: Vec<u8> = plain
        .to_string()
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let reply = service.request("POST", "/execute", &[], &wide);
    assert_eq!(reply.refusal().0, 400);
    assert!(
        reply.text().contains("UTF-16, little-endian"),
        "{}",
        reply.text()
    );
}

#[test]
fn numbers_beyond_json_are_refused() {
    let service = WorkerHarness::start(Model::Tiny);
    for (field, number) in [
        ("temperature", "1e999"),
        ("top_p", "-1e999"),
        ("seed", "18446744073709551616"),
    ] {
        let body = format!(r#"{{"job_id":"a","prompt":"x","{field}":{number}}}"#);
        let reply = service.request("POST", "/execute", &[], body.as_bytes());
        assert_eq!(reply.refusal(), (400, "INVALID_REQUEST".into()), "{body}");
    }
}

#[test]
fn job_needs_exactly_one_prompt() {
    let service = WorkerHarness::start(Model::Tiny);
    let none = fields(&service, r#"{"job_id":"a"}"#);
    assert!(none.contains(&"prompt".to_owned()), "{none:?}");
    let turn = json!([{"role": "user", "content": "x"}]);
    let both = fields(&service, &good().set("messages", turn).json().to_string());
    assert!(
        both.iter().all(|f| f == "prompt" || f == "messages") && !both.is_empty(),
        "{both:?}"
    );
}

#[test]
fn all_bad_fields_are_reported_at_once() {
    let service = WorkerHarness::start(Model::Tiny);
    let mut body = json!({
        "job_id": "a b", "prompt": "", "max_tokens": 0, "stop": ["a", "b", "c", "d", "e"], "seed": -1,
        "on_disconnect": "stay", "template": 7, "extra": 1, "another": 2,
    });
    for p in &PARAMETERS {
        body[p.name] = (-3).into();
    }
    let mut expected: Vec<_> = body.as_object().unwrap().keys().cloned().collect();
    expected.sort();
    assert_eq!(fields(&service, &body.to_string()), expected);
}

#[test]
fn each_bound_itself_is_accepted() {
    let service = WorkerHarness::start(Model::Tiny);
    let cases: Vec<(&str, Vec<Value>)> = vec![
        ("job_id", vec!["x".repeat(128).into(), "A-z.0_9:b".into()]),
        ("temperature", vec![2.0.into(), 1e-30.into()]),
        ("top_k", vec![0.into(), 512.into()]),
        (
            "stop",
            vec![
                json!([]),
                json!(["a", "b", "c", "d"]),
                json!(["x".repeat(100)]),
            ],
        ),
        ("seed", vec![0.into(), u64::MAX.into()]),
        ("on_disconnect", vec!["cancel".into(), "continue".into()]),
        ("template", vec![true.into(), false.into()]),
        ("max_tokens", vec![1.into()]),
    ];
    let numbers = numbers().map(|(name, bounds, _)| {
        let least = bounds.least + if bounds.includes_least { 0.0 } else { 1e-9 };
        (name, vec![least.into(), bounds.most.into()])
    });
    for (field, values) in cases.into_iter().chain(numbers) {
        for value in values {
            let transcript = service.run(&good().set(field, value.clone()));
            assert!(transcript.end().tokens_out <= 1, "{field} {value}");
        }
    }
    let turns = vec![("user", "x"); 40];
    assert_eq!(
        service
            .run(&Job::chat("a", &turns).set("max_tokens", 1))
            .end()
            .tokens_out,
        1
    );
    let longest = service.try_execute(&good().set("max_tokens", 2048), &[]);
    drop(longest.expect("max_tokens may be as large as --max-tokens-out"));
    let many = "ab ".repeat(32_768 / 3);
    let reply = service.refusal(&good().set("prompt", many));
    assert_eq!(
        reply.refusal().1,
        "CONTEXT_LENGTH_EXCEEDED",
        "how long a prompt may be the context says"
    );
}

#[test]
fn stop_sequences_are_counted_in_bytes() {
    let service = WorkerHarness::start(Model::Tiny);
    assert_refused(
        &service,
        &good().set("stop", vec!["é".repeat(51)]).json(),
        "stop",
    );
    service.run(&good().set("stop", vec!["é".repeat(50)]));
}
