//! Chat templates: what a list of messages looks like to the model.
//!
//! A template is a Jinja program in the model's file, written for the environment that Hugging
//! Face's `apply_chat_template` gives it; [`python`] holds what that has beyond Jinja itself, and
//! [`source`] what the engine has to be told in other words.
//!
//! It reads no files and sees nothing but the messages, and a budget ends it when it does too much.
//! How deep it nests expressions and data is bounded by its length and by [`python`]'s calls; the
//! stack that this takes is [`apart`]'s.

mod apart;
mod error;
mod python;
mod source;
mod trial;

use jiff::Zoned;
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Value, context};
use serde::{Deserialize, Serialize};

pub use error::TemplateError;

/// Longest template in bytes. The longest that are published have some 20 KiB.
pub const MAX_TEMPLATE_BYTES: usize = 64 << 10;
/// What one rendering may cost: instructions, plus one for every 64 bytes of text or data that it
/// makes. It bounds a hostile template to seconds and some 128 MB. The longest request, a body of
/// 1 MiB or 256 messages, takes a small part of it in published templates.
const FUEL: u64 = 2_000_000;
/// How deep macros may call each other. Published templates recurse over the nesting of a JSON
/// schema only.
const MAX_RECURSION: usize = 64;
/// The name of the only template in its environment, as it appears in errors.
const NAME: &str = "chat_template";

/// Who a message is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions for the whole conversation.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::System, Self::User, Self::Assistant];

    /// As templates know it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
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

/// A compiled chat template.
pub struct ChatTemplate {
    env: Environment<'static>,
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
            bos: bos.to_owned(),
            eos: eos.to_owned(),
        })
    }

    /// The prompt for the assistant's next turn after `messages`, at the local time `now`, which
    /// some templates put into it.
    ///
    /// # Errors
    /// [`TemplateError::Refused`] where the template itself rejects the messages,
    /// [`TemplateError::Budget`] where they are too much for it, [`TemplateError::Render`] where it
    /// fails.
    pub fn render(&self, messages: &[Message], now: &Zoned) -> Result<String, TemplateError> {
        apart::run(|| self.render_here(messages, now)).map_err(TemplateError::Render)?
    }

    fn render_here(&self, messages: &[Message], now: &Zoned) -> Result<String, TemplateError> {
        let messages: Vec<Value> = messages
            .iter()
            .map(|m| context! { role => m.role.as_str(), content => m.content.as_str() })
            .collect();
        let context = context! {
            messages,
            add_generation_prompt => true,
            bos_token => self.bos.as_str(),
            eos_token => self.eos.as_str(),
            strftime_now => python::strftime(now.clone()),
        };
        let rendered = self
            .env
            .get_template(NAME)
            .and_then(|template| template.render(context));
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
