//! Calls of Llama 3: the whole answer is `{"name": "f", "parameters": {}}`, or several of them.

use super::MAX_HELD;
use super::json::{CallParser, Certainty, Step};
use super::sink::Sink;
use super::tag::Tag;

/// Finds calls where the answer begins with one.
#[derive(Clone, Debug)]
pub(super) struct Llama {
    state: State,
    /// What came before the first call, white space and perhaps the tag: content if there is no
    /// call.
    before: String,
    /// Whether the tag has come.
    tagged: bool,
}

#[derive(Clone, Debug)]
enum State {
    /// In front of the first call.
    Start,
    Call(CallParser),
    /// After a call, where another may follow.
    Between,
    Content,
}

impl Default for Llama {
    fn default() -> Self {
        Self {
            state: State::Start,
            before: String::new(),
            tagged: false,
        }
    }
}

impl Llama {
    pub(super) fn text(&mut self, mut text: &str, sink: &mut Sink) {
        while !text.is_empty() {
            text = match &mut self.state {
                State::Start => self.start(text, sink),
                State::Call(call) => {
                    let (step, rest) = call.take(text, sink);
                    self.after(step, sink);
                    rest
                }
                State::Between => self.between(text),
                State::Content => return sink.content(text),
            };
        }
    }

    fn start<'t>(&mut self, text: &'t str, sink: &mut Sink) -> &'t str {
        let rest = text.trim_start();
        self.before.push_str(&text[..text.len() - rest.len()]);
        if self.before.len() > MAX_HELD {
            self.give_back(sink);
        } else if rest.starts_with('{') {
            self.state = State::Call(CallParser::new(self.certainty()));
        } else if !rest.is_empty() {
            self.give_back(sink);
        }
        rest
    }

    fn after(&mut self, step: Step, sink: &mut Sink) {
        match step {
            Step::More => {}
            Step::Done => {
                self.before.clear();
                self.state = State::Between;
            }
            Step::Failed => self.give_back(sink),
        }
    }

    fn between<'t>(&mut self, text: &'t str) -> &'t str {
        let rest = text.trim_start_matches(|c: char| c.is_whitespace() || c == ';');
        if rest.starts_with('{') {
            self.state = State::Call(CallParser::new(self.certainty()));
        } else if !rest.is_empty() {
            self.state = State::Content;
        }
        rest
    }

    fn certainty(&self) -> Certainty {
        if self.tagged {
            Certainty::Tagged
        } else {
            Certainty::Guessed
        }
    }

    pub(super) fn tag(&mut self, tag: Tag, sink: &mut Sink) {
        match &self.state {
            State::Call(call) if call.in_string() => self.text(tag.name(), sink),
            State::Start if tag == Tag::Python && !self.tagged => {
                self.before.push_str(tag.name());
                self.tagged = true;
            }
            State::Between if tag == Tag::Python => self.tagged = true,
            _ => {
                self.give_back(sink);
                sink.content(tag.name());
            }
        }
    }

    /// From here on everything is content, also what has not begun a call.
    fn give_back(&mut self, sink: &mut Sink) {
        let raw = match std::mem::replace(&mut self.state, State::Content) {
            State::Call(call) => call.into_raw(),
            State::Start => Some(String::new()),
            State::Between | State::Content => None,
        };
        let before = std::mem::take(&mut self.before);
        if let Some(raw) = raw {
            sink.content(&before);
            sink.content(&raw);
        }
    }

    pub(super) fn finish(&mut self, sink: &mut Sink) {
        self.give_back(sink);
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        let call = match &self.state {
            State::Call(call) => call.held(),
            State::Start | State::Between | State::Content => 0,
        };
        self.before.len() + call
    }
}
