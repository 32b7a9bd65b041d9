use orcd_shared::job::CacheScope;
use orcd_shared::sampling::{Kind, MIN_REPETITION_PENALTY, MIN_TOP_P, PARAMETERS, SamplingParams};
use serde_json::{Value, json};

use super::*;
use crate::jobs::Owner;

const LIMITS: Limits = Limits {
    max_tokens_out: 2048,
    vocab_size: 1000,
    defaults: SamplingParams {
        temperature: 1.0,
        ..SamplingParams::GREEDY
    },
};
const SEED: u64 = 42;

fn parse(body: &Value) -> Json {
    serde_json::from_str(&body.to_string()).unwrap()
}

fn fresh() -> Fresh {
    Fresh {
        job_id: "fresh".into(),
        seed: SEED,
    }
}

fn check(body: &Value) -> Result<Request, Vec<Detail>> {
    execute(parse(body), &LIMITS, fresh())
}

/// A good body with one field set.
fn with(name: &str, value: Value) -> Value {
    let mut body = json!({"job_id": "j", "prompt": "p"});
    body[name] = value;
    body
}

/// The one fault of `body`.
#[track_caller]
fn fault(body: &Value) -> Detail {
    let faults = check(body).expect_err(&format!("accepted: {body}"));
    assert_eq!(faults.len(), 1, "{body}: {faults:?}");
    let [fault] = <[Detail; 1]>::try_from(faults).unwrap();
    assert!(
        !fault.constraint.is_empty() && !fault.message.is_empty(),
        "{fault:?}"
    );
    fault
}

#[test]
fn defaults_are_those_of_the_contract() {
    let request = check(&json!({"job_id": "j", "prompt": "p"})).unwrap();
    let sampling = SamplingParams {
        temperature: 1.0,
        seed: SEED,
        ..SamplingParams::GREEDY
    };
    let expected = Request {
        generation: Generation {
            job_id: "j".into(),
            input: Input::Prompt {
                text: "p".into(),
                template: true,
            },
            field: "prompt",
            max_tokens: Some(2048),
            max_tokens_field: None,
            sampling,
            options: orcd_shared::job::JobOptions::default(),
            cache: CacheUse::Shared { salt: None },
            constraint_field: "response_format",
            stop: vec![],
            continue_on_disconnect: false,
            choices: 1,
            resume: None,
        },
        stream: true,
    };
    assert_eq!(request, expected);
}

/// Each sampling parameter with the ends of its range, and what is next to them outside.
fn ends_of_parameters() -> Vec<(&'static str, Vec<Value>, Vec<Value>)> {
    let ends = PARAMETERS.iter().map(|p| match &p.kind {
        Kind::Number(bounds, _) => {
            let below = bounds.least.next_down();
            let (least, below) = match bounds.includes_least {
                true => (bounds.least, below),
                false => (bounds.least.next_up(), bounds.least),
            };
            let beyond = vec![json!(below), json!(bounds.most.next_up()), json!(1e308)];
            (p.name, vec![json!(least), json!(bounds.most)], beyond)
        }
        Kind::Count(_) => (
            p.name,
            vec![json!(0), json!(LIMITS.vocab_size)],
            vec![json!(-1), json!(LIMITS.vocab_size + 1), json!(0.5)],
        ),
    });
    ends.collect()
}

#[test]
fn bounds_themselves_are_accepted() {
    let parameters = ends_of_parameters().into_iter();
    for (name, values) in parameters.map(|(name, ends, _)| (name, ends)).chain([
        (
            "job_id",
            vec![json!("a"), json!("A-Za.z0:9_"), json!("x".repeat(128))],
        ),
        (
            "prompt",
            vec![
                json!("x"),
                json!("ß".repeat(400_000)),
                json!("\u{0}"),
                json!("😀"),
            ],
        ),
        ("template", vec![json!(true), json!(false)]),
        ("max_tokens", vec![json!(1), json!(2048), json!(5.0)]),
        ("ignore_eos", vec![json!(true), json!(false)]),
        ("stream", vec![json!(true), json!(false)]),
        ("cache", vec![json!(true), json!(false)]),
        (
            "cache_salt",
            vec![
                json!("x"),
                json!("x".repeat(256)),
                json!("ß".repeat(128)),
                json!("\u{0}"),
                json!(null),
            ],
        ),
        ("logprobs", vec![json!(0), json!(20)]),
        (
            "temperature",
            vec![json!(2), json!(2.0), json!(0.7), json!(-0.0)],
        ),
        (
            "stop",
            vec![
                json!([]),
                json!("a"),
                json!(["a", "b", "c", "d"]),
                json!(["x".repeat(100)]),
            ],
        ),
        ("seed", vec![json!(0), json!(u64::MAX)]),
        ("on_disconnect", vec![json!("cancel"), json!("continue")]),
    ]) {
        for value in values {
            let body = with(name, value);
            assert!(check(&body).is_ok(), "{:?}", check(&body));
        }
    }
    assert!(
        check(&with("temperature", json!(-0.0)))
            .unwrap()
            .generation
            .sampling
            .temperature
            .is_sign_positive()
    );
    assert_eq!(
        check(&with("seed", json!(u64::MAX)))
            .unwrap()
            .generation
            .sampling
            .seed,
        u64::MAX
    );
}

#[test]
fn each_field_is_refused_beyond_its_bounds_and_in_other_types() {
    let text = || vec![json!(1), json!(true), json!([]), json!({})];
    let number = || vec![json!("1"), json!(true), json!([1]), json!({})];
    let and = |mut list: Vec<Value>, more: Vec<Value>| {
        list.extend(more);
        list
    };
    let long = "x".repeat(129);
    let too_big: Value = serde_json::from_str("18446744073709551616").unwrap();
    let parameters = ends_of_parameters().into_iter();
    let parameters = parameters.map(|(name, _, beyond)| (name, and(number(), beyond)));
    for (name, values) in parameters.chain([
        (
            "job_id",
            and(
                text(),
                vec![
                    json!(""),
                    json!(long),
                    json!("a b"),
                    json!("ä"),
                    json!("a/b"),
                ],
            ),
        ),
        ("prompt", and(text(), vec![json!("")])),
        ("template", vec![json!(1), json!("true")]),
        (
            "max_tokens",
            and(
                number(),
                vec![json!(0), json!(-1), json!(2049), json!(1.5), json!(1e300)],
            ),
        ),
        ("ignore_eos", vec![json!(1), json!("true")]),
        ("stream", vec![json!(1), json!("true")]),
        ("cache", vec![json!(0), json!("false"), json!({})]),
        (
            "cache_salt",
            and(
                text(),
                vec![json!(""), json!("x".repeat(257)), json!("ß".repeat(129))],
            ),
        ),
        (
            "logprobs",
            and(number(), vec![json!(-1), json!(21), json!(0.5)]),
        ),
        (
            "stop",
            vec![
                json!(""),
                json!("x".repeat(101)),
                json!(1),
                json!({}),
                json!(["a", "b", "c", "d", "e"]),
            ],
        ),
        ("seed", and(number(), vec![json!(-1), json!(0.5), too_big])),
        (
            "on_disconnect",
            and(text(), vec![json!(""), json!("Cancel"), json!("keep")]),
        ),
    ]) {
        for value in values {
            assert_eq!(fault(&with(name, value)).field, name);
        }
    }
    for bad in [
        json!(""),
        json!("x".repeat(101)),
        json!("ß".repeat(51)),
        json!(1),
        json!(null),
    ] {
        assert_eq!(fault(&with("stop", json!(["ok", bad]))).field, "stop[1]");
    }
}

#[test]
fn a_request_says_with_which_jobs_it_shares_its_cache() {
    let of = |more: Value| {
        let mut body = json!({"job_id": "j", "prompt": "p"});
        let more = more.as_object().unwrap().clone();
        body.as_object_mut().unwrap().extend(more);
        body
    };
    let shared = |salt: Option<&str>| CacheUse::Shared {
        salt: salt.map(Into::into),
    };
    for (more, wanted) in [
        (json!({}), shared(None)),
        (json!({"cache": null, "cache_salt": null}), shared(None)),
        (json!({"cache": true, "cache_salt": "a"}), shared(Some("a"))),
        (json!({"cache": false}), CacheUse::Off),
        (json!({"cache": false, "cache_salt": null}), CacheUse::Off),
    ] {
        let request = check(&of(more)).unwrap();
        assert_eq!(request.generation.cache, wanted);
        // Whose it is is not known yet.
        assert_eq!(request.generation.options.cache, CacheScope::Job);
    }
    let both = fault(&of(json!({"cache": false, "cache_salt": "a"})));
    assert_eq!(both.field, "cache_salt");
    assert!(both.message.contains("cache is false"), "{both:?}");
}

#[test]
fn a_scope_is_of_an_owner_and_a_salt() {
    let [one, other] = [Owner::of_key([1; 32]), Owner::of_key([2; 32])];
    let shared = |salt: Option<&str>| CacheUse::Shared {
        salt: salt.map(Into::into),
    };
    let scope = shared(None).scope(one);
    assert_ne!(scope, CacheScope::Job);
    assert_eq!(scope, shared(None).scope(one));
    assert_ne!(scope, shared(None).scope(other));
    assert_ne!(scope, shared(Some("a")).scope(one));
    assert_ne!(shared(Some("a")).scope(one), shared(Some("a")).scope(other));
    assert_eq!(CacheUse::Off.scope(one), CacheScope::Job);
}

#[test]
fn messages_are_checked_one_by_one() {
    let of = |messages: Value| json!({"job_id": "j", "messages": messages});
    let user = |content: &str| json!({"role": "user", "content": content});
    let most: Vec<_> = (0..4096).map(|_| user("x")).collect();
    for good in [
        json!([user("hi")]),
        json!([{"role": "system", "content": ""}, user("hi"), {"role": "assistant", "content": "a"}]),
        json!(most),
        json!([user(&"ß".repeat(40_000)), user("x")]),
    ] {
        assert!(check(&of(good.clone())).is_ok(), "{:?}", check(&of(good)));
    }
    let mut too_many = most;
    too_many.push(user("x"));
    for (bad, field) in [
        (json!([]), "messages"),
        (json!(too_many), "messages"),
        (json!("hi"), "messages"),
        (json!([user("")]), "messages"),
        (json!(["hi"]), "messages[0]"),
        (json!([user("a"), {"content": "x"}]), "messages[1].role"),
        (
            json!([{"role": "function", "content": "x"}]),
            "messages[0].role",
        ),
        (json!([{"role": 1, "content": "x"}]), "messages[0].role"),
        (json!([{"role": "user"}]), "messages[0].content"),
        (
            json!([{"role": "user", "content": null}]),
            "messages[0].content",
        ),
        (
            json!([{"role": "user", "content": "x", "names": "y"}]),
            "messages[0].names",
        ),
    ] {
        assert_eq!(fault(&of(bad)).field, field);
    }
}

#[test]
fn exactly_one_of_prompt_prompt_ids_and_messages() {
    let ids = |ids: Value| check(&json!({"prompt_ids": ids}));
    assert_eq!(
        ids(json!([0, 999])).unwrap().generation.input,
        Input::Ids(vec![0, 999])
    );
    for bad in [json!([1000]), json!([-1]), json!(["a"]), json!(1)] {
        assert_eq!(fault(&json!({"prompt_ids": bad})).field, "prompt_ids");
    }
    let both = json!({"prompt": "p", "prompt_ids": [1]});
    assert_eq!(fault(&both).field, "prompt_ids");
    let tools = json!({"prompt": "p", "tools": [{"function": {"name": "f"}}]});
    assert_eq!(fault(&tools).field, "tools");
    assert_eq!(fault(&json!({"job_id": "j"})).field, "prompt");
    let message = json!([{"role": "user", "content": "x"}]);
    assert_eq!(
        fault(&json!({"job_id": "j", "prompt": "p", "messages": message})).field,
        "messages"
    );
    let templated = |t: bool| json!({"job_id": "j", "messages": message, "template": t});
    assert!(check(&templated(true)).is_ok());
    assert_eq!(fault(&templated(false)).field, "template");
}

#[test]
fn tiny_numbers_become_the_smallest_that_the_engine_takes() {
    let tiny = json!({"job_id": "j", "prompt": "p", "temperature": 1e-300, "top_p": 1e-300,
                      "min_p": 1e-300, "repetition_penalty": 1e-300});
    let s = check(&tiny).unwrap().generation.sampling;
    assert_eq!((s.temperature, s.min_p), (0.0, 0.0));
    assert_eq!(
        (s.top_p, s.repetition_penalty),
        (MIN_TOP_P, MIN_REPETITION_PENALTY)
    );
    let small = json!({"job_id": "j", "prompt": "p", "repetition_penalty": 1e-5});
    assert_eq!(
        check(&small)
            .unwrap()
            .generation
            .sampling
            .repetition_penalty,
        1e-5
    );
}

#[test]
fn all_faults_are_reported_at_once() {
    // None but logit_bias, the format and resume may be an object; messages and prompt_ids can't be given beside prompt.
    let mut expected = super::execute::field_names();
    expected.retain(|name| !["messages", "prompt_ids", "logit_bias"].contains(name));
    expected.extend(["max_token", "temp"]);
    expected.sort_unstable();
    let mut body: serde_json::Map<_, _> =
        (expected.iter().map(|name| (String::from(*name), json!({})))).collect();
    body["response_format"] = json!([]);
    body["resume"] = json!([]);
    let faults = check(&body.into()).unwrap_err();
    let mut fields: Vec<_> = faults.into_iter().map(|d| d.field).collect();
    fields.sort_unstable();
    assert_eq!(fields, expected);
}

#[test]
fn a_field_given_twice_is_refused() {
    let body = r#"{"job_id":"j","prompt":"p","seed":1,"seed":1}"#;
    let faults = execute(serde_json::from_str(body).unwrap(), &LIMITS, fresh()).unwrap_err();
    assert_eq!((faults.len(), faults[0].field.as_str()), (1, "seed"));
    let body = r#"{"job_id":"j","messages":[{"role":"user","content":"a","content":"b"}]}"#;
    let faults = execute(serde_json::from_str(body).unwrap(), &LIMITS, fresh()).unwrap_err();
    assert_eq!(
        (faults.len(), faults[0].field.as_str()),
        (1, "messages[0].content")
    );
}

#[test]
fn unknown_fields_are_named_but_not_at_any_length() {
    let detail = fault(&with("max_token", json!(1)));
    assert_eq!(
        (detail.field.as_str(), detail.constraint.as_str()),
        ("max_token", "unknown")
    );
    assert!(detail.message.contains("max_tokens"));
    let detail = fault(&with(&"ß".repeat(1000), json!(1)));
    assert!(detail.field.chars().count() <= 65);
}

#[test]
fn texts_of_the_client_are_not_repeated() {
    let secret = "s3cret";
    let long = secret.repeat(6000);
    for body in [
        with("prompt", json!([long])),
        json!({"job_id": "j", "messages": [{"role": secret, "content": long}]}),
        json!({"job_id": format!("{secret} "), "prompt": "p", "stop": [long]}),
        with("on_disconnect", json!(secret)),
        with("logit_bias", json!({secret: 1})),
        with("logit_bias", json!({"1": secret})),
        with("template", json!(secret)),
    ] {
        let faults = check(&body).unwrap_err();
        assert!(!format!("{faults:?}").contains(secret), "{faults:?}");
    }
}

#[test]
fn a_body_that_is_no_object_is_refused() {
    for body in [json!([]), json!("x"), json!(null), json!(1)] {
        assert!(check(&body).unwrap_err()[0].message.contains("the body is"));
        assert!(cancel(parse(&body)).is_err());
    }
}

#[test]
fn null_is_unset_and_a_job_without_a_name_gets_one() {
    let bare = check(&json!({"prompt": "p"})).unwrap();
    assert_eq!(bare.generation.job_id, "fresh");
    let mut nulls = json!({"prompt": "p"});
    let fields = super::execute::field_names().into_iter();
    for field in fields.filter(|f| *f != "prompt") {
        nulls[field] = json!(null);
    }
    assert_eq!(check(&nulls).unwrap(), bare);
    let messages = json!({"prompt": null, "messages": [{"role": "user", "content": "x"}]});
    assert!(check(&messages).is_ok());
    // What may not be left out may not be null, and an unknown field is one whatever it holds.
    for (body, field) in [
        (json!({"prompt": null}), "prompt"),
        (
            json!({"messages": [{"role": "user", "content": null}]}),
            "messages[0].content",
        ),
        (json!({"prompt": "p", "max_token": null}), "max_token"),
    ] {
        assert_eq!(fault(&body).field, field);
    }
    assert_eq!(
        cancel(parse(&json!({"job_id": null}))).unwrap_err()[0].field,
        "job_id"
    );
}

#[test]
fn a_job_that_goes_on_without_its_reader_has_a_stream() {
    let body = json!({"prompt": "p", "stream": false, "on_disconnect": "continue"});
    assert_eq!(fault(&body).field, "on_disconnect");
    assert!(!check(&with("stream", json!(false))).unwrap().stream);
}

#[test]
fn biases_are_numbers_by_ids_of_the_vocabulary() {
    let biases = |value: Value| {
        let generation = check(&with("logit_bias", value)).unwrap().generation;
        generation.options.logit_bias.entries().to_vec()
    };
    assert_eq!(biases(json!({})), []);
    assert_eq!(
        biases(json!({"999": -100, "0": 100.0, "42": 0.5, "7": -0.0})),
        [(0, 100.0), (7, 0.0), (42, 0.5), (999, -100.0)]
    );
    let many = |n: u32| {
        let ids = (0..n).map(|id| (id.to_string(), json!(1)));
        Value::Object(ids.collect())
    };
    // A vocabulary of 1000 has no more.
    assert_eq!(biases(many(1000)).len(), 1000);
    for bad in [
        json!([[1, 2]]),
        json!("5"),
        json!(5),
        json!({"1000": 1}),
        json!({"4294967296": 1}),
        json!({"-1": 1}),
        json!({"+1": 1}),
        json!({"01": 1}),
        json!({"1.0": 1}),
        json!({" 1": 1}),
        json!({"": 1}),
        json!({"1": "1"}),
        json!({"1": null}),
        json!({"1": true}),
        json!({"1": 100.5}),
        json!({"1": -101}),
        json!({"1": 1e308}),
    ] {
        assert_eq!(fault(&with("logit_bias", bad)).field, "logit_bias");
    }
    let large = Limits {
        vocab_size: 2000,
        ..LIMITS
    };
    let of_large = |n| execute(parse(&with("logit_bias", many(n))), &large, fresh());
    assert!(of_large(1024).is_ok());
    let faults = of_large(1025).unwrap_err();
    assert_eq!((faults.len(), faults[0].field.as_str()), (1, "logit_bias"));
    assert!(faults[0].message.contains("at most 1024"), "{faults:?}");
    let body = r#"{"prompt":"p","logit_bias":{"3":1,"5":1,"3":1}}"#;
    let faults = execute(serde_json::from_str(body).unwrap(), &LIMITS, fresh()).unwrap_err();
    assert_eq!(faults[0].field, "logit_bias");
    assert!(faults[0].message.contains("token 3 more than once"));
}

#[test]
fn a_single_stop_may_stand_alone() {
    let stops = |stop| check(&with("stop", stop)).unwrap().generation.stop;
    assert_eq!(stops(json!("\n\n")), stops(json!(["\n\n"])));
    assert_eq!(stops(json!("ab")), ["ab"]);
}

#[test]
fn cancel_takes_a_job_id_and_nothing_else() {
    assert_eq!(cancel(parse(&json!({"job_id": "a:1"}))).unwrap(), "a:1");
    for bad in [
        json!({}),
        json!({"job_id": 1}),
        json!({"job_id": "a b"}),
        json!({"job_id": "a", "x": 1}),
    ] {
        assert_eq!(cancel(parse(&bad)).unwrap_err().len(), 1, "{bad}");
    }
}

fn format(value: Value) -> Value {
    with("response_format", value)
}

#[test]
fn formats_become_constraints() {
    use orcd_shared::constraint::Constraint;

    let schema = json!({"type": "object", "properties": {"b": true, "a": {"type": "null"}}});
    let as_it_was = Some(Constraint::JsonSchema(schema.to_string()));
    let nested = json!({"name": "x", "description": "y", "strict": true, "schema": schema});
    for (value, expected) in [
        (json!({"type": "text"}), None),
        (
            json!({"type": "json_object"}),
            Some(Constraint::JsonSchema(r#"{"type":"object"}"#.into())),
        ),
        (
            json!({"type": "json_schema", "schema": schema, "name": "x"}),
            as_it_was.clone(),
        ),
        (
            json!({"type": "json_schema", "json_schema": nested}),
            as_it_was,
        ),
        (
            json!({"type": "regex", "pattern": "a+"}),
            Some(Constraint::Regex("a+".into())),
        ),
        (
            json!({"type": "lark", "grammar": "start: \"a\""}),
            Some(Constraint::Lark("start: \"a\"".into())),
        ),
    ] {
        let request = check(&format(value)).unwrap();
        assert_eq!(request.generation.options.constraint, expected);
    }
}

#[test]
fn a_format_is_refused_by_the_name_of_what_is_wrong() {
    let mut deep = json!({});
    for _ in 0..64 {
        deep = json!({"items": deep});
    }
    let long = "x".repeat(orcd_shared::constraint::MAX_CONSTRAINT_BYTES + 1);
    for (value, field) in [
        (json!("json_object"), "response_format"),
        (json!({}), "response_format.type"),
        (json!({"type": 1}), "response_format.type"),
        (json!({"type": "yaml"}), "response_format.type"),
        (json!({"type": "json_schema"}), "response_format.schema"),
        (
            json!({"type": "json_schema", "schema": true}),
            "response_format.schema",
        ),
        (
            json!({"type": "json_schema", "schema": {"items": deep}}),
            "response_format.schema",
        ),
        (
            json!({"type": "json_schema", "schema": {"title": long}}),
            "response_format.schema",
        ),
        (
            json!({"type": "json_schema", "json_schema": {}}),
            "response_format.json_schema.schema",
        ),
        (
            json!({"type": "json_schema", "json_schema": {"schema": {}, "strict": 1}}),
            "response_format.json_schema.strict",
        ),
        (
            json!({"type": "regex", "regex": "a"}),
            "response_format.pattern",
        ),
        (
            json!({"type": "regex", "pattern": ""}),
            "response_format.pattern",
        ),
        (
            json!({"type": "regex", "pattern": long}),
            "response_format.pattern",
        ),
        (
            json!({"type": "lark", "grammar": null}),
            "response_format.grammar",
        ),
        (
            json!({"type": "text", "pattern_": "a"}),
            "response_format.pattern_",
        ),
    ] {
        let faults = check(&format(value)).unwrap_err();
        assert!(
            faults.iter().any(|fault| fault.field == field),
            "{field}: {faults:?}"
        );
    }
    assert!(check(&format(json!({"type": "json_schema", "schema": deep}))).is_ok());
}

#[test]
fn a_constrained_output_heeds_end_tokens() {
    let mut body = format(json!({"type": "json_object"}));
    body["ignore_eos"] = json!(true);
    assert_eq!(fault(&body).field, "ignore_eos");
    body["response_format"] = json!({"type": "text"});
    assert!(check(&body).is_ok());
}
