//! Reasoning and calls of tools, in the model's own form, as OpenAI's dialects have them.

use std::sync::Arc;

use orcd_shared::gguf::Value as Meta;
use orcd_supervisor::model::Model;
use serde_json::{Value, json};

use crate::played::{self, Service};
use crate::support::{Client, listen};

/// As Qwen's: tools before the messages, reasoning and calls in tags.
const TEMPLATE: &str = "{%- if tools %}{{ tools | tojson }}<tool_call>{% endif %}\
    {%- for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}\
    {%- for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}<|im_end|>\n\
    {%- endfor %}<|im_start|>assistant\n{#- <think> -#}";
const OUTPUT: &str = "<think>\nIs it raining?\n</think>\n\nLet me see.\n<tool_call>\n{\"name\": \"weather\", \
    \"arguments\": {\"city\": \"Zürich\"}}\n</tool_call>";

fn body(more: &Value) -> Value {
    let mut body = json!({
        "messages": [{"role": "user", "content": "Weather in Zürich?"}],
        "tools": [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}],
    });
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

/// What the service makes of a worker that writes [`OUTPUT`].
async fn answer(path: &str, body: &Value) -> String {
    let mut worker = Service::ready_with(|_| {}).await;
    let (app, address, _stop) = listen().await;
    let mut metadata = played::metadata();
    metadata
        .insert("tokenizer.chat_template", Meta::String(TEMPLATE.into()))
        .unwrap();
    let model = Model::from_metadata(&metadata, "bytes").unwrap();
    app.0.serve(worker.jobs.clone(), Arc::new(model));
    let mut client = Client::connect(address).await;
    client.post(path, &body.to_string()).await;
    let spec = worker.submitted().await;
    worker.tokens(spec.key, 0, OUTPUT).await;
    let count = u32::try_from(OUTPUT.len()).unwrap();
    worker.eos(spec.key, count).await;
    if body["stream"] != true {
        return client.answer().await.1;
    }
    assert_eq!(client.head().await.status, 200);
    let mut stream = String::new();
    loop {
        match client.event().await {
            end if end.is_empty() => return stream,
            chunk => stream.push_str(&chunk),
        }
    }
}

/// The JSON of the chunks of a stream.
fn chunks(stream: &str) -> Vec<Value> {
    let data = stream
        .lines()
        .filter_map(|line| line.strip_prefix("data: "));
    let chunks = data.filter(|data| *data != "[DONE]");
    chunks
        .map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

#[tokio::test]
async fn a_whole_answer_has_reasoning_content_and_calls_apart() {
    let whole = answer("/v1/chat/completions", &body(&json!({}))).await;
    let whole: Value = serde_json::from_str(&whole).unwrap();
    let choice = &whole["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls");
    let message = &choice["message"];
    assert_eq!(message["reasoning_content"], "Is it raining?\n");
    assert_eq!(message["reasoning"], message["reasoning_content"]);
    assert_eq!(message["content"], "Let me see.");
    let call = &message["tool_calls"][0];
    assert_eq!(call["type"], "function");
    let name_and_arguments = json!({"name": "weather", "arguments": "{\"city\": \"Zürich\"}"});
    assert_eq!(call["function"], name_and_arguments);
    assert_eq!(call["id"].as_str().unwrap().len(), 9);
}

#[tokio::test]
async fn a_stream_says_the_same_in_deltas() {
    let stream = answer("/v1/chat/completions", &body(&json!({"stream": true}))).await;
    let (mut reasoning, mut content, mut name, mut arguments) = Default::default();
    let mut ids = Vec::new();
    let push = |text: &mut String, value: &Value| text.push_str(value.as_str().unwrap_or_default());
    let chunks = chunks(&stream);
    for delta in chunks.iter().map(|chunk| &chunk["choices"][0]["delta"]) {
        push(&mut reasoning, &delta["reasoning_content"]);
        push(&mut content, &delta["content"]);
        let call = &delta["tool_calls"][0];
        ids.extend(call["id"].as_str());
        push(&mut name, &call["function"]["name"]);
        push(&mut arguments, &call["function"]["arguments"]);
    }
    assert_eq!(
        (reasoning.as_str(), content.as_str()),
        ("Is it raining?\n", "Let me see.")
    );
    assert_eq!(
        (name.as_str(), arguments.as_str()),
        ("weather", "{\"city\": \"Zürich\"}")
    );
    assert_eq!(ids.len(), 1);
    assert_eq!(
        chunks.last().unwrap()["choices"][0]["finish_reason"],
        "tool_calls"
    );
    assert!(stream.trim_end().ends_with("data: [DONE]"));
}

#[tokio::test]
async fn without_tools_a_call_is_text() {
    let none = answer(
        "/v1/chat/completions",
        &body(&json!({"tool_choice": "none"})),
    )
    .await;
    let none: Value = serde_json::from_str(&none).unwrap();
    let choice = &none["choices"][0];
    assert_eq!(choice["finish_reason"], "stop");
    assert!(
        choice["message"]["content"]
            .as_str()
            .unwrap()
            .contains("<tool_call>")
    );
    assert!(choice["message"].get("tool_calls").is_none());
}

#[tokio::test]
async fn a_response_has_an_item_for_each_part() {
    let tools = json!([{"type": "function", "name": "weather", "parameters": {"type": "object"}}]);
    let request = json!({"input": "Weather in Zürich?", "tools": tools, "stream": true});
    let stream = answer("/v1/responses", &request).await;
    let events = chunks(&stream);
    let numbers: Vec<_> = events
        .iter()
        .map(|event| event["sequence_number"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>());
    let last = events.last().unwrap();
    assert_eq!(last["type"], "response.completed");
    let output = last["response"]["output"].as_array().unwrap();
    let kinds: Vec<_> = output
        .iter()
        .map(|item| item["type"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["reasoning", "message", "function_call"]);
    assert_eq!(output[1]["content"][0]["text"], "Let me see.");
    assert_eq!(output[2]["arguments"], "{\"city\": \"Zürich\"}");
    // What the deltas say together is what the items say.
    let joined = |kind: &str| -> String {
        let of_kind = events.iter().filter(|event| event["type"] == kind);
        of_kind
            .map(|event| event["delta"].as_str().unwrap())
            .collect()
    };
    assert_eq!(joined("response.output_text.delta"), "Let me see.");
    assert_eq!(
        joined("response.function_call_arguments.delta"),
        "{\"city\": \"Zürich\"}"
    );
}
