//! What a model's output consists of: content, reasoning and tool calls.
//!
//! [`AnswerFormat`] says how a model writes them; [`AnswerParser`] takes the output as it comes.
//! The text goes through three stages. The scanner (`tag`) finds tags, whether they are spelled out
//! or control tokens; a machine of the format decides what the parts are; the sink makes pieces of
//! them. Each stage looks at a character a bounded number of times.

mod forced;
mod format;
mod harmony;
mod hermes;
mod json;
mod lex;
mod llama;
mod mistral;
mod sink;
mod tag;
#[cfg(test)]
mod tests;
mod think;

pub use forced::{ForcedCall, Function};
pub use format::{AnswerFormat, Reasoning, ThinkTags, ToolFormat};
pub use sink::Piece;
pub use tag::ControlTokens;

use harmony::Harmony;
use hermes::Hermes;
use llama::Llama;
use mistral::Mistral;
use sink::Sink;
use tag::{Event, Scanner, Tag};
use think::Think;

/// More white space in a row than this is not held back, and no name or header is longer, in bytes.
/// It bounds what a degenerate output makes the parser keep.
const MAX_HELD: usize = 256;

/// Splits the output of one job into pieces.
///
/// It depends on nothing but its arguments and the ids and texts pushed: the same sequence gives
/// the same pieces, so a stream goes on after a crash where it was. How the text is cut into pushes
/// makes no difference to what the pieces are when put together.
///
/// What it keeps is text that may still become part of a call: the beginning of a tag, white space,
/// or a call whose name has not come yet.
#[derive(Clone, Debug)]
pub struct AnswerParser {
    scanner: Scanner,
    machine: Machine,
    sink: Sink,
}

#[derive(Clone, Debug)]
enum Machine {
    Harmony(Harmony),
    Forced(forced::Reader),
    Tagged { think: Think, calls: Calls },
}

/// Finds the calls in what is not reasoning.
#[derive(Clone, Debug)]
enum Calls {
    None,
    Hermes(Hermes),
    Llama(Llama),
    Mistral(Mistral),
}

impl AnswerParser {
    /// A parser of an output in `format`.
    ///
    /// `prompt_tail` is the end of the rendered prompt, which may have opened a reasoning block or
    /// a message; 64 characters are enough. Without `with_tools`, calls are not looked for: their
    /// text is content.
    pub fn new(
        format: AnswerFormat,
        controls: ControlTokens,
        prompt_tail: &str,
        with_tools: bool,
    ) -> Self {
        let tools = if with_tools {
            format.tools
        } else {
            ToolFormat::None
        };
        // Harmony's tags are the frame of every message, tools or not.
        let harmony = format.reasoning == Reasoning::Harmony || format.tools == ToolFormat::Harmony;
        let mut sink = Sink::new(matches!(tools, ToolFormat::Hermes | ToolFormat::Mistral));
        let machine = if harmony {
            Machine::Harmony(Harmony::new(prompt_tail, with_tools))
        } else {
            Machine::Tagged {
                think: Think::new(format.reasoning, prompt_tail, &mut sink),
                calls: Calls::new(tools),
            }
        };
        Self {
            scanner: Scanner::new(&active_tags(format.reasoning, tools, harmony), &controls),
            machine,
            sink,
        }
    }

    /// A parser of an output that has to be `call`.
    pub fn of_call(call: &ForcedCall) -> Self {
        let mut sink = Sink::new(false);
        Self {
            scanner: Scanner::new(&[], &ControlTokens::default()),
            machine: Machine::Forced(call.reader(&mut sink)),
            sink,
        }
    }

    /// Takes the next token and the text it adds, and appends the pieces that it completes to `out`.
    pub fn push(&mut self, id: u32, text: &str, out: &mut Vec<Piece>) {
        let Self {
            scanner,
            machine,
            sink,
        } = self;
        scanner.push(id, text, &mut |event| machine.take(event, sink));
        out.append(&mut sink.pieces);
    }

    /// Ends the output: what was held back is no call, hence content or reasoning.
    pub fn finish(&mut self, out: &mut Vec<Piece>) {
        let Self {
            scanner,
            machine,
            sink,
        } = self;
        scanner.flush(&mut |event| machine.take(event, sink));
        machine.finish(sink);
        sink.flush();
        out.append(&mut sink.pieces);
    }

    /// Whether any call has begun, so that the output's `finish_reason` is `tool_calls`.
    pub fn has_calls(&self) -> bool {
        self.sink.calls > 0
    }

    /// Bytes of text that are kept.
    #[cfg(test)]
    fn held(&self) -> usize {
        let machine = match &self.machine {
            Machine::Harmony(harmony) => harmony.held(),
            Machine::Forced(reader) => reader.held(),
            Machine::Tagged { think, calls } => think.held() + calls.held(),
        };
        self.scanner.held() + machine + self.sink.held()
    }
}

fn active_tags(reasoning: Reasoning, tools: ToolFormat, harmony: bool) -> Vec<Tag> {
    if harmony {
        return Tag::HARMONY.to_vec();
    }
    let mut tags = match reasoning {
        Reasoning::Think(tags) => vec![tags.open(), tags.close()],
        Reasoning::None | Reasoning::Harmony => Vec::new(),
    };
    tags.extend_from_slice(match tools {
        ToolFormat::Hermes => &[Tag::ToolCall, Tag::ToolCallEnd],
        ToolFormat::Llama3Json => &[Tag::Python],
        ToolFormat::Mistral => &[Tag::ToolCalls, Tag::Args, Tag::CallId],
        ToolFormat::None | ToolFormat::Harmony => &[],
    });
    tags
}

impl Machine {
    fn take(&mut self, event: Event<'_>, sink: &mut Sink) {
        match (self, event) {
            (Self::Harmony(harmony), Event::Text(text)) => harmony.text(text, sink),
            (Self::Harmony(harmony), Event::Tag(tag)) => harmony.tag(tag, sink),
            (Self::Forced(reader), Event::Text(text)) => reader.text(text, sink),
            (Self::Forced(reader), Event::Tag(tag)) => reader.text(tag.name(), sink),
            (Self::Tagged { think, calls }, Event::Text(text)) => think.text(text, calls, sink),
            (Self::Tagged { think, calls }, Event::Tag(tag)) => think.tag(tag, calls, sink),
        }
    }

    fn finish(&mut self, sink: &mut Sink) {
        match self {
            Self::Harmony(harmony) => harmony.finish(sink),
            Self::Forced(_) => {}
            Self::Tagged { think, calls } => {
                think.finish(calls, sink);
                calls.finish(sink);
            }
        }
    }
}

impl Calls {
    fn new(format: ToolFormat) -> Self {
        match format {
            ToolFormat::None | ToolFormat::Harmony => Self::None,
            ToolFormat::Hermes => Self::Hermes(Hermes::default()),
            ToolFormat::Llama3Json => Self::Llama(Llama::default()),
            ToolFormat::Mistral => Self::Mistral(Mistral::default()),
        }
    }

    fn text(&mut self, text: &str, sink: &mut Sink) {
        match self {
            Self::None => sink.content(text),
            Self::Hermes(calls) => calls.text(text, sink),
            Self::Llama(calls) => calls.text(text, sink),
            Self::Mistral(calls) => calls.text(text, sink),
        }
    }

    fn tag(&mut self, tag: Tag, sink: &mut Sink) {
        match self {
            Self::None => sink.content(tag.name()),
            Self::Hermes(calls) => calls.tag(tag, sink),
            Self::Llama(calls) => calls.tag(tag, sink),
            Self::Mistral(calls) => calls.tag(tag, sink),
        }
    }

    fn finish(&mut self, sink: &mut Sink) {
        match self {
            Self::None => {}
            Self::Hermes(calls) => calls.finish(sink),
            Self::Llama(calls) => calls.finish(sink),
            Self::Mistral(calls) => calls.finish(sink),
        }
    }

    #[cfg(test)]
    fn held(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Hermes(calls) => calls.held(),
            Self::Llama(calls) => calls.held(),
            Self::Mistral(calls) => calls.held(),
        }
    }
}
