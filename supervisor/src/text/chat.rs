//! A conversation as chat templates take it: messages, tools, documents and the template's own
//! settings.

use serde_json::{Map, Value, json};

use super::answer::ForcedCall;
use super::template::{ChatTemplate, Message, Role};

/// Most settings of a template (`chat_template_kwargs`).
const MAX_KWARGS: usize = 64;
/// Deepest nesting of a message, of tools, of documents and of a setting. Templates that go down a
/// JSON schema call themselves for each of its levels, and so does the engine for data.
const MAX_DEPTH: usize = 32;

/// What a prompt is rendered from.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatInput {
    /// Objects with `role` (one of [`Role::ALL`]), `content` (a string or null) and what else
    /// templates know: `name`, `tool_calls`, `tool_call_id`, `reasoning_content`. The arguments of
    /// a tool call may be an object or, as OpenAI's clients send them, the JSON text of one.
    pub messages: Vec<Value>,
    /// What the model may call: a list of objects as OpenAI has them.
    pub tools: Option<Value>,
    /// Texts to answer from, for templates that know them.
    pub documents: Option<Value>,
    /// Variables of the template (`chat_template_kwargs`), such as `enable_thinking`.
    pub kwargs: Map<String, Value>,
    /// Whether the prompt ends with the content of the last message, for the model to go on with.
    pub continue_final_message: bool,
    /// Whether the prompt ends with the beginning of the assistant's turn.
    pub add_generation_prompt: bool,
    /// What the output has to be, whose beginning is then the prompt's end.
    pub forced_call: Option<ForcedCall>,
}

impl Default for ChatInput {
    fn default() -> Self {
        Self {
            messages: Vec::new(),
            tools: None,
            documents: None,
            kwargs: Map::new(),
            continue_final_message: false,
            add_generation_prompt: true,
            forced_call: None,
        }
    }
}

/// How a conversation is written down where templates differ. A template fails with what it isn't
/// written for, so the next form is tried.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    /// Some templates test `content is none`, others take each content for a string.
    null_is_empty: bool,
    /// Most templates write arguments of tool calls as JSON themselves, some of the first ones
    /// take them for a text.
    arguments_are_text: bool,
}

const FORMS: [Form; 4] = [
    Form::of(false, false),
    Form::of(true, false),
    Form::of(false, true),
    Form::of(true, true),
];

/// Longest part of a field's or a setting's name that is repeated to the client.
const MAX_NAME_CHARS: usize = 64;

/// A client's name for something, as an error repeats it.
pub(crate) fn shortened(name: &str) -> String {
    match name.char_indices().nth(MAX_NAME_CHARS) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

impl Form {
    const fn of(null_is_empty: bool, arguments_are_text: bool) -> Self {
        Self {
            null_is_empty,
            arguments_are_text,
        }
    }
}

/// Why a conversation can't be rendered. Another one would do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChatError {
    /// A message has no role, or one that no template knows.
    #[error("messages[{0}] has no known role; give one of {roles}", roles = Role::names())]
    Role(usize),
    /// A setting has the name of something that the service or the template engine sets.
    #[error("chat_template_kwargs can't set `{0}`, which is set already; leave it out")]
    ReservedKwarg(String),
    /// There are too many settings.
    #[error("chat_template_kwargs has {0} entries; give at most {MAX_KWARGS}")]
    TooManyKwargs(usize),
    /// Something is nested too deep.
    #[error("{0} is nested more than {MAX_DEPTH} levels deep; give it fewer levels")]
    TooDeep(String),
    /// Two ways for the prompt to end.
    #[error("continue_final_message excludes add_generation_prompt; set one of them to false")]
    TwoEndings,
    /// There is nothing to continue.
    #[error(
        "continue_final_message needs a last message of role assistant whose content is a string \
         that isn't empty"
    )]
    NothingToContinue,
    /// The template leaves out, or changes, the end of the last message.
    #[error(
        "the end of the last message is not in the prompt that the model's chat template makes, so \
         it can't be continued; set continue_final_message to false"
    )]
    NotInPrompt,
    /// The template works, but not with this.
    #[error(
        "{0}; check that messages, tools, documents and chat_template_kwargs have the form that the \
         template expects"
    )]
    Unsuitable(String),
}

impl ChatInput {
    /// A conversation of plain messages, up to where the assistant's next turn begins.
    pub fn of(messages: Vec<Message>) -> Self {
        let message = |m: Message| json!({ "role": m.role.as_str(), "content": m.content });
        Self {
            messages: messages.into_iter().map(message).collect(),
            ..Self::default()
        }
    }

    /// Whether it has nothing but texts of people, the system and the model, for which every
    /// template is made.
    pub(super) fn is_plain(&self) -> bool {
        let plain = |message: &Value| {
            let fields = message.as_object().map_or(0, Map::len);
            let role = message["role"].as_str();
            fields == 2
                && message["content"].is_string()
                && matches!(role, Some("system" | "user" | "assistant"))
        };
        self.tools.is_none()
            && self.documents.is_none()
            && self.kwargs.is_empty()
            && self.messages.iter().all(plain)
    }

    /// The ways to write it down that make a difference to templates, the best first.
    pub(super) fn forms(&self) -> impl Iterator<Item = Form> + use<> {
        let has_calls = self.messages.iter().any(|m| m["tool_calls"].is_array());
        let has_null = self.messages.iter().any(|m| m["content"].is_null());
        FORMS.into_iter().filter(move |form| {
            (has_null || !form.null_is_empty) && (has_calls || !form.arguments_are_text)
        })
    }

    /// What `template` is given, before clients' texts are guarded.
    pub(super) fn prepare(&self, template: &ChatTemplate, form: Form) -> Result<Self, ChatError> {
        let mut prepared = self.clone();
        let rename_developer = !template.source().contains(Role::Developer.as_str());
        for message in &mut prepared.messages {
            rewrite_arguments(message, form.arguments_are_text);
            if form.null_is_empty && message["content"].is_null() {
                empty_content(message);
            }
            if rename_developer {
                developer_to_system(message);
            }
        }
        prepared.check(template)?;
        Ok(prepared)
    }

    fn check(&self, template: &ChatTemplate) -> Result<(), ChatError> {
        let known = |message: &Value| {
            let role = message["role"].as_str();
            Role::ALL.iter().any(|known| role == Some(known.as_str()))
        };
        if let Some(index) = self.messages.iter().position(|message| !known(message)) {
            return Err(ChatError::Role(index));
        }
        if self.kwargs.len() > MAX_KWARGS {
            return Err(ChatError::TooManyKwargs(self.kwargs.len()));
        }
        if let Some(name) = self.kwargs.keys().find(|name| template.defines(name)) {
            return Err(ChatError::ReservedKwarg(shortened(name)));
        }
        self.check_depth()?;
        self.check_ending()
    }

    fn check_depth(&self) -> Result<(), ChatError> {
        let messages = self.messages.iter().enumerate();
        let messages = messages.map(|(i, message)| (format!("messages[{i}]"), message));
        let tools = self.tools.iter().map(|tools| ("tools".to_owned(), tools));
        let documents = self.documents.iter();
        let documents = documents.map(|documents| ("documents".to_owned(), documents));
        let kwargs = self.kwargs.iter();
        let kwargs = kwargs
            .map(|(name, value)| (format!("chat_template_kwargs.{}", shortened(name)), value));
        let mut all = messages.chain(tools).chain(documents).chain(kwargs);
        match all.find(|(_, value)| is_deeper(value, MAX_DEPTH)) {
            Some((what, _)) => Err(ChatError::TooDeep(what)),
            None => Ok(()),
        }
    }

    fn check_ending(&self) -> Result<(), ChatError> {
        if !self.continue_final_message {
            return Ok(());
        }
        if self.add_generation_prompt {
            return Err(ChatError::TwoEndings);
        }
        let last = self.messages.last().unwrap_or(&Value::Null);
        let content = last["content"].as_str().unwrap_or_default();
        if last["role"] != Role::Assistant.as_str() || content.is_empty() {
            return Err(ChatError::NothingToContinue);
        }
        Ok(())
    }

    /// Every string that a client wrote, at any depth, keys included.
    pub(super) fn texts(&self) -> Vec<&str> {
        let mut texts = Vec::new();
        let kwargs = self.kwargs.values();
        let values = self
            .messages
            .iter()
            .chain(&self.tools)
            .chain(&self.documents);
        for value in values.chain(kwargs) {
            collect(value, &mut texts);
        }
        texts.extend(self.kwargs.keys().map(String::as_str));
        texts
    }

    /// The same with `change` made to all [`texts`](Self::texts) but the roles, of which there is
    /// a fixed list and which templates compare.
    pub(super) fn map_texts(mut self, change: &impl Fn(&str) -> String) -> Self {
        for message in &mut self.messages {
            let role = message.get("role").cloned();
            map(message, change);
            if let (Some(role), Some(message)) = (role, message.as_object_mut()) {
                message.insert("role".to_owned(), role);
            }
        }
        for value in self.tools.iter_mut().chain(&mut self.documents) {
            map(value, change);
        }
        map_object(&mut self.kwargs, change);
        self
    }

    /// Puts `marker` after the content of the last message.
    pub(super) fn mark_end(&mut self, marker: char) {
        let last = self.messages.last_mut();
        if let Some(Value::String(content)) = last.and_then(|last| last.get_mut("content")) {
            content.push(marker);
        }
    }
}

/// Makes the arguments of tool calls objects or texts. What is no object's text stays one; no text
/// at all, as clients send it for a call without arguments, is an empty object.
fn rewrite_arguments(message: &mut Value, as_text: bool) {
    let calls = message.get_mut("tool_calls").and_then(Value::as_array_mut);
    for call in calls.into_iter().flatten() {
        let Some(arguments) = call.pointer_mut("/function/arguments") else {
            continue;
        };
        let other = match arguments.as_str().map(str::trim) {
            None if as_text && arguments.is_object() => Some(arguments.to_string().into()),
            Some("") if as_text => Some("{}".into()),
            Some("") => Some(json!({})),
            Some(text) if !as_text => serde_json::from_str(text).ok().filter(Value::is_object),
            _ => None,
        };
        if let Some(other) = other {
            *arguments = other;
        }
    }
}

fn empty_content(message: &mut Value) {
    if let Some(fields) = message.as_object_mut() {
        fields.insert("content".to_owned(), "".into());
    }
}

/// For templates that don't know the role of developers' instructions.
fn developer_to_system(message: &mut Value) {
    if message["role"] == Role::Developer.as_str() {
        message["role"] = Role::System.as_str().into();
    }
}

/// Whether `value` has more than `most` levels of lists and objects.
fn is_deeper(value: &Value, most: usize) -> bool {
    let deeper = |inner: &Value| most == 0 || is_deeper(inner, most - 1);
    match value {
        Value::Array(items) => most == 0 || items.iter().any(deeper),
        Value::Object(fields) => most == 0 || fields.values().any(deeper),
        _ => false,
    }
}

fn collect<'v>(value: &'v Value, texts: &mut Vec<&'v str>) {
    match value {
        Value::String(text) => texts.push(text),
        Value::Array(items) => items.iter().for_each(|item| collect(item, texts)),
        Value::Object(fields) => fields.iter().for_each(|(key, item)| {
            texts.push(key);
            collect(item, texts);
        }),
        _ => {}
    }
}

fn map(value: &mut Value, change: &impl Fn(&str) -> String) {
    match value {
        Value::String(text) => *text = change(text),
        Value::Array(items) => items.iter_mut().for_each(|item| map(item, change)),
        Value::Object(fields) => map_object(fields, change),
        _ => {}
    }
}

fn map_object(fields: &mut Map<String, Value>, change: &impl Fn(&str) -> String) {
    *fields = std::mem::take(fields)
        .into_iter()
        .map(|(key, mut item)| {
            map(&mut item, change);
            (change(&key), item)
        })
        .collect();
}

#[cfg(test)]
mod tests;
