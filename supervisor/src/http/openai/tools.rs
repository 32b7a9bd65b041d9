//! Which of a request's tools the model may call, and which it has to.

use orcd_shared::constraint::Constraint;
use serde_json::Value;

use super::super::generate::Decoding;
use super::super::json::Json;
use super::super::validate::{Fields, checked_schema};
use super::request::{Common, not_supported};
use crate::text::{ChatInput, Function, Piece};

const FIELD: &str = "tool_choice";

/// What `tool_choice` says.
pub(super) enum ToolChoice {
    /// No tool is called: the model is told of none.
    None,
    /// Whatever the model likes.
    Auto,
    /// Some tool.
    Required,
    /// The tool of this name.
    Named(String),
}

impl ToolChoice {
    /// Takes it; notes what is wrong. Chat completions have the name in an object `function`, responses beside the type.
    pub(super) fn take(f: &mut Fields) -> Self {
        let value = match f.take(FIELD) {
            None => return Self::Auto,
            Some(Json::String(choice)) => match choice.as_str() {
                "none" => return Self::None,
                "auto" => return Self::Auto,
                "required" => return Self::Required,
                _ => Value::Null,
            },
            Some(other) => other.into(),
        };
        let nested = &value["function"]["name"];
        match nested.as_str().or(value["name"].as_str()) {
            Some(name) if value["type"] == "function" => Self::Named(name.to_owned()),
            _ => {
                not_supported(f, FIELD);
                Self::Auto
            }
        }
    }

    /// Makes it so in the conversation and in what the outputs have to be; notes why that can't be.
    pub(super) fn apply(
        &self,
        f: &mut Fields,
        chat: &mut ChatInput,
        common: &mut Common,
        decoding: &Decoding,
    ) {
        let name = match self {
            Self::Auto => return,
            Self::None => return chat.tools = None,
            Self::Required => None,
            Self::Named(name) => Some(name.as_str()),
        };
        if let Err(Fault(rule, message)) = force(name, f, chat, common, decoding) {
            f.fault(FIELD, rule, message.to_owned());
        }
    }
}

/// What `tool_choice` has to be, and why it can't be what it is.
struct Fault(&'static str, &'static str);

/// Makes a call what the outputs have to be: of the tool of that name, or of any.
fn force(
    name: Option<&str>,
    f: &mut Fields,
    chat: &mut ChatInput,
    common: &mut Common,
    decoding: &Decoding,
) -> Result<(), Fault> {
    if common.is_constrained() {
        let message =
            "tool_choice that forces a call is given with a format; leave out one of them";
        return Err(Fault("auto or none with a format", message));
    }
    if chat.continue_final_message {
        let message = "tool_choice that forces a call is given with continue_final_message; leave out one of them";
        return Err(Fault("auto or none with a message to continue", message));
    }
    if !chat.add_generation_prompt {
        let message = "tool_choice that forces a call is given without add_generation_prompt; leave out one of them";
        return Err(Fault("auto or none without a generation prompt", message));
    }
    let tools = chat.tools.as_ref().and_then(Value::as_array);
    let mut functions: Vec<Function<'_>> = Vec::new();
    for (at, tool) in tools.into_iter().flatten().enumerate() {
        let tool = &tool["function"];
        let Some(found) = tool["name"].as_str() else {
            continue;
        };
        if name.is_some_and(|name| name != found) {
            continue;
        }
        let function = Function {
            name: found,
            parameters: Some(&tool["parameters"]).filter(|p| p.is_object()),
        };
        takes_an_object(f, at, &function);
        // Of equal names the first one counts.
        if functions.iter().all(|known| known.name != found) {
            functions.push(function);
        }
    }
    if functions.is_empty() {
        let message = "tool_choice forces a call of a tool that tools doesn't have";
        return Err(Fault("one of tools", message));
    }
    let Some(call) = decoding.model.text().forced_call(&functions) else {
        let message = "tool_choice leaves the model a choice that its form of calls has no place for; name one tool";
        return Err(Fault("one tool by name", message));
    };
    if let Some(schema) = checked_schema(f, "tools", &call.schema(&functions)) {
        common.force(f, "tools", Constraint::JsonSchema(schema));
    }
    chat.forced_call = Some(call);
    Ok(())
}

/// Notes parameters that can't be the members of an object.
fn takes_an_object(f: &mut Fields, at: usize, function: &Function<'_>) {
    let kind = function.parameters.map_or(&Value::Null, |p| &p["type"]);
    let may_be = |kind: &Value| kind == "object";
    if !kind.is_null() && !may_be(kind) && !kind.as_array().is_some_and(|k| k.iter().any(may_be)) {
        let field = format!("tools[{at}].function.parameters.type");
        let message = format!("{field} is not \"object\", which arguments are");
        f.fault(&field, "object", message);
    }
}

/// Whether a piece may stay where one call is wanted at most.
pub(super) fn is_of_the_first_call(piece: &Piece) -> bool {
    match piece {
        Piece::ToolCall { index, .. } | Piece::Arguments { index, .. } => *index == 0,
        Piece::Content(_) | Piece::Reasoning(_) => true,
    }
}
