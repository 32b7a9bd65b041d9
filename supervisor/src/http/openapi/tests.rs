//! The document against the code that it describes.

use orcd_shared::logit_bias::MAX_LOGIT_BIASES;
use orcd_shared::sampling::{PARAMETERS, numbers};
use serde_json::{Value, json};

use super::super::json::Json;
use super::super::validate::{self, Fresh, Limits, Request};
use super::*;

const DEFAULTS: SamplingParams = SamplingParams {
    temperature: 0.5,
    top_k: 40,
    ..SamplingParams::GREEDY
};
const INSTANCE: Instance = Instance {
    max_tokens_out: 4096,
    vocab_size: Some(1000),
    defaults: DEFAULTS,
    asks_for_key: true,
    with_demo: true,
};

fn parsed(instance: &Instance) -> Value {
    serde_json::from_slice(&written(instance)).unwrap()
}

fn execute_schema(instance: &Instance) -> Value {
    let path = "/paths/~1execute/post/requestBody/content/application~1json/schema";
    parsed(instance).pointer(path).unwrap().clone()
}

/// What the validator makes of a body with one field set, written as text: JSON has numbers that
/// [`Value`] can't hold.
fn check(name: &str, value: &str) -> Result<Request, String> {
    let prompt = match name {
        "prompt" | "prompt_ids" | "messages" => String::new(),
        "tools" | "documents" | "chat_template_kwargs" | "continue_final_message" => {
            r#""messages": [{"role": "assistant", "content": "x"}],"#.to_owned()
        }
        _ => r#""prompt": "p","#.to_owned(),
    };
    let body: Json = serde_json::from_str(&format!("{{{prompt} \"{name}\": {value}}}")).unwrap();
    let limits = Limits {
        max_tokens_out: INSTANCE.max_tokens_out,
        vocab_size: INSTANCE.vocab_size.unwrap(),
        defaults: INSTANCE.defaults,
    };
    let fresh = Fresh {
        job_id: "fresh".into(),
        seed: 5,
    };
    validate::execute(body, &limits, fresh).map_err(|faults| format!("{faults:?}"))
}

#[track_caller]
fn assert_taken(name: &str, value: &str, is_taken: bool) {
    let found = check(name, value);
    let shown = &value[..value.len().min(40)];
    assert_eq!(found.is_ok(), is_taken, "{name}: {shown}: {found:?}");
}

/// The value before (`up` false) or after a bound, in its own kind of number.
fn beside(bound: &Value, is_integer: bool, up: bool) -> String {
    if is_integer {
        let bound = i128::from(bound.as_u64().unwrap());
        (if up { bound + 1 } else { bound - 1 }).to_string()
    } else {
        let bound = bound.as_f64().unwrap();
        format!(
            "{:e}",
            if up {
                bound.next_up()
            } else {
                bound.next_down()
            }
        )
    }
}

fn kinds(schema: &Value) -> Vec<&str> {
    match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn fields_are_those_that_the_validator_knows() {
    let schema = execute_schema(&INSTANCE);
    let names: Vec<_> = schema["properties"].as_object().unwrap().keys().collect();
    let mut known = validate::field_names();
    known.sort_unstable();
    assert_eq!(names, known);
    assert_eq!(schema["additionalProperties"], false);
    for name in names {
        let null = check(name, "null").err();
        let is_input = ["prompt", "prompt_ids", "messages"].contains(&name.as_str());
        assert_eq!(null.is_some(), is_input, "{name}: {null:?}");
    }
}

#[test]
fn bounds_of_numbers_are_those_of_the_validator() {
    let schema = execute_schema(&INSTANCE);
    let mut numbers = 0;
    for (name, schema) in schema["properties"].as_object().unwrap() {
        let is_integer = kinds(schema).contains(&"integer");
        if !is_integer && !kinds(schema).contains(&"number") {
            continue;
        }
        numbers += 1;
        let most = &schema["maximum"];
        assert_taken(name, &most.to_string(), true);
        assert_taken(name, &beside(most, is_integer, true), false);
        if let Some(bound) = schema.get("exclusiveMinimum") {
            assert_taken(name, &bound.to_string(), false);
            assert_taken(name, &beside(bound, is_integer, true), true);
        } else {
            let least = &schema["minimum"];
            assert_taken(name, &least.to_string(), true);
            assert_taken(name, &beside(least, is_integer, false), false);
        }
    }
    // Beside them max_tokens, logprobs and seed.
    assert_eq!(numbers, PARAMETERS.len() + 3);
}

#[test]
fn lengths_and_values_are_those_of_the_validator() {
    let schema = execute_schema(&INSTANCE);
    let text = |n: u64| format!("\"{}\"", "x".repeat(usize::try_from(n).unwrap()));
    let list = |item: &str, n: u64| {
        let items = vec![item; usize::try_from(n).unwrap()];
        format!("[{}]", items.join(","))
    };
    let lengths = |name: &str, schema: &Value, write: &dyn Fn(u64) -> String| {
        let (least, most) = (&schema["minLength"], &schema["maxLength"]);
        let (least, most) = (least.as_u64().unwrap(), most.as_u64().unwrap());
        for (length, is_taken) in [
            (least - 1, false),
            (least, true),
            (most, true),
            (most + 1, false),
        ] {
            assert_taken(name, &write(length), is_taken);
        }
    };
    let properties = &schema["properties"];
    lengths("job_id", &properties["job_id"], &text);
    lengths("cache_salt", &properties["cache_salt"], &text);
    assert_eq!(properties["prompt"]["minLength"], 1);
    assert_taken("prompt", "\"\"", false);
    let ids = &properties["prompt_ids"];
    assert_eq!(ids["items"]["exclusiveMaximum"], 1000);
    assert_eq!(ids["minItems"], 1);
    assert_taken("prompt_ids", "[999]", true);
    assert_taken("prompt_ids", "[1000]", false);
    let stop = properties["stop"]["oneOf"].as_array().unwrap();
    lengths("stop", &stop[0], &text);
    lengths("stop", &stop[1]["items"], &|n| list(&text(n), 1));
    let most = stop[1]["maxItems"].as_u64().unwrap();
    assert_taken("stop", "[]", true);
    assert_taken("stop", &list("\"x\"", most), true);
    assert_taken("stop", &list("\"x\"", most + 1), false);

    let messages = &properties["messages"];
    let message = r#"{"role":"user","content":"x"}"#;
    let bounds = (&messages["minItems"], &messages["maxItems"]);
    let (least, most) = (bounds.0.as_u64().unwrap(), bounds.1.as_u64().unwrap());
    for (count, is_taken) in [
        (least - 1, false),
        (least, true),
        (most, true),
        (most + 1, false),
    ] {
        assert_taken("messages", &list(message, count), is_taken);
    }
    assert_eq!(
        messages["contains"]["properties"]["content"]["minLength"],
        1
    );
    assert_taken("messages", r#"[{"role":"user","content":""}]"#, false);
    let item = &messages["items"];
    assert_eq!(item["required"], json!(["role", "content"]));
    assert_taken(
        "messages",
        r#"[{"role":"user","content":"x","y":1}]"#,
        false,
    );
    let roles = item["properties"]["role"]["enum"].as_array().unwrap();
    for (role, is_taken) in roles
        .iter()
        .map(|r| (r, true))
        .chain([(&json!("function"), false)])
    {
        assert_taken(
            "messages",
            &json!([{"role": role, "content": "x"}]).to_string(),
            is_taken,
        );
    }
    for value in properties["on_disconnect"]["enum"].as_array().unwrap() {
        assert_taken("on_disconnect", &value.to_string(), true);
    }
    assert_taken("on_disconnect", "\"keep\"", false);

    let biases = &properties["logit_bias"];
    let pattern = biases["propertyNames"]["pattern"].as_str().unwrap();
    let pattern = regex::Regex::new(pattern).unwrap();
    for key in ["0", "7", "999", "1000", "01", "-1", "", "1e1"] {
        let value = format!("{{\"{key}\": 1}}");
        assert_taken("logit_bias", &value, pattern.is_match(key));
    }
    for end in ["minimum", "maximum"] {
        let bound = &biases["additionalProperties"][end];
        assert_taken("logit_bias", &format!("{{\"1\": {bound}}}"), true);
        let beyond = bound.as_f64().unwrap() * 1.001;
        assert_taken("logit_bias", &format!("{{\"1\": {beyond}}}"), false);
    }
    assert_eq!(biases["maxProperties"], MAX_LOGIT_BIASES);
}

#[test]
fn names_of_jobs_fit_the_pattern() {
    let schema = execute_schema(&INSTANCE);
    let pattern = schema["properties"]["job_id"]["pattern"].as_str().unwrap();
    let pattern = regex::Regex::new(pattern).unwrap();
    for c in (0..=0x17f).filter_map(char::from_u32) {
        let name = c.to_string();
        assert_eq!(
            pattern.is_match(&name),
            validate::is_job_id(&name),
            "{name:?}"
        );
    }
}

#[test]
fn defaults_are_what_a_field_left_out_counts_as() {
    let schema = execute_schema(&INSTANCE);
    let mut defaults = 0;
    for (name, schema) in schema["properties"].as_object().unwrap() {
        if let Some(default) = schema.get("default") {
            defaults += 1;
            if name == "max_tokens" {
                // Its default depends on more than the request.
                continue;
            }
            assert_eq!(
                check(name, &default.to_string()),
                check(name, "null"),
                "{name}"
            );
        }
    }
    assert_eq!(defaults, 14);
    let default = |max_tokens_out| {
        let instance = Instance {
            max_tokens_out,
            ..INSTANCE
        };
        execute_schema(&instance)["properties"]["max_tokens"]["default"].clone()
    };
    assert_eq!((default(7), default(1 << 20)), (json!(7), json!(2048)));
}

#[test]
fn the_document_says_the_bounds_of_the_instance() {
    let bound = |instance: &Instance, name: &str| {
        execute_schema(instance)["properties"][name]
            .get("maximum")
            .cloned()
    };
    assert_eq!(bound(&INSTANCE, "max_tokens"), Some(json!(4096)));
    assert_eq!(bound(&INSTANCE, "top_k"), Some(json!(1000)));
    let loading = Instance {
        vocab_size: None,
        asks_for_key: false,
        ..INSTANCE
    };
    assert_eq!(bound(&loading, "top_k"), None);
    for (instance, scheme) in [(INSTANCE, "bearer"), (loading, "")] {
        let document = parsed(&instance);
        let found = &document["components"]["securitySchemes"]["key"]["scheme"];
        assert_eq!(found.as_str().unwrap_or_default(), scheme);
        let operation = &document["paths"]["/execute"]["post"];
        assert_eq!(
            operation["responses"].get("401").is_some(),
            instance.asks_for_key
        );
        assert_eq!(operation["security"] != json!([]), instance.asks_for_key);
        let probe = &document["paths"]["/health"]["get"];
        assert_eq!(probe["security"], json!([]));
        assert!(probe["responses"].get("401").is_none());
    }
}

#[test]
fn every_seed_has_room_in_its_format() {
    let document = parsed(&INSTANCE);
    let events = document["components"]["schemas"]["Event"]["oneOf"]
        .as_array()
        .unwrap();
    assert_eq!(events[0]["properties"]["seed"]["format"], "uint64");
}

#[test]
fn every_error_code_is_in_it() {
    let document = parsed(&INSTANCE);
    let schema = &document["components"]["schemas"]["ErrorCode"];
    assert_eq!(schema["enum"], json!(ErrorCode::ALL));
    let text = schema["description"].as_str().unwrap();
    for code in ErrorCode::ALL {
        assert!(
            text.contains(&format!("- `{code}` ({}", code.http_status())),
            "{code}"
        );
    }
    // Each stands under a status that it has.
    for (path, item) in document["paths"].as_object().unwrap() {
        for (status, answer) in item
            .as_object()
            .unwrap()
            .values()
            .flat_map(|o| o["responses"].as_object().unwrap())
        {
            let schema = &answer["content"]["application/json"]["schema"]["allOf"][1];
            let codes = &schema["properties"]["error"]["properties"]["code"]["enum"];
            for code in codes.as_array().into_iter().flatten() {
                let code: ErrorCode = serde_json::from_value(code.clone()).unwrap();
                let fits =
                    code.http_status().to_string() == *status || code == ErrorCode::InvalidRequest;
                assert!(fits, "{path} {status} {code}");
            }
        }
    }
}

/// Calls `see` with every reference in `value`.
fn references(value: &Value, see: &mut impl FnMut(&str)) {
    match value {
        Value::Object(members) => {
            if let Some(target) = members.get("$ref").and_then(Value::as_str) {
                see(target);
            }
            members.values().for_each(|member| references(member, see));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, see)),
        _ => {}
    }
}

#[test]
fn what_it_refers_to_is_there() {
    let document = parsed(&INSTANCE);
    let mut count = 0;
    references(&document, &mut |target| {
        count += 1;
        let pointer = target.trim_start_matches('#');
        assert!(document.pointer(pointer).is_some(), "{target}");
    });
    assert!(count > 50, "{count}");
    // Links name operations.
    let links = &document["paths"]["/execute"]["post"]["responses"]["200"]["links"];
    let operations: Vec<_> = routes::all(true)
        .map(|route| operation(route, &INSTANCE).operation_id)
        .collect();
    for link in links.as_object().unwrap().values() {
        let name = link["operationId"].as_str().map(str::to_owned);
        assert!(operations.contains(&name), "{name:?}");
    }
}

/// The first cells of the table that follows `title` in docs/API.md, where they are code.
fn table<'a>(document: &'a str, title: &str) -> Vec<&'a str> {
    let (_, text) = document.split_once(title).expect(title);
    let rows = text
        .lines()
        .skip_while(|line| !line.starts_with("|---"))
        .skip(1);
    let cells = rows.take_while(|line| line.starts_with('|'));
    let names = cells.flat_map(|line| {
        line.split('|')
            .nth(1)
            .unwrap_or_default()
            .split('`')
            .skip(1)
            .step_by(2)
    });
    names.collect()
}

#[test]
fn it_has_all_that_the_written_document_has() {
    let api = include_str!("../../../../docs/API.md");
    let document = parsed(&INSTANCE).to_string();
    for (title, least) in [
        ("\n### POST /execute\n", 15),
        ("\n| field | type | meaning |\n", 20),
        ("\n| event | field | type | meaning |\n", 4),
        ("\n| code | HTTP | event |", 14),
        ("\n| header of the request | meaning |\n", 6),
        ("\n| header of the answer | when |\n", 5),
    ] {
        let names = table(api, title.trim_end_matches("|\n").trim_end());
        assert!(names.len() >= least, "{title}: {names:?}");
        for name in names {
            let name = name.split(['[', ':', '…']).next().unwrap_or_default();
            for part in name.trim_start_matches('.').split('.') {
                assert!(document.contains(part), "{title}: {part}");
            }
        }
    }
    for (name, bounds, _) in numbers() {
        let (least, most, default) = (bounds.least, bounds.most, bounds.default);
        let row = format!("| `{name}` | number | ");
        let row = api.lines().find_map(|line| line.strip_prefix(row.as_str()));
        let row = row.expect(name);
        let is_range = match bounds.includes_least {
            // A dash beside a minus reads badly.
            true if least < 0.0 => row.starts_with(&format!("−{} to {most};", -least)),
            true => row.starts_with(&format!("{least}–{most};")),
            false => {
                row.starts_with(&format!("{least} < ")) && row.contains(&format!(" ≤ {most};"))
            }
        };
        assert!(
            is_range && row.ends_with(&format!("| {default} |")),
            "{name}: {row}"
        );
    }
    let names = table(api, "\n## Routes\n");
    assert_eq!(names.len(), routes::all(true).count());
    for route in routes::all(true) {
        let name = format!("{} {}", route.method, route.path);
        assert!(
            names.contains(&name.as_str()),
            "{name} is not in docs/API.md"
        );
    }
}
