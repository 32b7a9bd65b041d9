//! Tool calls written as JSON objects, as their characters come.

use super::MAX_HELD;
use super::lex::{JsonString, Nesting, StringStep};
use super::sink::Sink;

/// What a character leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// More belongs to the call.
    More,
    /// The character was the call's last.
    Done,
    /// The character cannot belong to a call. It was not taken.
    Failed,
}

/// How sure it is that an object is a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Certainty {
    /// A tag says so: the call begins as soon as its name is complete.
    Tagged,
    /// It may as well be a JSON answer: the call begins with its arguments, and an object with keys
    /// that calls don't have is none.
    Guessed,
}

/// One object `{"name": "f", "arguments": {}}`.
///
/// Of JSON it checks what it needs to find the parts. The arguments are passed on as they are: they
/// have reached the reader before their end can be checked.
#[derive(Clone, Debug)]
pub(super) struct CallParser {
    certainty: Certainty,
    state: State,
    /// Complete, but the call has not begun.
    name: Option<String>,
    begun: bool,
    /// Whether the arguments have been seen. Any others are skipped.
    has_arguments: bool,
    /// Whether the arguments have any text.
    has_text: bool,
    /// Arguments that came before the name.
    arguments: String,
    /// All that was taken until the call began, to be given back if it is no call.
    raw: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Name,
    Arguments,
    /// `"type": "function"`, which Llama copies from the tools' descriptions.
    Type,
    Other,
}

#[derive(Clone, Debug)]
enum State {
    /// In front of `{`.
    Open,
    /// In front of a key or `}`.
    Key,
    InKey(JsonString, String),
    Colon(Key),
    Value(Key),
    Name(JsonString, String),
    /// Arguments that are an object: its exact text.
    Object(Nesting),
    /// Arguments that are a string: what it contains.
    Quoted(JsonString),
    /// A value of no interest.
    Skipped(Nesting),
    /// A number or a word, which ends in front of what follows it.
    Scalar,
    /// In front of `,` or `}`.
    Comma,
}

impl CallParser {
    pub(super) fn new(certainty: Certainty) -> Self {
        Self {
            certainty,
            state: State::Open,
            name: None,
            begun: false,
            has_arguments: false,
            has_text: false,
            arguments: String::new(),
            raw: String::new(),
        }
    }

    /// Takes characters of `text` up to the end of the call, and returns what follows.
    pub(super) fn take<'t>(&mut self, text: &'t str, sink: &mut Sink) -> (Step, &'t str) {
        for (at, c) in text.char_indices() {
            match self.push(c, sink) {
                Step::More => {}
                Step::Done => return (Step::Done, &text[at + c.len_utf8()..]),
                Step::Failed => return (Step::Failed, &text[at..]),
            }
        }
        (Step::More, "")
    }

    /// Whether the text is inside a string, where tags are text.
    pub(super) fn in_string(&self) -> bool {
        match &self.state {
            State::InKey(..) | State::Name(..) | State::Quoted(_) => true,
            State::Object(nesting) | State::Skipped(nesting) => nesting.in_string(),
            _ => false,
        }
    }

    /// The text taken, unless the call has begun.
    pub(super) fn into_raw(self) -> Option<String> {
        (!self.begun).then_some(self.raw)
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.raw.len() + self.arguments.len()
    }

    fn push(&mut self, c: char, sink: &mut Sink) -> Step {
        let step = self.step(c, sink);
        if !self.begun && step == Step::More {
            self.raw.push(c);
        }
        step
    }

    fn step(&mut self, c: char, sink: &mut Sink) -> Step {
        match &mut self.state {
            State::InKey(string, text) => match string.push(c, text) {
                StringStep::End => {
                    let key = Key::of(text);
                    self.key(key)
                }
                step => within(step, text),
            },
            State::Name(string, text) => match string.push(c, text) {
                StringStep::End => {
                    let name = std::mem::take(text);
                    self.named(name, sink)
                }
                step => within(step, text),
            },
            State::Object(_) | State::Quoted(_) | State::Skipped(_) => self.inside_value(c, sink),
            State::Scalar if c.is_alphanumeric() || "+-.".contains(c) => Step::More,
            _ if c.is_whitespace() => Step::More,
            State::Scalar | State::Comma => self.after_member(c, sink),
            _ => self.punctuation(c, sink),
        }
    }

    fn inside_value(&mut self, c: char, sink: &mut Sink) -> Step {
        let mut part = String::new();
        let ends = match &mut self.state {
            State::Object(nesting) => {
                part.push(c);
                nesting.push(c)
            }
            State::Quoted(string) => match string.push(c, &mut part) {
                StringStep::More => false,
                StringStep::End => true,
                StringStep::Invalid => return Step::Failed,
            },
            State::Skipped(nesting) => nesting.push(c),
            _ => false,
        };
        self.put(&part, sink);
        if ends {
            self.state = State::Comma;
        }
        Step::More
    }

    /// `c` in front of a value or a key.
    fn punctuation(&mut self, c: char, sink: &mut Sink) -> Step {
        let no_name = self.name.is_none() && !self.begun;
        self.state = match (&self.state, c) {
            (State::Open, '{') => State::Key,
            (State::Key, '"') => State::InKey(JsonString::default(), String::new()),
            // Models leave a comma after the last member.
            (State::Key, '}') => return self.close(sink),
            (State::Colon(key), ':') => State::Value(*key),
            (State::Value(Key::Name), '"') if no_name => {
                State::Name(JsonString::default(), String::new())
            }
            (State::Value(Key::Name), _) if no_name => return Step::Failed,
            (State::Value(Key::Arguments), _) if !self.has_arguments => {
                return self.open_arguments(c, sink);
            }
            (State::Value(_), '{' | '[' | '"') => State::Skipped(Nesting::opened(c)),
            (State::Value(_), '-' | '0'..='9' | 'a'..='z') => State::Scalar,
            _ => return Step::Failed,
        };
        Step::More
    }

    /// `c` after a member of the object.
    fn after_member(&mut self, c: char, sink: &mut Sink) -> Step {
        match c {
            ',' => self.state = State::Key,
            '}' => return self.close(sink),
            _ => return Step::Failed,
        }
        Step::More
    }

    fn key(&mut self, key: Key) -> Step {
        let foreign = key == Key::Other && self.certainty == Certainty::Guessed;
        if foreign && !self.begun {
            return Step::Failed;
        }
        self.state = State::Colon(key);
        Step::More
    }

    fn named(&mut self, name: String, sink: &mut Sink) -> Step {
        if name.is_empty() {
            return Step::Failed;
        }
        self.name = Some(name);
        self.state = State::Comma;
        // After its arguments a call may still turn out to be none, up to its last character.
        if self.certainty == Certainty::Tagged && !self.has_arguments {
            self.begin(sink);
        }
        Step::More
    }

    fn open_arguments(&mut self, c: char, sink: &mut Sink) -> Step {
        let state = match c {
            '{' => State::Object(Nesting::opened(c)),
            '"' => State::Quoted(JsonString::default()),
            // `null`: there are none.
            'n' => State::Scalar,
            _ => return Step::Failed,
        };
        self.has_arguments = true;
        self.begin(sink);
        if c == '{' {
            self.put("{", sink);
        }
        self.state = state;
        Step::More
    }

    /// Passes on a part of the arguments, or keeps it until the call begins.
    fn put(&mut self, text: &str, sink: &mut Sink) {
        self.has_text |= !text.is_empty();
        if self.begun {
            sink.arguments(text);
        } else {
            self.arguments.push_str(text);
        }
    }

    /// The object is complete.
    fn close(&mut self, sink: &mut Sink) -> Step {
        let complete = self.has_arguments || self.certainty == Certainty::Tagged;
        if complete {
            self.begin(sink);
        }
        if !self.begun {
            return Step::Failed;
        }
        // Readers parse the arguments as JSON, which an empty text is not.
        if !self.has_text {
            self.put("{}", sink);
        }
        Step::Done
    }

    /// Begins the call if its name is known.
    fn begin(&mut self, sink: &mut Sink) {
        if let Some(name) = self.name.take() {
            sink.begin_call(name);
            sink.arguments(&std::mem::take(&mut self.arguments));
            self.raw = String::new();
            self.begun = true;
        }
    }
}

/// What a part of a name or a key leads to, which has become `text`.
fn within(step: StringStep, text: &str) -> Step {
    if step == StringStep::Invalid || text.len() > MAX_HELD {
        return Step::Failed;
    }
    Step::More
}

impl Key {
    fn of(text: &str) -> Self {
        match text {
            "name" => Self::Name,
            "arguments" | "parameters" => Self::Arguments,
            "type" => Self::Type,
            _ => Self::Other,
        }
    }
}
