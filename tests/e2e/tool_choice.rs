//! Calls of tools that an output has to be.

use orcd_tests::real::RealModel;
use orcd_tests::{Model, Starter, WorkerHarness};
use serde_json::{Value, json};

/// Two tools: a tree, which refers to itself, and one without parameters.
fn tools() -> Value {
    let tree = json!({
        "type": "object",
        "properties": {
            "kind": {"$ref": "#/$defs/kind"},
            "children": {"type": "array", "items": {"$ref": "#"}, "maxItems": 1},
        },
        "required": ["kind"],
        "additionalProperties": false,
        "$defs": {"kind": {"enum": ["oak", "ash"]}},
    });
    json!([
        {"type": "function", "function": {"name": "plant", "description": "Plants a tree", "parameters": tree}},
        {"type": "function", "function": {"name": "rest"}},
    ])
}

fn chat(choice: &Value, more: &Value) -> Value {
    let mut body = json!({
        "messages": [{"role": "user", "content": "Plant an oak."}],
        "tools": tools(),
        "tool_choice": choice,
        "max_tokens": 1500,
    });
    let members = more.as_object().into_iter().flatten();
    members.for_each(|(name, value)| body[name] = value.clone());
    body
}

fn named(name: &str) -> Value {
    json!({"type": "function", "function": {"name": name}})
}

/// Whether these are arguments of that tool.
fn fits(name: &str, arguments: &Value) -> bool {
    let Some(members) = arguments.as_object() else {
        return false;
    };
    match name {
        "rest" => members.is_empty(),
        "plant" => members.iter().all(|(name, value)| match name.as_str() {
            "kind" => value == "oak" || value == "ash",
            "children" => {
                let children = value.as_array().unwrap();
                children.len() <= 1 && children.iter().all(|child| fits("plant", child))
            }
            _ => false,
        }),
        _ => false,
    }
}

/// The one call of a choice: its name and its arguments.
#[track_caller]
fn call_of(choice: &Value) -> (String, Value) {
    assert_eq!(choice["finish_reason"], "tool_calls", "{choice}");
    assert_eq!(choice["message"]["content"], Value::Null, "{choice}");
    let calls = choice["message"]["tool_calls"].as_array().unwrap();
    assert_eq!(calls.len(), 1, "{choice}");
    let function = &calls[0]["function"];
    let arguments = serde_json::from_str(function["arguments"].as_str().unwrap()).unwrap();
    (function["name"].as_str().unwrap().to_owned(), arguments)
}

/// What the chunks of a stream put together: name, arguments and how it ended.
fn joined(chunks: &str) -> (String, String, Value) {
    let [mut name, mut arguments] = [String::new(), String::new()];
    let mut finish = Value::Null;
    let lines = chunks
        .lines()
        .filter_map(|line| line.strip_prefix("data: "));
    for line in lines.filter(|line| *line != "[DONE]") {
        let chunk: Value = serde_json::from_str(line).unwrap();
        let choice = &chunk["choices"][0];
        let function = &choice["delta"]["tool_calls"][0]["function"];
        name += function["name"].as_str().unwrap_or_default();
        arguments += function["arguments"].as_str().unwrap_or_default();
        if !choice["finish_reason"].is_null() {
            finish = choice["finish_reason"].clone();
        }
    }
    (name, arguments, finish)
}

#[test]
fn a_call_that_is_asked_for_comes_and_its_arguments_fit() {
    let service = WorkerHarness::start(Model::Tiny);
    for seed in 0..6 {
        let body = chat(&json!("required"), &json!({"seed": seed, "n": 2}));
        let reply = service.post("/v1/chat/completions", &body).json();
        let choices = reply["choices"].as_array().unwrap();
        assert_eq!(choices.len(), 2);
        for choice in choices {
            let (name, arguments) = call_of(choice);
            assert!(fits(&name, &arguments), "{name} {arguments}");
        }
        let body = chat(&named("plant"), &json!({"seed": seed}));
        let reply = service.post("/v1/chat/completions", &body).json();
        let (name, arguments) = call_of(&reply["choices"][0]);
        assert!(
            name == "plant" && fits(&name, &arguments),
            "{name} {arguments}"
        );
        let streamed = service.post(
            "/v1/chat/completions",
            &chat(&named("plant"), &json!({"seed": seed, "stream": true})),
        );
        let (name, text, finish) = joined(streamed.text());
        assert_eq!((name.as_str(), finish), ("plant", json!("tool_calls")));
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), arguments);
    }
}

#[test]
fn responses_force_calls_too() {
    let service = WorkerHarness::start(Model::Tiny);
    let flat = |tool: &Value| {
        let mut flat = tool["function"].clone();
        flat["type"] = "function".into();
        flat
    };
    let tools: Value = tools().as_array().unwrap().iter().map(flat).collect();
    let choice = json!({"type": "function", "name": "rest"});
    let body = json!({"input": "Take a break.", "tools": tools, "tool_choice": choice, "max_output_tokens": 100});
    let reply = service.post("/v1/responses", &body).json();
    let call = &reply["output"][0];
    assert_eq!(
        (&call["type"], &call["name"]),
        (&json!("function_call"), &json!("rest")),
        "{reply}"
    );
    assert_eq!(reply["tool_choice"], choice);
    assert_eq!(reply["text"]["format"]["type"], "text");
    let arguments: Value = serde_json::from_str(call["arguments"].as_str().unwrap()).unwrap();
    assert!(fits("rest", &arguments), "{reply}");
}

#[test]
fn a_call_that_can_not_be_forced_is_refused_by_name() {
    let service = WorkerHarness::start(Model::Tiny);
    let bad = json!([{"type": "function", "function": {"name": "plant", "parameters": {
        "properties": {"at": {"$ref": "#/$defs/at"}, "kind": {"type": "shrub"}}, "$defs": {"at": {"type": "null"}}}}}]);
    let list = json!([{"type": "function", "function": {"name": "plant", "parameters": {"type": "array"}}}]);
    let ended = json!([{"role": "assistant", "content": "I"}]);
    let cases = [
        (named("dig"), json!({}), "tool_choice"),
        (json!("required"), json!({"tools": null}), "tool_choice"),
        (json!("always"), json!({}), "tool_choice"),
        (
            json!({"type": "allowed_tools", "name": "plant"}),
            json!({}),
            "tool_choice",
        ),
        (
            json!("required"),
            json!({"response_format": {"type": "json_object"}}),
            "tool_choice",
        ),
        (
            json!("required"),
            json!({"messages": ended, "continue_final_message": true}),
            "tool_choice",
        ),
        (json!("required"), json!({"ignore_eos": true}), "ignore_eos"),
        (
            json!("required"),
            json!({"tools": list}),
            "tools[0].function.parameters.type",
        ),
        (json!("required"), json!({"tools": bad}), "tools"),
    ];
    for (choice, more, field) in cases {
        let reply = service.post("/v1/chat/completions", &chat(&choice, &more));
        assert_eq!(reply.status(), 400, "{choice} {more}");
        let error = reply.json()["error"].clone();
        assert_eq!(error["param"], field, "{error}");
        if field == "tools" {
            let message = error["message"].as_str().unwrap();
            assert!(
                message.contains("#/$defs/plant/properties/kind: "),
                "{message}"
            );
        }
    }
    let auto = chat(&json!("auto"), &json!({"tools": bad}));
    assert_eq!(service.post("/v1/chat/completions", &auto).status(), 200);
}

#[test]
fn a_killed_worker_changes_no_call() {
    let service = Starter::new(Model::Slow).without_hang_timeout().start();
    let body = chat(&json!("required"), &json!({"seed": 4, "stream": true}));
    let whole = service.post("/v1/chat/completions", &body);
    let expected = joined(whole.text());
    assert_eq!(expected.2, "tool_calls");
    let mut connection = service.connect();
    let bytes = body.to_string().into_bytes();
    let request = orcd_tests::http::request_bytes("POST", "/v1/chat/completions", &[], &bytes);
    connection.send(&request).unwrap();
    let head = connection.read_head().unwrap();
    let mut stream = connection.into_body(&head);
    let mut found = String::new();
    let mut killed = false;
    while let Some(bytes) = stream.read().unwrap() {
        found.push_str(&String::from_utf8(bytes).unwrap());
        if !killed && found.contains("arguments") {
            service.kill_worker();
            killed = true;
        }
    }
    assert!(killed && !found.contains("\"error\""), "{found}");
    assert_eq!(joined(&found), expected);
    service.wait_for_log("replays=1");
}

#[test]
fn a_real_model_calls_in_its_own_form() {
    let Some(model) = RealModel::Coder.get() else {
        return;
    };
    let service = Starter::new(model).flag("--context", 1024).start();
    let weather = json!([{"type": "function", "function": {
        "name": "get_weather",
        "description": "Tells the weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"enum": ["celsius", "fahrenheit"]}},
            "required": ["city", "unit"],
            "additionalProperties": false,
        },
    }}]);
    let question =
        json!([{"role": "user", "content": "How warm is it in Paris, in degrees Celsius?"}]);
    let ask = json!({"messages": question, "tools": weather, "temperature": 0});
    for choice in [json!("required"), named("get_weather")] {
        let reply = service
            .post("/v1/chat/completions", &chat(&choice, &ask))
            .json();
        let (name, arguments) = call_of(&reply["choices"][0]);
        assert_eq!(name, "get_weather");
        assert_eq!(arguments, json!({"city": "Paris", "unit": "celsius"}));
    }
}
