//! Calls of Hermes, Qwen and Granite 4: `<tool_call>{"name": "f", "arguments": {}}</tool_call>`.

use super::json::{CallParser, Certainty, Step};
use super::sink::Sink;
use super::tag::Tag;

/// Finds calls between tags.
#[derive(Clone, Debug, Default)]
pub(super) struct Hermes {
    state: State,
    /// Whether a call has begun whose closing tag has not come.
    unclosed: bool,
}

#[derive(Clone, Debug, Default)]
enum State {
    #[default]
    Content,
    Call(CallParser),
    /// After a call's object.
    Closing,
}

impl Hermes {
    pub(super) fn text(&mut self, mut text: &str, sink: &mut Sink) {
        while !text.is_empty() {
            text = match &mut self.state {
                State::Content => return sink.content(text),
                State::Call(call) => {
                    let (step, rest) = call.take(text, sink);
                    match step {
                        Step::More => {}
                        Step::Done => self.state = State::Closing,
                        Step::Failed => self.give_back(sink),
                    }
                    rest
                }
                State::Closing => self.closing(text),
            };
        }
    }

    /// Models close brackets once too often. Any other text is content.
    fn closing<'t>(&mut self, text: &'t str) -> &'t str {
        let extra = |c: char| c.is_whitespace() || c == '}' || c == ']';
        let rest = text.trim_start_matches(extra);
        if !rest.is_empty() {
            self.state = State::Content;
        }
        rest
    }

    pub(super) fn tag(&mut self, tag: Tag, sink: &mut Sink) {
        if matches!(&self.state, State::Call(call) if call.in_string()) {
            return self.text(tag.name(), sink);
        }
        match tag {
            Tag::ToolCall => {
                self.give_back(sink);
                self.state = State::Call(CallParser::new(Certainty::Tagged));
                self.unclosed = true;
            }
            Tag::ToolCallEnd => {
                self.give_back(sink);
                if !std::mem::take(&mut self.unclosed) {
                    sink.content(tag.name());
                }
            }
            _ => self.text(tag.name(), sink),
        }
    }

    /// Leaves the call, if there is one. If it has not begun, its text is content.
    fn give_back(&mut self, sink: &mut Sink) {
        if let State::Call(call) = std::mem::take(&mut self.state)
            && let Some(raw) = call.into_raw()
        {
            sink.content(Tag::ToolCall.name());
            sink.content(&raw);
            self.unclosed = false;
        }
    }

    pub(super) fn finish(&mut self, sink: &mut Sink) {
        self.give_back(sink);
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        match &self.state {
            State::Call(call) => call.held(),
            State::Content | State::Closing => 0,
        }
    }
}
