//! What a model's file says about text, in one place: requests to token ids.

use std::sync::Arc;

use orcd_shared::gguf::{GgufError, Metadata};
use serde::Serialize;
use utoipa::ToSchema;

use super::answer::{AnswerFormat, AnswerParser, ControlTokens, ForcedCall, Function};
use super::chat::{ChatError, ChatInput, Form};
use super::guard::{Edges, Guard, GuardedText, Unguardable};
use super::template::{ChatTemplate, Message, Role, TemplateError};
use super::time::TemplateTime;
use super::tokenizer::{PreTokenizerName, Specials, Tokenizer, TokenizerError};
use crate::fingerprint;

const CHAT_TEMPLATE: &str = "tokenizer.chat_template";
const PRE_TOKENIZER: &str = "tokenizer.ggml.pre";

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
    /// The conversation can't be rendered.
    #[error(transparent)]
    Chat(#[from] ChatError),
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
                | Self::Chat(_)
                | Self::Unguardable(_)
                | Self::Template(TemplateError::Refused(_) | TemplateError::Budget(_))
        )
    }

    /// Whether the model's chat template is at fault, in which case the client gets this message as well.
    pub fn is_template_fault(&self) -> bool {
        matches!(self, Self::BrokenTemplate(_))
    }
}

/// What takes the place of what the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextOverrides {
    /// The source of a chat template.
    pub chat_template: Option<String>,
    /// How texts are cut.
    pub pre_tokenizer: Option<PreTokenizerName>,
}

/// A model's tokenizer and chat template.
pub struct TextModel {
    tokenizer: Arc<Tokenizer>,
    template: Template,
    /// How the model writes reasoning and calls of tools.
    answers: AnswerFormat,
    /// The tokens without text that it does so with.
    controls: ControlTokens,
    identity: [u8; 32],
}

/// What a model has for a chat template.
enum Template {
    None,
    /// One that compiles.
    Compiled(Box<Compiled>),
    /// One that doesn't, and why.
    Broken(String),
}

/// A chat template that compiles.
struct Compiled {
    template: ChatTemplate,
    edges: Edges,
    /// What its trial said if it failed.
    failed: Option<String>,
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
        Self::with_overrides(metadata, &TextOverrides::default())
    }

    /// As [`from_metadata`](Self::from_metadata), with `overrides` in place of the file's own.
    ///
    /// # Errors
    /// As there.
    pub fn with_overrides(
        metadata: &Metadata,
        overrides: &TextOverrides,
    ) -> Result<Self, TextError> {
        let tokenizer = Tokenizer::with_pre_tokenizer(metadata, overrides.pre_tokenizer)?;
        let tokenizer = Arc::new(tokenizer);
        let source = match &overrides.chat_template {
            Some(source) => Some(source.as_str()),
            None => metadata.opt_str(CHAT_TEMPLATE)?,
        };
        let cut = match overrides.pre_tokenizer {
            Some(name) => Some(name.as_str()),
            None => metadata.opt_str(PRE_TOKENIZER)?,
        };
        let template = source.map_or(Template::None, |source| Template::new(source, &tokenizer));
        Ok(Self {
            answers: AnswerFormat::of_template(source),
            controls: ControlTokens::new(|name| control_token(&tokenizer, name)),
            identity: identity(&tokenizer, cut, source),
            tokenizer,
            template,
        })
    }

    /// The tokenizer, for the output.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// A hash of what decides how texts become ids and ids become text: the tokens' bytes, how texts are cut, the template.
    pub fn identity(&self) -> &[u8; 32] {
        &self.identity
    }

    /// Whether `messages` can be sent, and if not, why.
    pub fn template_status(&self) -> TemplateStatus {
        match &self.template {
            Template::None => TemplateStatus::None,
            Template::Compiled(compiled) => match &compiled.failed {
                None => TemplateStatus::Ok,
                Some(reason) => TemplateStatus::Error(reason.clone()),
            },
            Template::Broken(reason) => TemplateStatus::Error(reason.clone()),
        }
    }

    /// The text of the chat template, if the model has one that compiles.
    pub fn chat_template_source(&self) -> Option<&str> {
        match &self.template {
            Template::Compiled(compiled) => Some(compiled.template.source()),
            Template::None | Template::Broken(_) => None,
        }
    }

    /// The ids of a prompt. With `template`, and if the model has one, it is the content of one
    /// user message; otherwise it is given to the model as it is, control tokens in it included.
    ///
    /// # Errors
    /// [`TextError::is_request_fault`] tells whose fault it is.
    pub fn encode_prompt(&self, prompt: &str, template: bool) -> Result<Vec<u32>, TextError> {
        self.encode_prompt_at(prompt, template, &TemplateTime::now())
    }

    /// As [`encode_prompt`](Self::encode_prompt), at the time `time`.
    ///
    /// # Errors
    /// As there.
    pub fn encode_prompt_at(
        &self,
        prompt: &str,
        template: bool,
        time: &TemplateTime,
    ) -> Result<Vec<u32>, TextError> {
        if template && !matches!(self.template, Template::None) {
            let message = Message {
                role: Role::User,
                content: prompt.to_owned(),
            };
            return self.encode_chat_at(&ChatInput::of(vec![message]), time);
        }
        Ok(self
            .tokenizer
            .encode_prompt(&GuardedText::trusted(prompt))?)
    }

    /// A parser of the output that goes on after a prompt whose last tokens are `prompt_end`. Without
    /// `with_tools`, calls are not looked for.
    pub fn answer_parser(&self, prompt_end: &[u32], with_tools: bool) -> AnswerParser {
        let text = |&id: &u32| match self.controls.name(id) {
            Some(name) => name.into(),
            None => String::from_utf8_lossy(self.tokenizer.token_bytes(id)),
        };
        let tail: String = prompt_end.iter().map(text).collect();
        AnswerParser::new(self.answers, self.controls, &tail, with_tools)
    }

    /// The form of a call that an output has to be, of one of `functions`. `None` if the model's form can't leave to it
    /// which of several.
    pub fn forced_call(&self, functions: &[Function<'_>]) -> Option<ForcedCall> {
        ForcedCall::new(self.answers, functions)
    }

    /// The ids of a conversation, up to where the assistant's next turn begins. Control tokens
    /// named in the contents are plain text.
    ///
    /// # Errors
    /// As [`encode_prompt`](Self::encode_prompt), and [`TextError::NoChatTemplate`].
    pub fn encode_messages(&self, messages: &[Message]) -> Result<Vec<u32>, TextError> {
        self.encode_chat(&ChatInput::of(messages.to_vec()))
    }

    /// The ids of the prompt that `input` makes. Control tokens named in any of its texts, keys of
    /// objects included, are plain text.
    ///
    /// # Errors
    /// As [`encode_messages`](Self::encode_messages), and [`TextError::Chat`].
    pub fn encode_chat(&self, input: &ChatInput) -> Result<Vec<u32>, TextError> {
        self.encode_chat_at(input, &TemplateTime::now())
    }

    /// As [`encode_chat`](Self::encode_chat), at the time `time`.
    ///
    /// # Errors
    /// As there.
    pub fn encode_chat_at(
        &self,
        input: &ChatInput,
        time: &TemplateTime,
    ) -> Result<Vec<u32>, TextError> {
        let rendered = self.render_guarded(input, time)?;
        Ok(self.tokenizer.encode_prompt(&rendered)?)
    }

    /// The prompt that `input` makes, for people: given to the model as a raw prompt, the control
    /// tokens that clients' texts name would act.
    ///
    /// # Errors
    /// As [`encode_chat`](Self::encode_chat).
    pub fn render_chat(&self, input: &ChatInput) -> Result<String, TextError> {
        Ok(self
            .render_guarded(input, &TemplateTime::now())?
            .into_text())
    }

    fn render_guarded(
        &self,
        input: &ChatInput,
        time: &TemplateTime,
    ) -> Result<GuardedText, TextError> {
        let compiled = match &self.template {
            Template::Compiled(compiled) => compiled,
            Template::Broken(reason) => {
                return Err(TextError::BrokenTemplate(reason.clone()));
            }
            Template::None => return Err(TextError::NoChatTemplate),
        };
        compiled.render(&self.tokenizer, input, time)
    }
}

impl Compiled {
    /// Renders `input` in the first form that the template takes.
    fn render(
        &self,
        tokenizer: &Tokenizer,
        input: &ChatInput,
        time: &TemplateTime,
    ) -> Result<GuardedText, TextError> {
        let mut first = None;
        for form in input.forms() {
            match self.render_as(form, tokenizer, input, time) {
                Err(TextError::Template(error @ TemplateError::Render(_))) => {
                    first.get_or_insert(error);
                }
                rendered_or_refused => return rendered_or_refused,
            }
        }
        let error = first.map_or_else(String::new, |error| error.to_string());
        Err(self.blame(input, error))
    }

    /// Renders `input` so that control tokens named in it stay text.
    fn render_as(
        &self,
        form: Form,
        tokenizer: &Tokenizer,
        input: &ChatInput,
        time: &TemplateTime,
    ) -> Result<GuardedText, TextError> {
        let input = input.prepare(&self.template, form)?;
        let texts = input.texts();
        let guard = Guard::with_edges(tokenizer, Some(&self.edges), texts.iter().copied())?;
        let marker = match input.continue_final_message {
            true => Some(guard.marker(texts.into_iter().chain([self.template.source()]))?),
            false => None,
        };
        let mut input = input.map_texts(&|text| guard.apply(text));
        if let Some(marker) = marker {
            input.mark_end(marker);
        }
        let unescaped: String = guard.character().into_iter().chain(marker).collect();
        let rendered = (self.template).render_chat(&input, &unescaped, time.zoned())?;
        let mut rendered = match marker {
            Some(marker) => cut(rendered, marker)?,
            None => rendered,
        };
        if let Some(call) = &input.forced_call {
            rendered += &call.opening(&rendered, |name| guard.apply(name));
        }
        Ok(guard.seal(rendered))
    }

    /// Whose fault it is that the template fails with `input`: that of a template which can't
    /// render plain messages either, or the input's.
    fn blame(&self, input: &ChatInput, reason: String) -> TextError {
        if self.failed.is_some() || input.is_plain() {
            TextError::BrokenTemplate(reason)
        } else {
            ChatError::Unsuitable(reason).into()
        }
    }
}

/// `rendered` up to `marker`, which stands at the end of the last message.
///
/// White space in front of the marker is inside the content for templates that trim it, so it
/// stays: the model goes on from what the client sent. The last marker counts, since a template
/// may show a content twice.
fn cut(mut rendered: String, marker: char) -> Result<String, ChatError> {
    let end = rendered.rfind(marker).ok_or(ChatError::NotInPrompt)?;
    rendered.truncate(end);
    Ok(rendered.replace(marker, ""))
}

/// See [`TextModel::identity`].
fn identity(tokenizer: &Tokenizer, cut: Option<&str>, template: Option<&str>) -> [u8; 32] {
    let mut hash = blake3::Hasher::new();
    for part in [Some(tokenizer.kind().as_str()), cut, template] {
        hash.update(&[u8::from(part.is_some())]);
        fingerprint::add(&mut hash, part.unwrap_or_default().as_bytes());
    }
    for id in 0..u32::try_from(tokenizer.vocab_size()).unwrap_or(u32::MAX) {
        fingerprint::add(&mut hash, tokenizer.token_bytes(id));
    }
    hash.finalize().into()
}

/// The token of that name, if there is one that has no text.
fn control_token(tokenizer: &Tokenizer, name: &str) -> Option<u32> {
    match tokenizer.encode(name, Specials::Parse).ok()?[..] {
        [id] if tokenizer.token_bytes(id).is_empty() => Some(id),
        _ => None,
    }
}

impl Template {
    fn new(source: &str, tokenizer: &Tokenizer) -> Self {
        match ChatTemplate::compile(source, tokenizer.bos_text(), tokenizer.eos_text()) {
            Ok(template) => {
                let failed = template.try_out(TemplateTime::now().zoned()).err();
                let names = tokenizer.special_tokens().control_names();
                Self::Compiled(Box::new(Compiled {
                    edges: Edges::new(names, source),
                    failed: failed.map(|error| error.to_string()),
                    template,
                }))
            }
            Err(error) => Self::Broken(error.to_string()),
        }
    }
}
