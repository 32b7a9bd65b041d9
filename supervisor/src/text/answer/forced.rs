//! A call that the output has to be: how the prompt begins it, what the rest of it has to be, and how that is read.

use orcd_shared::constraint::SCHEMA_MAPS;
use serde_json::{Map, Value, json};

use super::json::{CallParser, Certainty, Step};
use super::sink::Sink;
use super::tag::Tag;
use super::{AnswerFormat, Reasoning, ToolFormat};

/// Members of a schema whose values are data: what looks like a reference there is none.
const DATA: [&str; 4] = ["const", "enum", "default", "examples"];
/// What a schema says about itself as a document, which it is no more where it becomes a part of another.
const OF_A_DOCUMENT: [&str; 2] = ["$id", "$schema"];
/// The name of a call's arguments in most forms.
const ARGUMENTS: &str = "arguments";

/// A call of one of some functions that an output has to be, in the model's own form as far as that is known.
///
/// The prompt ends with what the form has in front of JSON, control tokens among it; the output is JSON and ends there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForcedCall {
    reasoning: Reasoning,
    form: Form,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    /// `{"name": "f", "arguments": {}}` behind an opening; Llama has another name for the arguments.
    Object {
        opening: &'static str,
        arguments: &'static str,
    },
    /// The same in a list, behind `[TOOL_CALLS]`.
    List,
    /// The arguments alone, of the function of that name: the header of a message has said it.
    Arguments(String),
}

/// A function as a request describes it.
#[derive(Clone, Copy, Debug)]
pub struct Function<'a> {
    /// Letters, digits, `_`, `-` and `.`
    pub name: &'a str,
    /// The JSON schema of its arguments, which are an object; without one it takes none.
    pub parameters: Option<&'a Value>,
}

impl ForcedCall {
    /// A call of one of `functions`, in `format`. `None` where the form has the name in front of all JSON, and there are
    /// several.
    pub fn new(format: AnswerFormat, functions: &[Function<'_>]) -> Option<Self> {
        let form = match format.tools {
            ToolFormat::None => Form::Object {
                opening: "",
                arguments: ARGUMENTS,
            },
            ToolFormat::Hermes => Form::Object {
                opening: "<tool_call>\n",
                arguments: ARGUMENTS,
            },
            ToolFormat::Llama3Json => Form::Object {
                opening: "",
                arguments: "parameters",
            },
            ToolFormat::Mistral => Form::List,
            ToolFormat::Harmony => match functions {
                [one] => Form::Arguments(one.name.to_owned()),
                _ => return None,
            },
        };
        let reasoning = format.reasoning;
        Some(Self { reasoning, form })
    }

    /// What goes behind the prompt, which has been rendered. Reasoning that it begins is over. `guard` keeps control
    /// tokens in a client's text from acting.
    pub(in crate::text) fn opening(&self, prompt: &str, guard: impl Fn(&str) -> String) -> String {
        let mut opening = String::new();
        if let Reasoning::Think(tags) = self.reasoning
            && prompt.trim_end().ends_with(tags.open().name())
        {
            opening = format!("\n{}\n\n", tags.close().name());
        }
        match &self.form {
            Form::Object { opening: of, .. } => opening += of,
            Form::List => opening += Tag::ToolCalls.name(),
            Form::Arguments(name) => {
                let [channel, constrain, message] =
                    [Tag::Channel, Tag::Constrain, Tag::Message].map(Tag::name);
                let name = guard(name);
                opening +=
                    &format!("{channel}commentary to=functions.{name} {constrain}json{message}");
            }
        }
        opening
    }

    /// The JSON schema of what the model writes: a call of one of `functions`. Their arguments are definitions by their
    /// names, which an error about them shows.
    pub fn schema(&self, functions: &[Function<'_>]) -> Value {
        let arguments = match (&self.form, functions) {
            (Form::Arguments(_), [one]) => return parameters(one, ""),
            (Form::Object { arguments, .. }, _) => arguments,
            (Form::List | Form::Arguments(_), _) => ARGUMENTS,
        };
        // The name comes first, as models write it: readers of a stream know it before the arguments.
        let call = |f: &Function<'_>| {
            json!({
                "type": "object",
                "properties": {"name": {"const": f.name}, arguments: {"$ref": place(f)}},
                "required": ["name", arguments],
                "additionalProperties": false,
            })
        };
        let calls = match functions {
            [one] => call(one),
            several => json!({"anyOf": several.iter().map(call).collect::<Vec<_>>()}),
        };
        let calls = match self.form {
            Form::List => json!({"type": "array", "items": calls, "minItems": 1, "maxItems": 1}),
            _ => calls,
        };
        let definition = |f: &Function<'_>| (f.name.to_owned(), parameters(f, &place(f)));
        let definitions: Map<String, Value> = functions.iter().map(definition).collect();
        // Before what refers to them: whoever looks for a fault finds it where it is.
        let mut schema = Map::from_iter([("$defs".to_owned(), definitions.into())]);
        if let Value::Object(calls) = calls {
            schema.extend(calls);
        }
        schema.into()
    }

    /// A reader of the output.
    pub(super) fn reader(&self, sink: &mut Sink) -> Reader {
        match &self.form {
            Form::Object { .. } => Reader::Call(CallParser::new(Certainty::Tagged)),
            Form::List => Reader::List,
            Form::Arguments(name) => {
                sink.begin_call(name.clone());
                Reader::Arguments
            }
        }
    }
}

/// Where the schema of the function's arguments lies.
fn place(function: &Function<'_>) -> String {
    format!("#/$defs/{}", function.name)
}

/// The schema of the function's arguments, as it is at `place`.
fn parameters(function: &Function<'_>, place: &str) -> Value {
    let Some(parameters) = function.parameters else {
        return json!({"type": "object", "additionalProperties": false});
    };
    let mut schema = parameters.clone();
    if let Some(members) = schema.as_object_mut() {
        // Others that it may be are left out: arguments are an object.
        members.insert("type".into(), "object".into());
        for name in OF_A_DOCUMENT {
            members.remove(name);
        }
    }
    if !place.is_empty() {
        rebase(&mut schema, place);
    }
    schema
}

/// Makes references within a document such to the document that it is now a part of, at `place`.
fn rebase(schema: &mut Value, place: &str) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(|item| rebase(item, place)),
        Value::Object(members) => {
            for (name, value) in members {
                match value {
                    Value::String(to) if name == "$ref" && (to == "#" || to.starts_with("#/")) => {
                        *to = format!("{place}{}", &to[1..]);
                    }
                    Value::Object(schemas) if SCHEMA_MAPS.contains(&name.as_str()) => {
                        schemas
                            .values_mut()
                            .for_each(|schema| rebase(schema, place));
                    }
                    value if !DATA.contains(&name.as_str()) => rebase(value, place),
                    _ => {}
                }
            }
        }
        _ => {}
    }
}

/// Reads an output that has to be a call, or the beginning of one.
#[derive(Clone, Debug)]
pub(super) enum Reader {
    /// In front of a list's first bracket, or behind it.
    List,
    Call(CallParser),
    Arguments,
    /// Behind the call.
    Over,
}

impl Reader {
    pub(super) fn text(&mut self, mut text: &str, sink: &mut Sink) {
        while !text.is_empty() {
            text = match self {
                Self::List => {
                    *self = Self::Call(CallParser::new(Certainty::Tagged));
                    text.trim_start_matches(|c: char| c.is_whitespace() || c == '[')
                }
                Self::Call(call) => match call.take(text, sink) {
                    (Step::More, rest) => rest,
                    // What the constraint allows can't fail.
                    (Step::Done | Step::Failed, _) => {
                        *self = Self::Over;
                        ""
                    }
                },
                Self::Arguments => {
                    sink.arguments(text);
                    ""
                }
                Self::Over => "",
            };
        }
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        match self {
            Self::Call(call) => call.held(),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{AnswerParser, Piece, ThinkTags};
    use super::*;

    fn format(tools: ToolFormat) -> AnswerFormat {
        AnswerFormat {
            reasoning: Reasoning::None,
            tools,
        }
    }

    fn function<'a>(name: &'a str, parameters: &'a Value) -> Function<'a> {
        Function {
            name,
            parameters: Some(parameters),
        }
    }

    fn opening(format: AnswerFormat, prompt: &str) -> String {
        let none = json!({});
        let call = ForcedCall::new(format, &[function("f", &none)]).unwrap();
        call.opening(prompt, |name| format!("<{name}>"))
    }

    /// What is read of `output`, whole and character by character.
    fn read(tools: ToolFormat, output: &str) -> Vec<Piece> {
        let none = json!({});
        let call = ForcedCall::new(format(tools), &[function("f", &none)]).unwrap();
        let [mut whole, mut cut] = [Vec::new(), Vec::new()];
        let mut parser = AnswerParser::of_call(&call);
        parser.push(1, output, &mut whole);
        parser.finish(&mut whole);
        let mut parser = AnswerParser::of_call(&call);
        for c in output.chars() {
            parser.push(1, &c.to_string(), &mut cut);
        }
        parser.finish(&mut cut);
        let text = |pieces: &[Piece]| -> String {
            let text = |p: &Piece| match p {
                Piece::ToolCall { name, .. } => format!("{name}:"),
                Piece::Arguments { text, .. } => text.clone(),
                other => format!("{other:?}"),
            };
            pieces.iter().map(text).collect()
        };
        assert_eq!(text(&whole), text(&cut));
        whole
    }

    #[test]
    fn a_call_begins_as_the_model_begins_one() {
        let cases = [
            (ToolFormat::None, ""),
            (ToolFormat::Hermes, "<tool_call>\n"),
            (ToolFormat::Llama3Json, ""),
            (ToolFormat::Mistral, "[TOOL_CALLS]"),
            (
                ToolFormat::Harmony,
                "<|channel|>commentary to=functions.<f> <|constrain|>json<|message|>",
            ),
        ];
        for (tools, expected) in cases {
            assert_eq!(opening(format(tools), "assistant\n"), expected);
        }
    }

    #[test]
    fn reasoning_that_the_prompt_begins_is_over() {
        let format = AnswerFormat {
            reasoning: Reasoning::Think(ThinkTags::Angle),
            tools: ToolFormat::Hermes,
        };
        assert_eq!(
            opening(format, "assistant\n<think>\n"),
            "\n</think>\n\n<tool_call>\n"
        );
        let closed = "assistant\n<think>\n\n</think>\n\n";
        assert_eq!(opening(format, closed), "<tool_call>\n");
    }

    #[test]
    fn of_several_functions_a_header_can_name_none() {
        let none = json!({});
        let two = [function("f", &none), function("g", &none)];
        assert_eq!(ForcedCall::new(format(ToolFormat::Harmony), &two), None);
        assert!(ForcedCall::new(format(ToolFormat::Mistral), &two).is_some());
    }

    #[test]
    fn references_in_parameters_stay_within_them() {
        let leaf = json!({"properties": {"a": {"$ref": "#/$defs/b"}}, "$defs": {"b": true}});
        let two = [function("f", &leaf), function("g", &leaf)];
        let call = ForcedCall::new(format(ToolFormat::Mistral), &two).unwrap();
        let schema = call.schema(&two);
        let reference = schema.pointer("/$defs/g/properties/a/$ref");
        assert_eq!(reference, Some(&json!("#/$defs/g/$defs/b")));
        assert_eq!(schema.pointer("/$defs/g/$defs/b"), Some(&json!(true)));
        let tree = json!({
            "$id": "https://example.org/tree",
            "properties": {
                "left": {"$ref": "#"},
                "leaf": {"$ref": "#/$defs/leaf"},
                "$ref": {"enum": ["#/x", {"$ref": "#/x"}]},
                "other": {"$ref": "https://example.org/other"},
                "examples": {"items": {"$ref": "#/$defs/default"}},
            },
            "$defs": {"leaf": {"type": "null"}, "default": {"$ref": "#/$defs/leaf"}},
        });
        let functions = [function("grow", &tree)];
        let call = ForcedCall::new(format(ToolFormat::Hermes), &functions).unwrap();
        assert_eq!(
            call.schema(&functions)["$defs"]["grow"],
            json!({
                "type": "object",
                "properties": {
                    "left": {"$ref": "#/$defs/grow"},
                    "leaf": {"$ref": "#/$defs/grow/$defs/leaf"},
                    "$ref": {"enum": ["#/x", {"$ref": "#/x"}]},
                    "other": {"$ref": "https://example.org/other"},
                    "examples": {"items": {"$ref": "#/$defs/grow/$defs/default"}},
                },
                "$defs": {
                    "leaf": {"type": "null"},
                    "default": {"$ref": "#/$defs/grow/$defs/leaf"},
                },
            })
        );
    }

    #[test]
    fn each_form_has_its_schema() {
        let none = json!({});
        let without = Function {
            name: "g",
            parameters: None,
        };
        let functions = [function("f", &none), without];
        let of = |tools, functions: &[Function<'_>]| {
            let call = ForcedCall::new(format(tools), functions).unwrap();
            call.schema(functions)
        };
        let hermes = of(ToolFormat::Hermes, &functions);
        assert_eq!(hermes["anyOf"][1]["properties"]["name"]["const"], "g");
        assert_eq!(hermes["$defs"]["f"], json!({"type": "object"}));
        assert_eq!(hermes["$defs"]["g"]["additionalProperties"], false);
        let llama = of(ToolFormat::Llama3Json, &functions[..1]);
        assert_eq!(llama["required"], json!(["name", "parameters"]));
        let mistral = of(ToolFormat::Mistral, &functions[..1]);
        assert_eq!(mistral["items"]["properties"]["name"]["const"], "f");
        assert_eq!(mistral["maxItems"], 1);
        let harmony = of(ToolFormat::Harmony, &functions[..1]);
        assert_eq!(harmony, json!({"type": "object"}));
    }

    #[test]
    fn a_call_is_read_from_each_form() {
        let call = |text: &str| {
            vec![
                Piece::ToolCall {
                    index: 0,
                    name: "f".into(),
                },
                Piece::Arguments {
                    index: 0,
                    text: text.into(),
                },
            ]
        };
        let object = r#"{"name": "f", "arguments": {"a": "}]"}}"#;
        let arguments = r#"{"a": "}]"}"#;
        assert_eq!(read(ToolFormat::Hermes, object), call(arguments));
        assert_eq!(read(ToolFormat::None, object), call(arguments));
        let llama = object.replace("arguments", "parameters");
        assert_eq!(read(ToolFormat::Llama3Json, &llama), call(arguments));
        assert_eq!(
            read(ToolFormat::Mistral, &format!("[\n {object}\n]")),
            call(arguments)
        );
        assert_eq!(read(ToolFormat::Harmony, arguments), call(arguments));
    }

    #[test]
    fn a_call_that_is_cut_short_is_read_as_far_as_it_goes() {
        let cut = r#"{"name": "f", "arguments": {"a": "#;
        let pieces = read(ToolFormat::Hermes, cut);
        assert_eq!(
            pieces.last(),
            Some(&Piece::Arguments {
                index: 0,
                text: r#"{"a": "#.into()
            })
        );
    }
}
