//! Chat templates: what a list of messages looks like to the model.
//!
//! A template is a Jinja program in the model's file, written for the environment that Hugging
//! Face's `apply_chat_template` gives it; [`python`] holds what that has beyond Jinja itself, and
//! [`source`] what the engine has to be told in other words.
//!
//! It reads no files and sees nothing but what it is given, and a budget ends it when it does too much.
//! How deep it nests expressions and data is bounded by its length and by [`python`]'s calls; the
//! stack that this takes is [`apart`]'s.

mod apart;
mod data;
mod error;
mod python;
mod source;
mod trial;

use jiff::Zoned;
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Value};
use serde::{Deserialize, Serialize};

pub use error::TemplateError;

use super::chat::ChatInput;

/// Longest template in bytes. The longest that are published have some 20 KiB.
pub const MAX_TEMPLATE_BYTES: usize = 64 << 10;
/// What one rendering may cost: instructions, plus one for every 64 bytes of text or data that it
/// makes. It bounds a hostile template to seconds and some 128 MB. The longest requests, a body of
/// 1 MiB or 4096 messages, take a part of it in published templates but one: Gemma 4 looks back from
/// each message through all earlier ones, so some 600 are its most.
const FUEL: u64 = 2_000_000;
/// How deep macros may call each other, of which the engine counts each as four. Published
/// templates recurse over the nesting of a JSON schema only, up to twice a level.
const MAX_RECURSION: usize = 256;
/// The name of the only template in its environment, as it appears in errors.
const NAME: &str = "chat_template";

/// Who a message is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions for the whole conversation.
    System,
    /// The same from whoever built the application, for templates that tell them apart.
    Developer,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// What the model called, with its result.
    Tool,
}

impl Role {
    /// Every one.
    pub const ALL: [Self; 5] = [
        Self::System,
        Self::Developer,
        Self::User,
        Self::Assistant,
        Self::Tool,
    ];

    /// As templates know it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Developer => "developer",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }

    /// All names, for people.
    pub(super) fn names() -> String {
        Self::ALL.map(Self::as_str).join(", ")
    }
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Who it is from.
    pub role: Role,
    /// What it says.
    pub content: String,
}

/// Variables that each rendering sets, or that Jinja itself has.
const VARIABLES: [&str; 15] = [
    "messages",
    "tools",
    "documents",
    "add_generation_prompt",
    "continue_final_message",
    "bos_token",
    "eos_token",
    "strftime_now",
    "loop",
    "self",
    "super",
    "caller",
    "varargs",
    "kwargs",
    "generation",
];

/// A compiled chat template.
pub struct ChatTemplate {
    env: Environment<'static>,
    source: String,
    bos: String,
    eos: String,
}

impl ChatTemplate {
    /// Compiles `source`. `bos` and `eos` are the names of those tokens, empty where there is none.
    ///
    /// # Errors
    /// [`TemplateError::Compile`], [`TemplateError::TooLong`].
    pub fn compile(source: &str, bos: &str, eos: &str) -> Result<Self, TemplateError> {
        if source.len() > MAX_TEMPLATE_BYTES {
            return Err(TemplateError::TooLong {
                bytes: source.len(),
                max: MAX_TEMPLATE_BYTES,
            });
        }
        let env = apart::run(|| environment(source)).map_err(TemplateError::Compile)??;
        Ok(Self {
            env,
            source: source.to_owned(),
            bos: bos.to_owned(),
            eos: eos.to_owned(),
        })
    }

    /// The template as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether `name` has a meaning in templates that a client can't change.
    pub(super) fn defines(&self, name: &str) -> bool {
        VARIABLES.contains(&name)
            || name.starts_with(python::names::OWN)
            || self.env.globals().any(|(global, _)| global == name)
    }

    /// The prompt for the assistant's next turn after `messages`, at the local time `now`, which
    /// some templates put into it.
    ///
    /// # Errors
    /// [`TemplateError::Refused`] where the template itself rejects the messages,
    /// [`TemplateError::Budget`] where they are too much for it, [`TemplateError::Render`] where it
    /// fails.
    pub fn render(&self, messages: &[Message], now: &Zoned) -> Result<String, TemplateError> {
        self.render_chat(&ChatInput::of(messages.to_vec()), "", now)
    }

    /// The prompt that `input` makes. `tojson` writes the characters of `unescaped` as they are,
    /// also where it makes ASCII of all others.
    ///
    /// # Errors
    /// As [`render`](Self::render).
    pub(super) fn render_chat(
        &self,
        input: &ChatInput,
        unescaped: &str,
        now: &Zoned,
    ) -> Result<String, TemplateError> {
        apart::run(|| self.render_here(input, unescaped, now)).map_err(TemplateError::Render)?
    }

    fn render_here(
        &self,
        input: &ChatInput,
        unescaped: &str,
        now: &Zoned,
    ) -> Result<String, TemplateError> {
        let own = [
            ("messages", data::list(&input.messages)),
            // None where there are none: templates test `tools is not none`, which an undefined
            // one passes.
            ("tools", data::optional(input.tools.as_ref())),
            ("documents", data::optional(input.documents.as_ref())),
            ("add_generation_prompt", input.add_generation_prompt.into()),
            ("bos_token", self.bos.as_str().into()),
            ("eos_token", self.eos.as_str().into()),
            ("strftime_now", python::strftime(now.clone())),
            (python::names::UNESCAPED, unescaped.into()),
        ];
        let kwargs = input.kwargs.iter();
        let kwargs = kwargs.map(|(name, value)| (name.as_str(), data::value(value)));
        let variables = Value::from_pairs(kwargs.chain(own));
        let rendered = self
            .env
            .get_template(NAME)
            .and_then(|template| template.render(variables));
        rendered.map_err(|e| TemplateError::render(&e))
    }
}

/// The environment that Hugging Face's renderer has, with the template `source` in it.
fn environment(source: &str) -> Result<Environment<'static>, TemplateError> {
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build();
    let mut env = Environment::new();
    env.set_syntax(syntax.map_err(|e| TemplateError::compile(&e))?);
    env.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    env.set_fuel(Some(FUEL));
    env.set_recursion_limit(MAX_RECURSION);
    // Debug information would put the values at hand, and so the prompt, into errors.
    env.set_debug(false);
    python::install(&mut env);
    env.add_template_owned(NAME, source::translate(source))
        .map_err(|e| TemplateError::compile(&e))?;
    Ok(env)
}

impl Drop for ChatTemplate {
    /// A compiled template is freed level by level, too.
    fn drop(&mut self) {
        let env = std::mem::take(&mut self.env);
        // Without a thread there is nothing to be done but to free it here.
        let _ = apart::run(move || drop(env));
    }
}
