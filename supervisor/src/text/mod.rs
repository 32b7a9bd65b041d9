//! Everything that knows text: the chat template, the tokenizer, the assembly of UTF-8 and the
//! stop sequences. The worker speaks token ids only, so a crash of the worker loses none of this.
//!
//! [`TextModel`] turns requests into token ids; [`TokenText`] turns a job's tokens into its output,
//! and [`AnswerParser`] splits that into content, reasoning and tool calls.

mod answer;
mod chat;
mod guard;
mod model;
mod stop;
mod stream;
mod template;
mod time;
mod tokenizer;
mod utf8;

pub use answer::{
    AnswerFormat, AnswerParser, ControlTokens, ForcedCall, Function, Piece, Reasoning, ThinkTags,
    ToolFormat,
};
pub(crate) use chat::shortened;
pub use chat::{ChatError, ChatInput};
pub use guard::{Guard, GuardedText, Unguardable};
pub use model::{TemplateStatus, TextError, TextModel, TextOverrides};
pub use stop::{StopMatcher, StopOutput};
pub use stream::{TextDelta, TokenText};
pub use template::{ChatTemplate, MAX_TEMPLATE_BYTES, Message, Role, TemplateError};
pub use time::TemplateTime;
pub use tokenizer::{
    PreTokenizerName, Specials, Tokenizer, TokenizerError, TokenizerKind, UnknownPreTokenizer,
};
pub use utf8::Utf8Assembler;
