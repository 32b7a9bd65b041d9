//! A request's items as a conversation.

use serde_json::{Map, Value, json};

use super::super::super::json::Json;
use super::super::super::validate::Fields;
use super::super::super::validate::messages::{Unknown, conversation as checked};
use crate::text::ChatInput;

/// An item of a type that means nothing here.
struct UnknownItem;

/// The conversation; notes what is wrong with it.
pub(super) fn conversation(f: &mut Fields) -> ChatInput {
    // Each with the place that it comes from.
    let mut messages = Vec::new();
    if let Some(value) = f.take("instructions") {
        let text = f.string("instructions", "string", value);
        messages
            .extend(text.map(|text| ("instructions".to_owned(), message("system", text.into()))));
    }
    match f.required("input", "a string, or an array of items") {
        Some(Json::String(text)) => {
            messages.push(("input".to_owned(), message("user", text.into())))
        }
        Some(Json::Array(items)) => {
            for (at, item) in items.into_iter().enumerate() {
                match of_item(item.into()) {
                    Ok(item) => messages.extend(item.map(|item| (format!("input[{at}]"), item))),
                    Err(UnknownItem) => unknown_item(f, at),
                }
            }
        }
        Some(other) => {
            f.wrong_type::<()>("input", "string", &other, "a string, or an array of items");
        }
        None => return ChatInput::default(),
    }
    let tools = f.take("tools").map(Value::from);
    let effort = f
        .take("reasoning")
        .map(|r| Value::from(r)["effort"].clone());
    let (places, messages): (Vec<_>, Vec<_>) = messages.into_iter().unzip();
    let mut body = json!({"messages": messages});
    if let Some(tools) = tools {
        body["tools"] = nested_tools(&tools);
    }
    let mut chat = within(f, body, &places).unwrap_or_default();
    if let Some(effort) = effort.filter(Value::is_string) {
        chat.kwargs.insert("reasoning_effort".into(), effort);
    }
    chat
}

/// Checks messages and tools as those of chat completions are checked.
fn within(f: &mut Fields, body: Value, places: &[String]) -> Option<ChatInput> {
    // A value made of one that was parsed is one that can be.
    let body: Json = serde_json::from_value(body).ok()?;
    let mut inner = Fields::of(body).ok()?;
    let messages = inner.take("messages")?;
    let chat = checked(&mut inner, messages, Unknown::Ignored);
    let mut faults = inner.finish_leniently().err().unwrap_or_default();
    for fault in &mut faults {
        let (field, place) = place(&fault.field, places);
        fault.message = fault.message.replace(&field, &place);
        fault.field = fault.field.replace(&field, &place);
    }
    f.add_faults(faults);
    chat
}

/// What a fault's `field` begins with, and what stands for that in the request.
fn place(field: &str, places: &[String]) -> (String, String) {
    let index = field
        .strip_prefix("messages[")
        .and_then(|rest| rest.split(']').next());
    match index.and_then(|index| Some((index, places.get(index.parse::<usize>().ok()?)?))) {
        Some((index, place)) => (format!("messages[{index}]"), place.clone()),
        None => ("messages".into(), "input".into()),
    }
}

fn message(role: &str, content: Value) -> Value {
    json!({"role": role, "content": content})
}

/// The message of an item; `None` for one that says nothing to the model.
fn of_item(item: Value) -> Result<Option<Value>, UnknownItem> {
    let kind = item["type"].as_str().unwrap_or("message");
    match kind {
        "message" => {
            let role = item["role"].as_str().unwrap_or("user").to_owned();
            Ok(Some(message(&role, content(&item["content"]))))
        }
        "function_call" => Ok(Some(
            json!({"role": "assistant", "content": null, "tool_calls": [{
                "id": item["call_id"],
                "type": "function",
                "function": {"name": item["name"], "arguments": item["arguments"]},
            }]}),
        )),
        "function_call_output" => {
            let mut message = message("tool", content(&item["output"]));
            message["tool_call_id"] = item["call_id"].clone();
            Ok(Some(message))
        }
        // What a model thought before is not shown to it again.
        "reasoning" => Ok(None),
        _ => Err(UnknownItem),
    }
}

fn unknown_item(f: &mut Fields, at: usize) {
    let rule = "message, function_call, function_call_output or reasoning";
    f.fault(
        &format!("input[{at}].type"),
        rule,
        format!("input[{at}].type is none of {rule}"),
    );
}

/// Parts of texts under the name that chat completions have for them.
fn content(content: &Value) -> Value {
    let Value::Array(parts) = content else {
        return content.clone();
    };
    let part = |part: &Value| {
        let mut part = part.clone();
        if matches!(part["type"].as_str(), Some("input_text" | "output_text")) {
            part = json!({"type": "text", "text": part["text"]});
        }
        part
    };
    parts.iter().map(part).collect()
}

/// Tools as chat completions have them: `{"type", "function": {…}}`.
fn nested_tools(tools: &Value) -> Value {
    let Value::Array(tools) = tools else {
        return tools.clone();
    };
    let nested = |tool: &Value| {
        let members = tool.as_object().into_iter().flatten();
        let members = members.filter(|(name, _)| !["type", "strict"].contains(&name.as_str()));
        let function: Map<String, Value> = members
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        json!({"type": "function", "function": function})
    };
    tools.iter().map(nested).collect()
}
