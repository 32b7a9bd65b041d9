//! What a model's file says about text, in one place: requests to token ids.

use std::sync::Arc;

use jiff::Zoned;
use orcd_shared::gguf::{GgufError, Metadata};

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
    /// The chat template does not compile, failed or refused the messages.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The key of the chat template has the wrong type.
    #[error(transparent)]
    Metadata(#[from] GgufError),
    /// `messages` were sent to a model that has no template for them.
    #[error("the model has no chat template; send `prompt` instead of `messages`")]
    NoChatTemplate,
    /// The messages cannot be kept apart from control tokens.
    #[error(transparent)]
    Unguardable(#[from] Unguardable),
}

impl TextError {
    /// Whether other messages would do, so that the client is to be told.
    pub fn is_request_fault(&self) -> bool {
        matches!(
            self,
            Self::NoChatTemplate
                | Self::Unguardable(_)
                | Self::Template(TemplateError::Refused(_) | TemplateError::Render(_))
        )
    }
}

/// A model's tokenizer and chat template.
pub struct TextModel {
    tokenizer: Arc<Tokenizer>,
    template: Option<ChatTemplate>,
}

impl TextModel {
    /// Builds both from the file's metadata, of which nothing is kept.
    ///
    /// # Errors
    /// Whatever makes the model unusable, above all [`TokenizerError`] and
    /// [`TemplateError::Compile`].
    pub fn from_metadata(metadata: &Metadata) -> Result<Self, TextError> {
        let tokenizer = Arc::new(Tokenizer::from_metadata(metadata)?);
        let compile =
            |source| ChatTemplate::compile(source, tokenizer.bos_text(), tokenizer.eos_text());
        let template = metadata.opt_str(CHAT_TEMPLATE)?.map(compile).transpose()?;
        Ok(Self {
            tokenizer,
            template,
        })
    }

    /// The tokenizer, for the output.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// Whether `messages` can be sent.
    pub fn has_chat_template(&self) -> bool {
        self.template.is_some()
    }

    /// The ids of a prompt. With `template`, and if the model has one, it is the content of one
    /// user message; otherwise it is given to the model as it is, control tokens in it included.
    ///
    /// # Errors
    /// [`TextError::is_request_fault`] tells whose fault it is.
    pub fn encode_prompt(&self, prompt: &str, template: bool) -> Result<Vec<u32>, TextError> {
        if template && self.template.is_some() {
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
        let template = self.template.as_ref().ok_or(TextError::NoChatTemplate)?;
        let rendered = render_guarded(&self.tokenizer, template, messages, &Zoned::now())?;
        Ok(self.tokenizer.encode_prompt(&rendered)?)
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
