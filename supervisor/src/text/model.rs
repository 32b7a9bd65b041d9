//! What a model's file says about text, in one place: requests to token ids.

use std::sync::Arc;

use jiff::Zoned;
use orcd_shared::gguf::{GgufError, Metadata};
use serde::Serialize;
use utoipa::ToSchema;

use super::guard::{Guard, GuardedText, Unguardable};
use super::template::{ChatTemplate, Message, Role, TemplateError};
use super::tokenizer::{Tokenizer, TokenizerError};

const CHAT_TEMPLATE: &str = "tokenizer.chat_template";

/// Why a model's text could not be set up, or a request not be turned into tokens.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// The tokenizer's keys are wrong, or it failed.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The chat template refused the messages.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The key of the chat template has the wrong type.
    #[error(transparent)]
    Metadata(#[from] GgufError),
    /// The model has a chat template that can't be used, whatever is sent.
    #[error(
        "{0}; send a `prompt` with \"template\": false, or start the service with \
         --chat-template FILE"
    )]
    BrokenTemplate(String),
    /// `messages` were sent to a model that has no template for them.
    #[error("the model has no chat template; send `prompt` instead of `messages`")]
    NoChatTemplate,
    /// The messages cannot be kept apart from control tokens.
    #[error(transparent)]
    Unguardable(#[from] Unguardable),
}

impl TextError {
    /// Whether other messages would do, so that the client gets this message.
    pub fn is_request_fault(&self) -> bool {
        matches!(
            self,
            Self::NoChatTemplate
                | Self::Unguardable(_)
                | Self::Template(TemplateError::Refused(_) | TemplateError::Budget(_))
        )
    }

    /// Whether the model's chat template is at fault, in which case the client gets this message as well.
    pub fn is_template_fault(&self) -> bool {
        matches!(self, Self::BrokenTemplate(_))
    }
}

/// A model's tokenizer and chat template.
pub struct TextModel {
    tokenizer: Arc<Tokenizer>,
    template: Template,
}

/// What a model has for a chat template.
enum Template {
    None,
    /// One that compiles, and what its trial said if it failed.
    Compiled(Box<ChatTemplate>, Option<String>),
    /// One that doesn't, and why.
    Broken(String),
}

/// How a model's chat template is, as health reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TemplateStatus {
    /// It has none.
    None,
    /// It renders.
    Ok,
    /// It does not, for this reason.
    Error(String),
}

impl TextModel {
    /// Builds both from the file's metadata, of which nothing is kept.
    ///
    /// A chat template that fails leaves raw prompts, so it is no error:
    /// [`template_status`](Self::template_status) says it.
    ///
    /// # Errors
    /// Whatever makes the model unusable, above all [`TokenizerError`].
    pub fn from_metadata(metadata: &Metadata) -> Result<Self, TextError> {
        Self::with_template(metadata, None)
    }

    /// As [`from_metadata`](Self::from_metadata), with `chat_template` in place of the file's own.
    ///
    /// # Errors
    /// As there.
    pub fn with_template(
        metadata: &Metadata,
        chat_template: Option<&str>,
    ) -> Result<Self, TextError> {
        let tokenizer = Arc::new(Tokenizer::from_metadata(metadata)?);
        let source = match chat_template {
            Some(source) => Some(source),
            None => metadata.opt_str(CHAT_TEMPLATE)?,
        };
        let template = source.map_or(Template::None, |source| Template::new(source, &tokenizer));
        Ok(Self {
            tokenizer,
            template,
        })
    }

    /// The tokenizer, for the output.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// Whether `messages` can be sent, and if not, why.
    pub fn template_status(&self) -> TemplateStatus {
        match &self.template {
            Template::None => TemplateStatus::None,
            Template::Compiled(_, None) => TemplateStatus::Ok,
            Template::Compiled(_, Some(reason)) | Template::Broken(reason) => {
                TemplateStatus::Error(reason.clone())
            }
        }
    }

    /// The ids of a prompt. With `template`, and if the model has one, it is the content of one
    /// user message; otherwise it is given to the model as it is, control tokens in it included.
    ///
    /// # Errors
    /// [`TextError::is_request_fault`] tells whose fault it is.
    pub fn encode_prompt(&self, prompt: &str, template: bool) -> Result<Vec<u32>, TextError> {
        if template && !matches!(self.template, Template::None) {
            let message = Message {
                role: Role::User,
                content: prompt.to_owned(),
            };
            return self.encode_messages(&[message]);
        }
        Ok(self
            .tokenizer
            .encode_prompt(&GuardedText::trusted(prompt))?)
    }

    /// The ids of a conversation, up to where the assistant's next turn begins. Control tokens
    /// named in the contents are plain text.
    ///
    /// # Errors
    /// As [`encode_prompt`](Self::encode_prompt), and [`TextError::NoChatTemplate`].
    pub fn encode_messages(&self, messages: &[Message]) -> Result<Vec<u32>, TextError> {
        let template = match &self.template {
            Template::Compiled(template, _) => template,
            Template::Broken(reason) => {
                return Err(TextError::BrokenTemplate(reason.clone()));
            }
            Template::None => return Err(TextError::NoChatTemplate),
        };
        let rendered = render_guarded(&self.tokenizer, template, messages, &Zoned::now());
        let rendered = rendered.map_err(|error| match error {
            TextError::Template(error @ TemplateError::Render(_)) => {
                TextError::BrokenTemplate(error.to_string())
            }
            other => other,
        })?;
        Ok(self.tokenizer.encode_prompt(&rendered)?)
    }
}

impl Template {
    fn new(source: &str, tokenizer: &Tokenizer) -> Self {
        match ChatTemplate::compile(source, tokenizer.bos_text(), tokenizer.eos_text()) {
            Ok(template) => {
                let failed = template.try_out(&Zoned::now()).err();
                Self::Compiled(Box::new(template), failed.map(|error| error.to_string()))
            }
            Err(error) => Self::Broken(error.to_string()),
        }
    }
}

/// Renders `messages` so that control tokens named in them stay text.
fn render_guarded(
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    messages: &[Message],
    now: &Zoned,
) -> Result<GuardedText, TextError> {
    let guard = Guard::new(tokenizer, messages.iter().map(|m| m.content.as_str()))?;
    let guarded = |m: &Message| Message {
        role: m.role,
        content: guard.apply(&m.content),
    };
    let messages: Vec<Message> = messages.iter().map(guarded).collect();
    Ok(guard.seal(template.render(&messages, now)?))
}
