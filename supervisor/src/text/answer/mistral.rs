//! Calls of Mistral: `[TOOL_CALLS][{"name": "f", "arguments": {}}]`, and `[TOOL_CALLS]f[ARGS]{}` of
//! newer models.

use super::MAX_HELD;
use super::json::{CallParser, Certainty, Step};
use super::lex::Nesting;
use super::sink::Sink;
use super::tag::Tag;

/// Finds calls after a tag.
#[derive(Clone, Debug, Default)]
pub(super) struct Mistral {
    state: State,
    /// What came since the tag, until a call begins: content if there is no call.
    before: String,
}

#[derive(Clone, Debug, Default)]
enum State {
    #[default]
    Content,
    /// After the tag.
    Start,
    /// In front of an object of the list.
    Element,
    Call {
        call: CallParser,
        /// Whether it is in a list.
        listed: bool,
    },
    /// After an object of the list.
    AfterElement,
    /// Inside the name, which is the end of `before`, from this byte on.
    Name(usize),
    /// After a name, in front of the arguments.
    BeforeArguments {
        /// Whether the call's id may come first, which is dropped: calls get ids of their own.
        id: bool,
    },
    Arguments(Nesting),
}

/// What a character is where it stands.
enum Fit {
    Taken,
    /// Nothing yet: the state has changed, and tells.
    Again,
    /// No part of a call.
    Failed,
}

impl Mistral {
    pub(super) fn text(&mut self, mut text: &str, sink: &mut Sink) {
        while !text.is_empty() {
            text = match &mut self.state {
                State::Content => return sink.content(text),
                State::Call { call, listed } => {
                    let (step, rest) = call.take(text, sink);
                    let listed = *listed;
                    self.after_call(step, listed, sink);
                    rest
                }
                State::Arguments(nesting) => {
                    let end = text.char_indices().find(|&(_, c)| nesting.push(c));
                    let (arguments, rest) =
                        text.split_at(end.map_or(text.len(), |(at, c)| at + c.len_utf8()));
                    sink.arguments(arguments);
                    if end.is_some() {
                        self.state = State::Content;
                    }
                    rest
                }
                _ => self.character(text, sink),
            };
        }
    }

    /// Takes the first character of `text` unless it fits nowhere, and returns what follows.
    fn character<'t>(&mut self, text: &'t str, sink: &mut Sink) -> &'t str {
        let mut rest = text.chars();
        let Some(c) = rest.next() else {
            return text;
        };
        let fit = match &self.state {
            State::Start | State::Element => self.open(c),
            State::AfterElement => self.after_element(c),
            State::Name(at) => {
                let at = *at;
                self.name(at, c, sink)
            }
            State::BeforeArguments { id } => {
                let id = *id;
                self.before_arguments(id, c, sink)
            }
            State::Content | State::Call { .. } | State::Arguments(_) => Fit::Again,
        };
        match fit {
            Fit::Taken => return rest.as_str(),
            Fit::Again => {}
            Fit::Failed => self.give_back(sink),
        }
        text
    }

    fn open(&mut self, c: char) -> Fit {
        let listed = matches!(self.state, State::Element);
        match c {
            _ if c.is_whitespace() && self.before.len() < MAX_HELD => self.before.push(c),
            '[' if !listed => {
                self.before.push(c);
                self.state = State::Element;
            }
            '{' => {
                let call = CallParser::new(Certainty::Tagged);
                self.state = State::Call { call, listed };
                return Fit::Again;
            }
            // After a comma that follows the last object.
            ']' if listed && self.before.trim().is_empty() => {
                self.before.clear();
                self.state = State::Content;
            }
            _ if listed || c.is_whitespace() => return Fit::Failed,
            _ => {
                self.state = State::Name(self.before.len());
                return Fit::Again;
            }
        }
        Fit::Taken
    }

    fn after_call(&mut self, step: Step, listed: bool, sink: &mut Sink) {
        match step {
            Step::More => {}
            Step::Done => {
                self.before.clear();
                self.state = if listed {
                    State::AfterElement
                } else {
                    State::Content
                };
            }
            Step::Failed => self.give_back(sink),
        }
    }

    fn after_element(&mut self, c: char) -> Fit {
        match c {
            ',' => self.state = State::Element,
            ']' => self.state = State::Content,
            _ if c.is_whitespace() => {}
            _ => return Fit::Failed,
        }
        Fit::Taken
    }

    /// `c` inside or after the name, which begins at byte `at` of `before`.
    fn name(&mut self, at: usize, c: char, sink: &mut Sink) -> Fit {
        if c == '{' {
            return self.end_name(at, false, sink);
        }
        let ended = self.before[at..].ends_with(char::is_whitespace);
        let fits = c.is_whitespace() || !(ended || "[]\"".contains(c));
        if !fits || self.before.len() - at >= MAX_HELD {
            return Fit::Failed;
        }
        self.before.push(c);
        Fit::Taken
    }

    fn end_name(&mut self, at: usize, id: bool, sink: &mut Sink) -> Fit {
        let name = self.before[at..].trim_end();
        if name.is_empty() {
            return Fit::Failed;
        }
        sink.begin_call(name.to_owned());
        self.before.clear();
        self.state = State::BeforeArguments { id };
        Fit::Again
    }

    fn before_arguments(&mut self, id: bool, c: char, sink: &mut Sink) -> Fit {
        match c {
            '{' => {
                sink.arguments("{");
                self.state = State::Arguments(Nesting::opened(c));
            }
            _ if c.is_whitespace() || (id && c.is_alphanumeric()) => {}
            _ => return Fit::Failed,
        }
        Fit::Taken
    }

    pub(super) fn tag(&mut self, tag: Tag, sink: &mut Sink) {
        if self.in_string() {
            return self.text(tag.name(), sink);
        }
        match (&mut self.state, tag) {
            (_, Tag::ToolCalls) => {
                self.give_back(sink);
                self.before.push_str(tag.name());
                self.state = State::Start;
            }
            (State::Name(at), Tag::Args | Tag::CallId) => {
                let at = *at;
                // A name has a character that is no white space: it began with one.
                self.end_name(at, tag == Tag::CallId, sink);
            }
            (State::BeforeArguments { id }, Tag::Args) if *id => *id = false,
            _ => {
                self.give_back(sink);
                sink.content(tag.name());
            }
        }
    }

    fn in_string(&self) -> bool {
        match &self.state {
            State::Call { call, .. } => call.in_string(),
            State::Arguments(nesting) => nesting.in_string(),
            _ => false,
        }
    }

    /// Leaves the call, if there is one. If it has not begun, its text is content.
    fn give_back(&mut self, sink: &mut Sink) {
        let raw = match std::mem::take(&mut self.state) {
            State::Call { call, .. } => call.into_raw(),
            _ => Some(String::new()),
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
            State::Call { call, .. } => call.held(),
            _ => 0,
        };
        self.before.len() + call
    }
}
