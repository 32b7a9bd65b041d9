//! A conversation: messages, tools, and what else a chat template is given.

use serde_json::{Map, Value, json};

use super::super::error::{Detail, MAX_DETAILS};
use super::super::json::Json;
use super::MAX_MESSAGES;
use super::fields::Fields;
use crate::text::{ChatInput, Role};

/// Most tools, and most calls in one message.
pub(super) const MAX_TOOLS: usize = 256;
const ROLE_RULE: &str = "system, developer, user, assistant or tool";
/// What a message may have.
const MESSAGE_FIELDS: [&str; 6] = [
    "role",
    "content",
    "name",
    "tool_calls",
    "tool_call_id",
    "reasoning_content",
];
/// Beside `messages`, what goes to the template.
pub(in crate::http) const CHAT_FIELDS: [&str; 4] = [
    "tools",
    "documents",
    "chat_template_kwargs",
    "continue_final_message",
];

/// Whether fields that nobody knows are faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum Unknown {
    Refused,
    Ignored,
}

/// The conversation in `messages` and what goes with it; notes what is wrong.
pub(in crate::http) fn conversation(
    f: &mut Fields,
    value: Json,
    unknown: Unknown,
) -> Option<ChatInput> {
    let messages = messages(f, value, unknown);
    let tools = tools(f);
    let documents = f.take("documents");
    let documents = documents.and_then(|value| array(f, "documents", value));
    let is_object = |documents: &Vec<Value>| documents.iter().all(Value::is_object);
    if documents
        .as_ref()
        .is_some_and(|documents| !is_object(documents))
    {
        let message = "documents has items that are no objects".to_owned();
        f.fault("documents", "objects", message);
    }
    let documents = documents.map(Value::from);
    let kwargs = kwargs(f);
    let continue_final_message = f.flag("continue_final_message");
    Some(ChatInput {
        messages: messages?,
        tools,
        documents,
        kwargs,
        continue_final_message,
        add_generation_prompt: !continue_final_message,
        forced_call: None,
    })
}

fn messages(f: &mut Fields, value: Json, unknown: Unknown) -> Option<Vec<Value>> {
    const RULE: &str = "1-4096 messages";
    let Json::Array(items) = value else {
        return f.wrong_type("messages", RULE, &value, "an array of messages");
    };
    if !(1..=MAX_MESSAGES).contains(&items.len()) {
        let message = format!(
            "messages has {} items; give 1 to {MAX_MESSAGES}",
            items.len()
        );
        f.fault("messages", RULE, message);
        return None;
    }
    let mut list = Vec::with_capacity(items.len());
    let mut faults = Vec::new();
    for (i, item) in items.into_iter().enumerate() {
        match message(i, item, unknown) {
            Ok(message) => list.push(message),
            // Further ones are not worth their memory.
            Err(more) if faults.len() <= MAX_DETAILS => faults.extend(more),
            Err(_) => {}
        }
    }
    // How long they are together is bounded by the body's size, and by the context.
    let is_empty =
        |m: &Value| m["content"].as_str().is_none_or(str::is_empty) && m["tool_calls"].is_null();
    if faults.is_empty() && list.iter().all(is_empty) {
        let message = "the contents of messages are all empty; give some text".to_owned();
        f.fault("messages", "at least one character", message);
    }
    f.add_faults(faults);
    Some(list)
}

fn message(index: usize, value: Json, unknown: Unknown) -> Result<Value, Vec<Detail>> {
    let mut m = Fields::at(format!("messages[{index}]"), value).map_err(|fault| vec![fault])?;
    let role = role(&mut m, index);
    let mut members = Map::new();
    members.insert("role".into(), role.as_str().into());
    let calls = m
        .take("tool_calls")
        .and_then(|value| tool_calls(&mut m, value));
    members.insert("content".into(), content(&mut m, role));
    for name in ["name", "tool_call_id", "reasoning_content"] {
        let text = m
            .take(name)
            .and_then(|value| m.string(name, "string", value));
        members.extend(text.map(|text| (name.to_owned(), text.into())));
    }
    members.extend(calls.map(|calls| ("tool_calls".to_owned(), calls.into())));
    match unknown {
        Unknown::Refused => m.finish(&MESSAGE_FIELDS)?,
        Unknown::Ignored => drop(m.finish_leniently()?),
    }
    Ok(Value::Object(members))
}

fn role(m: &mut Fields, index: usize) -> Role {
    let role = m.required("role", ROLE_RULE);
    let Some(role) = role.and_then(|value| m.string("role", ROLE_RULE, value)) else {
        return Role::User;
    };
    Role::ALL
        .into_iter()
        .find(|known| known.as_str() == role)
        .unwrap_or_else(|| {
            let message = format!("messages[{index}].role is none of {ROLE_RULE}");
            m.fault("role", ROLE_RULE, message);
            Role::User
        })
}

/// A string, or parts that are texts; an assistant's message may have none.
fn content(m: &mut Fields, role: Role) -> Value {
    let value = match role {
        Role::Assistant => m.take("content"),
        _ => m.required("content", "string"),
    };
    match value {
        None => Value::Null,
        Some(Json::String(text)) => text.into(),
        Some(Json::Array(parts)) => {
            let texts = parts
                .into_iter()
                .enumerate()
                .map(|(i, part)| text_part(m, i, part));
            // As vLLM puts parts together where a template takes strings.
            texts.collect::<Vec<_>>().join("\n").into()
        }
        Some(other) => m
            .wrong_type(
                "content",
                "string",
                &other,
                "a string, or an array of text parts",
            )
            .unwrap_or_default(),
    }
}

fn text_part(m: &mut Fields, index: usize, part: Json) -> String {
    let Json::Object(members) = part else {
        let name = format!("content[{index}]");
        return m
            .wrong_type(&name, "object", &part, "a part of type text")
            .unwrap_or_default();
    };
    let member = |wanted: &str| {
        members
            .iter()
            .find(|(name, _)| name == wanted)
            .map(|(_, value)| value)
    };
    match (member("type"), member("text")) {
        (Some(Json::String(kind)), Some(Json::String(text))) if kind == "text" => text.clone(),
        _ => {
            let message = "a content part is no text; this model takes text only".to_owned();
            m.fault(&format!("content[{index}].type"), "text", message);
            String::new()
        }
    }
}

/// Calls that an assistant made, as templates want them.
fn tool_calls(m: &mut Fields, value: Json) -> Option<Vec<Value>> {
    let items = array(m, "tool_calls", value)?;
    if items.is_empty() {
        return None;
    }
    for (i, item) in items.iter().enumerate() {
        let function = &item["function"];
        let arguments = &function["arguments"];
        if !function["name"].is_string() || !(arguments.is_string() || arguments.is_object()) {
            let message = "a tool call is {\"id\", \"type\": \"function\", \"function\": {\"name\", \"arguments\"}}";
            m.fault(
                &format!("tool_calls[{i}].function"),
                "name and arguments",
                message.into(),
            );
        }
    }
    Some(items)
}

fn tools(f: &mut Fields) -> Option<Value> {
    let value = f.take("tools")?;
    let items = array(f, "tools", value)?;
    for (i, tool) in items.iter().enumerate() {
        let name = tool["function"]["name"].as_str().unwrap_or_default();
        let is_name = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
        if !(1..=64).contains(&name.len()) || !name.bytes().all(is_name) {
            let rule = "1-64 characters of A-Z a-z 0-9 _ - .";
            let message = format!("tools[{i}].function.name is no such name; give {rule}");
            f.fault(&format!("tools[{i}].function.name"), rule, message);
        }
        if !matches!(
            tool["function"]["description"],
            Value::Null | Value::String(_)
        ) {
            let message = format!("tools[{i}].function.description is no string");
            f.fault(
                &format!("tools[{i}].function.description"),
                "string",
                message,
            );
        }
        if !matches!(
            tool["function"]["parameters"],
            Value::Null | Value::Object(_)
        ) {
            let message =
                format!("tools[{i}].function.parameters is no object; give a JSON schema");
            f.fault(
                &format!("tools[{i}].function.parameters"),
                "object",
                message,
            );
        }
    }
    (!items.is_empty()).then(|| json!(items))
}

fn array(f: &mut Fields, name: &str, value: Json) -> Option<Vec<Value>> {
    let rule = format!("at most {MAX_TOOLS}");
    match value {
        Json::Array(items) if items.len() <= MAX_TOOLS => {
            Some(items.into_iter().map(Value::from).collect())
        }
        Json::Array(items) => {
            let message = format!("{name} has {} items; give at most {MAX_TOOLS}", items.len());
            f.fault(name, &rule, message);
            None
        }
        other => f.wrong_type(name, &rule, &other, "an array"),
    }
}

fn kwargs(f: &mut Fields) -> Map<String, Value> {
    match f.take("chat_template_kwargs") {
        None => Map::new(),
        Some(Json::Object(members)) => members
            .into_iter()
            .map(|(name, value)| (name, value.into()))
            .collect(),
        Some(other) => f
            .wrong_type("chat_template_kwargs", "object", &other, "an object")
            .unwrap_or_default(),
    }
}
